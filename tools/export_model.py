"""Turn a trained run into a model that maediff ships.

python tools/export_model.py RUN NAME --card card.yaml [--scores EVAL ...] [--cohort COHORT]

RUN@t_test=125 makes a setting the model's own. The folder NAME goes into src/maediff/weights/, or into models/ (outside
the wheel) if the card says opt_in. With --cohort, thresholds are calibrated on that cohort's healthy val scans.
card.yaml holds what no file of the run tells; see tools/card_example.yaml.
"""

import argparse
from pathlib import Path

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.core.config import build_config, parse_settings, read_settings
from maediff.core.errors import InputError
from maediff.models.catalogue import CHECKOUT, PACKAGED, describe
from maediff.models.export import export_model


def main() -> None:
    """Export, and print what `maediff models` will say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], help="EVAL folders that scored RUN"
    )
    parser.add_argument(
        "--cohort", type=Path, help="to calibrate on; default: the run's own calibration"
    )
    parser.add_argument(
        "--post", nargs="+", help="key=value of the post-processing; default: the run's own"
    )
    parser.add_argument(
        "--calibration-scans",
        type=int,
        default=CALIBRATION_SCANS,
        help="healthy val scans at most",
    )
    parser.add_argument(
        "--unseen", action="store_true", help="calibrate on all who were not trained on"
    )
    parser.add_argument(
        "--half", action=argparse.BooleanOptionalAction, help="fp16; default: only if too large"
    )
    parser.add_argument("--folder", type=Path, help="put NAME there instead")
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()
    try:
        about = read_settings(args.card)
        parent = args.folder or (CHECKOUT / "models" if about.get("opt_in") else PACKAGED)
        post = (
            build_config(PostprocessConfig, parse_settings(args.post), "--post")
            if args.post
            else None
        )
        card = export_model(
            args.run,
            parent / args.name,
            about,
            evaluations=args.scores,
            cohort=args.cohort,
            post=post,
            max_scans=args.calibration_scans,
            unseen=args.unseen,
            half=args.half,
            overwrite=args.overwrite,
        )
    except InputError as error:
        parser.error(str(error))
    print(describe(parent / args.name, card))


if __name__ == "__main__":
    main()
