"""Scans of healthy brains rendered from T1w in FLAIR or T2w contrast.

    clean  = sum of tissue fractions times random intensities, grey matter at 1
             + deep grey matter, ventricle walls, slow variation of each tissue, T1w texture
    image  = | blur(bias * clean), averaged over the slice thickness + complex noise |,
             zero outside the brain

Random contrasts on given anatomy are the idea of SynthSeg (Billot et al. 2023,
https://doi.org/10.1016/j.media.2023.102789). The ranges are our choice. They cover intensity
ratios of clinical T2w (fast spin echo, TE about 100 ms) and FLAIR scans at 1.5 and 3 T. They are
wide on purpose, and were adjusted by eye to the datasets `lgg` (val) and `mslub`.
A rendering cannot replace a scan: it lacks iron, vessels, flow and myelin that T1w does not show.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import assign_splits
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_table
from maediff.core.processes.lock import hold_locks
from maediff.preparation.background import brain_from_background
from maediff.preparation.resample import resample
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, write_volume
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import slice_spacing_mm
from maediff.synthetic.fields import logistic, smooth_field
from maediff.synthetic.tissues import Tissues, segment

logger = logging.getLogger(__name__)

RenderedContrast = Literal["FLAIR", "T2w"]
Range = tuple[float, float]
"""Lower and upper end of a uniform distribution."""
RENDERING_COLUMNS = ("subject", "session", "image", "brain_mask", "split", "healthy", "dataset")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RenderConfig:
    """Ranges of the random values of a rendering; cortical grey matter has intensity 1.

    Args:
        fluid: intensity of CSF.
        white: intensity of white matter.
        deep_grey: added to deep grey matter, which iron darkens.
        wall: added to white matter along the ventricles; decays by 1/e in 2.5 mm.
        flow: amplitude of the slow variation of CSF.
        variation: standard deviation of the slow variation of grey and of white matter.
        rim: share of CSF within 2 mm of the hull that becomes grey matter, because skull
            stripping removes all, some or none of the CSF there.
        hull: threshold on a smooth random field (standard deviation 1) above which the outermost
            1.5 mm are darker. Masks often include dark skull and membranes there.
        texture: factor of the T1w texture, times the contrast of white and grey matter.
        bias: standard deviation of the logarithm of the bias field.
        blur_mm: standard deviation of the point spread function along each axis of the slice.
        slice_mm: thickness of thick slices.
        thick_share: share of renderings with thick slices; the others keep those of the T1w.
        noise: standard deviation of the complex noise.
    """

    fluid: Range
    white: Range
    deep_grey: Range
    wall: Range
    flow: Range
    variation: Range = (0.01, 0.05)
    rim: Range = (0.0, 0.8)
    hull: Range = (0.3, 1.3)
    texture: Range = (-0.5, 0.5)
    bias: Range = (0.02, 0.12)
    blur_mm: Range = (0.3, 0.9)
    slice_mm: Range = (3.0, 6.5)
    thick_share: float = 0.75
    noise: Range = (0.005, 0.04)


CONFIGS: dict[RenderedContrast, RenderConfig] = {
    "FLAIR": RenderConfig(
        fluid=(0.0, 0.3),
        white=(0.7, 1.0),
        deep_grey=(-0.12, 0.03),
        wall=(0.0, 0.25),
        flow=(0.0, 0.08),
    ),
    "T2w": RenderConfig(
        fluid=(1.7, 2.8),
        white=(0.58, 0.85),
        deep_grey=(-0.2, 0.0),
        wall=(0.0, 0.12),
        flow=(0.0, 0.15),
    ),
}


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class Rendering:
    """A rendered scan.

    Args:
        image: intensities, zero outside the brain.
        brain: brain mask.
        to_source: voxel of the rendering -> voxel of the T1w.
    """

    image: np.ndarray
    brain: np.ndarray
    to_source: np.ndarray


def render_contrast(
    tissues: Tissues,
    brain: Bool[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, " 3"],
    config: RenderConfig,
    rng: np.random.Generator,
) -> Rendering:
    """Return one rendering of a T1w brain in another contrast.

    Args:
        tissues: tissues of the T1w.
        brain: brain mask.
        spacing_mm: voxel size along x, y and z.
        config: ranges of the random values.
        rng: source of the random values and the noise.
    """
    shape = (int(brain.shape[0]), int(brain.shape[1]), int(brain.shape[2]))
    voxel = float(np.mean(spacing_mm))

    def draw(limits: Range) -> float:
        return float(rng.uniform(*limits))

    def field(wavelength_mm: float) -> np.ndarray:
        return smooth_field(rng, shape, wavelength_mm, voxel)

    fluid, grey, white = tissues.fractions
    depth = tissues.depth_mm
    becomes_grey = draw(config.rim) * fluid * np.clip(2.0 - depth / 2.0, 0, 1)
    fluid, grey = fluid - becomes_grey, grey + becomes_grey
    levels = draw(config.fluid), draw(config.white)
    deep = np.asarray(logistic((depth - 24.0) / 3.0))
    grey_level = 1 + draw(config.deep_grey) * deep + draw(config.variation) * field(35.0)
    white_level = levels[1] * (1 + draw(config.variation) * field(50.0))
    white_level += (
        draw(config.wall) * np.exp(-tissues.to_ventricle_mm / 2.5) * (1 + 0.4 * field(25.0))
    )
    fluid_level = levels[0] + draw(config.flow) * np.abs(field(30.0))
    clean = fluid * fluid_level + grey * grey_level + white * white_level
    clean = clean + draw(config.texture) * abs(1 - levels[1]) * np.clip(tissues.texture, -0.3, 0.3)
    patches = np.asarray(logistic((field(20.0) - draw(config.hull)) / 0.2)) * np.clip(
        2.0 - depth / 1.5, 0, 1
    )
    clean = clean * (1 - rng.uniform(0.7, 1.0) * patches)
    signal = (
        np.maximum(clean, 0.0) * np.exp(draw(config.bias) * field(draw((80.0, 160.0)))) * brain
    )
    sigma = [draw(config.blur_mm) / float(spacing_mm[axis]) for axis in (0, 1)]
    signal = ndimage.gaussian_filter(signal.astype(np.float32), (*sigma, 0.0))
    thick = rng.uniform() < config.thick_share
    thickness = max(draw(config.slice_mm), float(spacing_mm[2])) if thick else float(spacing_mm[2])
    step = thickness / float(spacing_mm[2])
    to_source = np.diag([1.0, 1.0, step, 1.0])
    to_source[2, 3] = (step - 1) / 2
    count = (shape[0], shape[1], max(1, int(np.ceil(shape[2] / step - 1e-6))))
    signal = resample(signal, to_source, count, "linear")
    on_grid = resample(np.asarray(brain, dtype=bool), to_source, count, "majority")
    real, imaginary = draw(config.noise) * rng.standard_normal((2, *count), dtype=np.float32)
    return Rendering(
        (np.hypot(signal + real, imaginary) * on_grid).astype(np.float32), on_grid, to_source
    )


@hold_locks()
def render_scans(
    source: Path,
    out: Path,
    contrast: RenderedContrast,
    *,
    n: int = 3,
    seed: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Render T1w scans in another contrast and write a manifest for `maediff preprocess`.

    All renderings of a subject belong to the split of the subject.

    Args:
        source: a cohort of T1w scans, a BIDS dataset, a folder or a manifest CSV; the scans are
            skull-stripped or have brain masks.
        out: folder of the renderings and manifest.csv.
        contrast: FLAIR or T2w.
        n: renderings per scan.
        seed: seed of the renderings.
        overwrite: empty an existing folder first.

    Returns:
        A line for each scan that failed: its name and the reason.

    Raises:
        InputError: `source` holds no scan, or is a cohort of another contrast; `out` exists or
            holds an input; all scans failed.
    """
    if n < 1:
        raise InputError(f"n={n}: give at least one rendering per scan")
    cohort = (source / "cohort.json").is_file()
    if cohort and (modality := Cohort.open(source).meta["modality"]) != "T1w":
        raise InputError(f"{source}: a cohort of {modality}; give one of T1w scans")
    refs = find_scans(
        [source / "manifest.csv" if cohort else source],
        None if cohort else "T1w",
        layout="plain",
    )
    splits = assign_splits(refs)
    refs = [replace(ref, split=splits.of(ref)) for ref in refs]
    refuse_inputs_inside_output(out, [source, *(file for ref in refs for file in ref.files)])
    fresh_folder(out, overwrite=overwrite)
    rows: list[dict[str, str]] = []
    failed: list[str] = []
    for ref in refs:
        try:
            rows += _render_scan(ref, out, contrast, n, seed)
        except InputError as error:
            failed.append(f"{ref.name}: {error}")
            logger.error("%s failed: %s", ref.name, error)
    if not rows:
        raise InputError(f"{source}: no scan could be rendered; {failed[0]}")
    write_table(
        out / "manifest.csv",
        RENDERING_COLUMNS,
        [[row.get(name, "") for name in RENDERING_COLUMNS] for row in rows],
    )
    return failed


def _render_scan(
    ref: ScanRef, out: Path, contrast: RenderedContrast, n: int, seed: int
) -> list[dict[str, str]]:
    """Write the renderings of one scan and return their lines of the manifest."""
    if ref.healthy is False:
        raise InputError(
            f"{ref.image}: not healthy according to the manifest, but renderings are training "
            "data of healthy brains; remove the scan from the manifest"
        )
    volume = read_volume(ref)
    brain = (
        brain_from_background(volume)
        if ref.brain_mask is None
        else read_mask(ref.brain_mask, volume)
    )
    box = _crop_box(brain)
    start = np.eye(4)
    start[:3, 3] = [part.start for part in box]
    data, brain = volume.data[box], np.ascontiguousarray(brain[box])
    tissues = segment(np.asarray(data, np.float32), brain, slice_spacing_mm(volume.affine))
    rows = []
    for number in range(1, n + 1):
        rendering = render_contrast(
            tissues,
            brain,
            slice_spacing_mm(volume.affine),
            CONFIGS[contrast],
            _make_generator(ref, contrast, number, seed),
        )
        session = "_".join([*([ref.session] if ref.session else []), f"render-{number}"])
        row: dict[str, Any] = {"subject": ref.subject, "session": session, "healthy": "1"}
        row |= {"split": str(ref.split), "dataset": ref.dataset}
        affine = volume.affine @ start @ rendering.to_source
        stem = f"{ref.subject}/{ref.subject}_{session}"
        row |= {
            "image": f"{stem}_{contrast}.nii.gz",
            "brain_mask": f"{stem}_brain_mask.nii.gz",
        }
        write_volume(out / row["image"], rendering.image, affine)
        write_volume(out / row["brain_mask"], rendering.brain, affine)
        rows.append(row)
    return rows


def _crop_box(brain: Bool[np.ndarray, "x y z"]) -> tuple[slice, ...]:
    """Return the bounding box of the brain with a margin of two voxels."""
    if not brain.any():
        raise InputError("the brain mask is empty; correct the mask or leave it out")
    box: Sequence[slice] = ndimage.find_objects(brain.astype(np.uint8))[0]
    return tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)


def _make_generator(
    ref: ScanRef, contrast: RenderedContrast, number: int, seed: int
) -> np.random.Generator:
    """Return the random generator of one rendering; it depends only on the arguments."""
    name = f"{ref.dataset}/{ref.name}/{contrast}".encode("utf-8", "surrogateescape")
    key = int(hashlib.sha256(name).hexdigest()[:16], 16)
    return np.random.default_rng(np.random.SeedSequence((seed, key, number)))
