"""A few slices of a subject, kept beside the results: a report is drawn from them, without scan or model.

`slices.npz` holds k slices on the model's grid: `slice_ids` (k), `image`, `reference`, `anomaly_map` (float16,
k x 96 x 96), `brain`, `mask` and, where a reader drew one, `lesion` (uint8), and `spacing_mm` (x, y, z). `z_mm` (k), in
a DETECT folder, is where the middle of each slice lies, in the scan's RAS+ mm.
A baseline that draws no healthy image has no `reference`.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.types import Map, Mask

NO_THRESHOLD_VMAX = 0.5


@dataclass(frozen=True)
class Snapshot:
    """What `slices.npz` holds: all of a subject's slices before `save_slices`, the chosen ones after."""

    slice_ids: Int[np.ndarray, " k"]
    image: Map
    anomaly_map: Map
    brain: Mask
    mask: Mask
    spacing_mm: tuple[float, float, float]
    reference: Map | None = None
    lesion: Mask | None = None
    z_mm: Float[np.ndarray, " k"] | None = None


def vmax_of(threshold: float | None) -> float:
    """Upper end of the anomaly map's colour scale: the same for every scan that is read at this threshold."""
    return min(1.0, 2 * threshold) if threshold else NO_THRESHOLD_VMAX


def pick_slices(brain: Mask, weight: Map | Mask, count: int = 6) -> Int[np.ndarray, " k"]:
    """Indices of up to `count` slices: half with the largest sum of `weight`, the rest spread over the brain.

    Neighbours of a chosen slice are passed over, and slices with little brain are not taken:

        weight per slice 0 1 9 8 1 0 5 1 0, count 4 -> 2 and 6 for their weight, 0 and 4 to fill the gaps
    """
    area = brain.sum(axis=(1, 2))
    candidates = np.flatnonzero(area >= 0.25 * area.max(initial=1))
    if len(candidates) <= count:
        return candidates
    apart = max(1, len(candidates) // (2 * count))
    total = np.where(brain, weight, 0).sum(axis=(1, 2), dtype=np.float64)
    chosen: list[int] = []
    for index in sorted(candidates, key=lambda i: (-total[i], i)):
        if (
            len(chosen) < count // 2
            and total[index] > 0
            and all(abs(index - other) > apart for other in chosen)
        ):
            chosen.append(int(index))
    if not chosen:
        evenly = np.linspace(0, len(candidates) - 1, count + 2).round().astype(np.int64)[1:-1]
        return np.asarray(candidates[evenly])
    while len(chosen) < count:  # the candidate furthest from all that are chosen
        distance = np.abs(candidates[:, None] - np.array(chosen)).min(axis=1)
        chosen.append(int(candidates[distance.argmax()]))
    return np.array(sorted(chosen))


def save_slices(path: Path, whole: Snapshot, chosen: Int[np.ndarray, " k"]) -> None:
    """Write the `chosen` slices of the volumes in `whole` to `path` (`slices.npz`)."""
    half = {"image": whole.image, "anomaly_map": whole.anomaly_map, "reference": whole.reference}
    binary = {"brain": whole.brain, "mask": whole.mask, "lesion": whole.lesion}
    arrays = {
        "slice_ids": whole.slice_ids[chosen],
        "spacing_mm": np.array(whole.spacing_mm),
        **({} if whole.z_mm is None else {"z_mm": whole.z_mm[chosen]}),
        **{
            name: value[chosen].astype(np.float16)
            for name, value in half.items()
            if value is not None
        },
        **{
            name: value[chosen].astype(np.uint8)
            for name, value in binary.items()
            if value is not None
        },
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_slices(path: Path) -> Snapshot:
    """Read what `save_slices` wrote.

    Raises:
        InputError: the file is missing, damaged or something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        x, y, z = (float(size) for size in arrays["spacing_mm"])
        return Snapshot(
            slice_ids=arrays["slice_ids"],
            image=arrays["image"].astype(np.float32),
            anomaly_map=arrays["anomaly_map"].astype(np.float32),
            brain=arrays["brain"].astype(bool),
            mask=arrays["mask"].astype(bool),
            spacing_mm=(x, y, z),
            reference=arrays["reference"].astype(np.float32) if "reference" in arrays else None,
            lesion=arrays["lesion"].astype(bool) if "lesion" in arrays else None,
            z_mm=arrays.get("z_mm"),
        )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path}: not a readable file of slices ({error}); run again what made it"
        ) from error
