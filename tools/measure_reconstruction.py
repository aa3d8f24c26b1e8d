"""Add the reconstruction errors of healthy scans to a model that was calibrated earlier.

    python tools/measure_reconstruction.py src/maediff/weights/t1 cohorts/healthy-t1

Quality control compares new scans with them (`models.reconstruction`). Thresholds do not change.
The healthy scans are those that `maediff calibrate` would use: one per person that the model did
not learn from. `train` and `calibrate` write the same entry.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maediff.anomaly.reconstruction import blur_error, reconstruction_error
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import read_json, write_json
from maediff.methods import predict_volume
from maediff.models.calibrate import unseen_healthy
from maediff.models.model import read_model
from maediff.models.reconstruction import HealthyReconstructions
from maediff.preparation.config import PreparationConfig


def add_reconstruction(folder: Path, cohort: Path, seed: int = 0) -> HealthyReconstructions:
    """Measure the healthy scans of a cohort and write the entry of calibration.json.

    Args:
        folder: folder of a calibrated model.
        cohort: a cohort that is prepared like the model's scans.
        seed: seed of the noise at test.

    Raises:
        InputError: the cohort has another preparation, or no healthy scan of a person that the
            model did not learn from.
    """
    model, opened = read_model(folder), Cohort.open(cohort)
    differing = model.preparation.differences(PreparationConfig.from_record(opened.meta))
    if differing:
        raise InputError(f"{cohort}: another {', '.join(differing)} than the scans of {folder}")
    people = {row.person: row for row in reversed(unseen_healthy(opened, model))}
    pairs = []
    for row in people.values():
        scan = opened.load(row)
        _, reference = predict_volume(
            model.method, scan.images, scan.brain, scan.slice_ids, seed=seed
        )
        error = reconstruction_error(scan.images, reference, scan.brain)
        if np.isfinite(error):
            pairs.append((error, blur_error(scan.images, scan.brain)))
    if not pairs:
        raise InputError(f"{cohort}: no healthy scan of a person that {folder} did not learn from")
    errors, blur_errors = zip(*sorted(pairs), strict=True)
    measured = HealthyReconstructions(errors, blur_errors)
    path = folder / "calibration.json"
    write_json(path, {**read_json(path), "reconstruction": measured.record()})
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the entry, and print the median share."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a calibrated model")
    parser.add_argument("cohort", type=Path, help="cohort with healthy scans")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise at test")
    args = parser.parse_args(argv)
    try:
        measured = add_reconstruction(args.model, args.cohort, args.seed)
    except InputError as error:
        parser.error(str(error))
    print(f"{len(measured.errors)} scans, {measured.share:.3f} times the error of a blur")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
