"""A few slices of a subject in a file, so that reports need neither the scan nor the model.

`slices.npz` holds k slices on the model's grid:

    slice_ids (k), spacing_mm (x, y, z)
    image, anomaly_map, reference      float16, k x 96 x 96; a baseline may have no reference
    brain, mask, lesion                uint8, k x 96 x 96; lesion only if a lesion mask exists
    z_mm (k)                           height of the middle of each slice in the RAS+ mm of the
                                       scan; only in a folder of `maediff detect`
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.reading import DAMAGED_NPZ
from maediff.core.types import Map, Mask

MAXIMUM_WITHOUT_THRESHOLD = 0.5
"""Upper end of the colour scale if no threshold is known."""

MAXIMUM_SCALED = 2.0
"""Upper end of the colour scale of maps in units of the default threshold."""


@dataclass(frozen=True)
class Snapshot:
    """Slices of a subject: all of them, or the chosen ones of `slices.npz`.

    Args:
        slice_ids: index of each slice on the model's grid.
        image: intensities of the scan.
        anomaly_map: anomaly map.
        brain: brain mask.
        mask: anomaly mask.
        spacing_mm: voxel size along x, y and z.
        reference: healthy reference; None for a baseline without one.
        lesion: lesion mask; None if there is none.
        z_mm: height of each slice in the RAS+ mm of the scan; None if unknown.
    """

    slice_ids: Int[np.ndarray, " k"]
    image: Map
    anomaly_map: Map
    brain: Mask
    mask: Mask
    spacing_mm: tuple[float, float, float]
    reference: Map | None = None
    lesion: Mask | None = None
    z_mm: Float[np.ndarray, " k"] | None = None


def display_maximum(threshold: float | None, *, scaled: bool = False) -> float:
    """Return the upper end of the colour scale of anomaly maps.

    Args:
        threshold: threshold of the mask; None if unknown.
        scaled: the maps are in units of the default threshold. Their scale is the same for all
            models, up to twice the default threshold, unless a mask has a higher threshold.
            Otherwise the scale depends on the threshold, up to twice its value.
    """
    if scaled:
        return MAXIMUM_SCALED if (threshold or 0) < MAXIMUM_SCALED else 2 * (threshold or 0)
    return min(1.0, 2 * threshold) if threshold else MAXIMUM_WITHOUT_THRESHOLD


def pick_slices(brain: Mask, weight: Map | Mask, count: int = 6) -> Int[np.ndarray, " k"]:
    """Return the indices of up to `count` slices for a report, in ascending order.

    Up to half of them have the largest sum of `weight`; the rest spread over the brain.
    Neighbours of a slice chosen by weight are skipped, and so are slices with little brain:

        weight per slice 0 1 9 8 1 0 5 1 0, count 4 -> 2 and 6 by weight, 0 and 4 in the gaps

    Args:
        brain: brain mask.
        weight: weight of each voxel, for example the anomaly map or a lesion mask.
        count: largest number of slices.
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
        last = len(candidates) - 1
        # With the ends, if there are too few slices for `count` different ones between them.
        places = (
            np.linspace(0, last, count + 2)[1:-1] if last > count else np.linspace(0, last, count)
        )
        return np.asarray(candidates[places.round().astype(np.int64)])
    while len(chosen) < count:  # add the candidate furthest from all chosen slices
        distance = np.abs(candidates[:, None] - np.array(chosen)).min(axis=1)
        chosen.append(int(candidates[distance.argmax()]))
    return np.array(sorted(chosen))


def save_slices(path: Path, whole: Snapshot, chosen: Int[np.ndarray, " k"]) -> None:
    """Write some slices of a subject to a file.

    Args:
        path: file to write, `slices.npz`.
        whole: all slices of the subject.
        chosen: indices of the slices to store.
    """
    images = {"image": whole.image, "anomaly_map": whole.anomaly_map, "reference": whole.reference}
    masks = {"brain": whole.brain, "mask": whole.mask, "lesion": whole.lesion}
    arrays = {
        "slice_ids": whole.slice_ids[chosen],
        "spacing_mm": np.array(whole.spacing_mm),
        **({} if whole.z_mm is None else {"z_mm": whole.z_mm[chosen]}),
        **{
            name: value[chosen].astype(np.float16)
            for name, value in images.items()
            if value is not None
        },
        **{
            name: value[chosen].astype(np.uint8)
            for name, value in masks.items()
            if value is not None
        },
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_slices(path: Path) -> Snapshot:
    """Return the slices in a file of `save_slices`.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
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
    except DAMAGED_NPZ as error:
        raise InputError(
            f"{path}: missing or damaged ({error}); run the command that made it again"
        ) from error
