"""Make the reduced MNI152 template of maediff from the template that nilearn ships.

    python tools/make_atlas.py src/maediff/preparation/atlas/mni152.npz

`maediff.preparation.atlas.reduced` describes the arrays.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from maediff.preparation.atlas.reduced import LEVELS_MM, Tissue
from maediff.preparation.atlas.template import Atlas, load_atlas
from maediff.preparation.registration import find_centre_mm, resample_to_cubes

MARGIN_MM = 8.0  # the metric of registration covers the brain and this margin
BLUR_MM = 1.5  # of the intensities that quality control compares
DEEP_MM = 12  # at which fluid is that of the ventricles
PERIVENTRICULAR_MM = 10.0
JUXTACORTICAL_MM = 3.0
# Box around the lateral and third ventricles, in MNI152 mm along x, y and z.
VENTRICLE_BOX_MM = ((-32.0, 32.0), (-55.0, 35.0), (-14.0, 32.0))


def make_arrays() -> dict[str, np.ndarray]:
    """Return the arrays of the file, by name."""
    atlas = load_atlas()
    tissues, tissues_affine = make_tissues()
    arrays = {
        "brain_mm3": np.array(float(atlas.brain.sum() * abs(np.linalg.det(atlas.affine[:3, :3])))),
        "centre_mm": find_centre_mm(atlas.brain, atlas.affine),
        "brain_2mm": atlas.brain[::2, ::2, ::2].astype(np.uint8),
        "t1_4mm": ndimage.gaussian_filter(atlas.t1, BLUR_MM)[::4, ::4, ::4],
        "deep_4mm": ndimage.binary_erosion(atlas.brain, iterations=DEEP_MM)[::4, ::4, ::4].astype(
            np.uint8
        ),
        "affine_2mm": atlas.affine @ np.diag([2.0, 2.0, 2.0, 1.0]),
        "tissues_2mm": tissues,
        "tissues_affine": tissues_affine,
    }
    for mm in LEVELS_MM:
        image, mask = make_level(atlas, mm)
        arrays[f"image_{mm:g}mm"] = sitk.GetArrayFromImage(image).T
        arrays[f"mask_{mm:g}mm"] = mask
        arrays[f"origin_{mm:g}mm"] = np.array(image.GetOrigin())
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def make_level(atlas: Atlas, mm: float) -> tuple[Any, np.ndarray]:
    """Return the template on cubes of `mm` as a SimpleITK image, and the mask of the metric."""
    inside = np.where(atlas.brain, atlas.t1 + 0.1, 0).astype(np.float32)
    image, brain = (
        resample_to_cubes(data.astype(np.float32), atlas.affine, mm)
        for data in (inside, atlas.brain)
    )
    outside = sitk.GetArrayFromImage(brain).T < 0.5
    distance_mm = ndimage.distance_transform_edt(outside) * mm
    return image, (distance_mm <= MARGIN_MM).astype(np.uint8)


def make_tissues() -> tuple[np.ndarray, np.ndarray]:
    """Return the tissue classes at 2 mm and their affine."""
    from nilearn import datasets

    def read(image: Any) -> np.ndarray:
        return np.asarray(image.dataobj, dtype=np.float32)

    grey_image = datasets.load_mni152_gm_template(resolution=2)
    grey, white = read(grey_image), read(datasets.load_mni152_wm_template(resolution=2))
    brain = read(datasets.load_mni152_brain_mask(resolution=2)) > 0
    affine = np.asarray(grey_image.affine, dtype=np.float64)
    fluid = brain & (grey + white < 0.5)
    index = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing="ij"), axis=-1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    in_box = np.all(
        [
            (low < mm[..., axis]) & (mm[..., axis] < high)
            for axis, (low, high) in enumerate(VENTRICLE_BOX_MM)
        ],
        axis=0,
    )
    # Sulci reach into the box from its sides; the ventricles are its largest component.
    labels, _ = ndimage.label(fluid & in_box)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricles = labels == sizes.argmax()
    is_grey, is_white = (grey >= white) & ~fluid & brain, (white > grey) & ~fluid & brain
    cortex = is_grey & ~ndimage.binary_dilation(in_box & brain, iterations=1)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)

    def distance(mask: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing), np.float32)

    tissues = np.full(brain.shape, Tissue.FLUID, dtype=np.uint8)
    tissues[is_grey] = Tissue.GREY
    tissues[is_white] = Tissue.WHITE
    tissues[is_white & (distance(cortex) <= JUXTACORTICAL_MM)] = Tissue.JUXTACORTICAL
    tissues[is_white & (distance(ventricles) <= PERIVENTRICULAR_MM)] = Tissue.PERIVENTRICULAR
    return tissues, affine


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and print its size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the file to write, .npz")
    path = parser.parse_args(argv).file
    np.savez_compressed(path, **make_arrays())
    print(path, path.stat().st_size, "bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
