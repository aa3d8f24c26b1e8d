"""T2w and FLAIR scans of healthy brains of which there is only a T1w scan: its tissues in another contrast.

    clean  = sum of fractions times levels drawn anew for every rendering, grey matter at 1
             + deep grey matter, ventricle walls, slow variation of each tissue, the T1w's own texture
    image  = | blur(bias * clean), averaged over the slice's thickness + complex noise |, zero outside the brain

The idea, contrasts drawn at random over given anatomy, is SynthSeg's (Billot et al. 2023,
https://doi.org/10.1016/j.media.2023.102789). The ranges are ours: ratios as one sees them in clinical T2w (fast spin
echo, TE about 100 ms) and FLAIR scans at 1.5 and 3 T, wide on purpose, adjusted by eye to `lgg` val and mslub scans. A
rendering is no T2w scan: iron, vessels, flow and myelin that a T1w scan does not show are not in it.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from maediff.cohort.splits import split_of
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_table
from maediff.preparation.background import brain_from_background
from maediff.preparation.resample import resample
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, write_volume
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef
from maediff.synthetic.fields import logistic, smooth_field
from maediff.synthetic.tissues import Tissues, segment

logger = logging.getLogger(__name__)

Rendered = Literal["FLAIR", "T2w"]
Range = tuple[float, float]
COLUMNS = ("subject", "session", "image", "brain_mask", "split", "healthy", "dataset")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RenderConfig:
    """Ranges from which each rendering draws uniformly; intensities over that of cortical grey matter."""

    fluid: Range
    white: Range
    deep_grey: Range
    """Added to grey matter in the depth: iron darkens it."""
    wall: Range
    """Added to white matter along the ventricles (caps and bands), falling by 1/e in 2.5 mm."""
    flow: Range
    """Height of the slow variation of fluid."""
    variation: Range = (0.01, 0.05)
    """Standard deviation of the slow variation of grey and of white matter."""
    rim: Range = (0.0, 0.8)
    """Share of the fluid within 2 mm of the hull that is taken for grey matter: skull stripping leaves some or none."""
    hull: Range = (0.3, 1.3)
    """Height over which a smooth field of unit variance darkens the outermost 1.5 mm: skull and membranes in the mask,
    which are most scans' darkest voxels where fluid is bright."""
    texture: Range = (-0.5, 0.5)
    """Times the T1w's texture and the contrast between white and grey matter."""
    bias: Range = (0.02, 0.12)
    blur_mm: Range = (0.3, 0.9)
    """Standard deviation of the point spread in the slice, each direction its own."""
    slice_mm: Range = (3.0, 6.5)
    thick_share: float = 0.75
    """Share of renderings in slices of `slice_mm`; the others keep the T1w's."""
    noise: Range = (0.005, 0.04)


CONFIGS: dict[Rendered, RenderConfig] = {
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
    """A rendered scan: `to_source` leads from its voxels to the T1w's."""

    image: np.ndarray
    brain: np.ndarray
    to_source: np.ndarray


def render(
    tissues: Tissues,
    brain: Bool[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, " 3"],
    config: RenderConfig,
    rng: np.random.Generator,
) -> Rendering:
    """One rendering; parameters and noise come from `rng`."""
    shape = (int(brain.shape[0]), int(brain.shape[1]), int(brain.shape[2]))
    voxel = float(np.mean(spacing_mm))

    def draw(limits: Range) -> float:
        return float(rng.uniform(*limits))

    def field(wavelength_mm: float) -> np.ndarray:
        return smooth_field(rng, shape, wavelength_mm, voxel)

    fluid, grey, white = tissues.fractions
    depth = tissues.depth_mm
    moved = draw(config.rim) * fluid * np.clip(2.0 - depth / 2.0, 0, 1)
    fluid, grey = fluid - moved, grey + moved
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


def render_scans(
    source: Path,
    out: Path,
    contrast: Rendered,
    *,
    n: int = 3,
    seed: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Render every T1w scan of `source` `n` times into `out`, with a manifest.csv for `maediff preprocess`.

    Args:
        source: what `maediff preprocess` takes: a cohort made from T1w scans, a BIDS dataset, a folder, a manifest;
            skull-stripped, or with brain masks.

    Returns:
        What failed, a line each. All renderings of a subject are in its split.

    Raises:
        InputError: `source` holds no scan, `out` exists or holds the source, or every scan failed.
    """
    if n < 1:
        raise InputError(f"n={n}: at least one rendering a scan")
    cohort = (source / "cohort.json").is_file()
    refs = find_scans(
        [source / "manifest.csv" if cohort else source],
        None if cohort else "T1w",
        layout="plain",
    )
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
        out / "manifest.csv", COLUMNS, [[row.get(name, "") for name in COLUMNS] for row in rows]
    )
    return failed


def _render_scan(
    ref: ScanRef, out: Path, contrast: Rendered, n: int, seed: int
) -> list[dict[str, str]]:
    if ref.healthy is False:
        raise InputError(
            f"{ref.image}: not healthy by its manifest; renderings are for training on healthy brains"
        )
    volume = read_volume(ref)
    brain = (
        brain_from_background(volume)
        if ref.brain_mask is None
        else read_mask(ref.brain_mask, volume)
    )
    box = _box(brain)
    start = np.eye(4)
    start[:3, 3] = [one.start for one in box]
    data, brain = volume.data[box], np.ascontiguousarray(brain[box])
    tissues = segment(np.asarray(data, np.float32), brain, volume.spacing_mm)
    rows = []
    for number in range(1, n + 1):
        rendering = render(
            tissues,
            brain,
            volume.spacing_mm,
            CONFIGS[contrast],
            _generator(ref, contrast, number, seed),
        )
        session = "_".join([*([ref.session] if ref.session else []), f"render-{number}"])
        row: dict[str, Any] = {"subject": ref.subject, "session": session, "healthy": "1"}
        row |= {"split": ref.split or split_of(ref.dataset, ref.subject), "dataset": ref.dataset}
        affine = volume.affine @ start @ rendering.to_source
        for key, value in (("image", rendering.image), ("brain_mask", rendering.brain)):
            row[key] = (
                f"{ref.subject}/{ref.subject}_{session}_{contrast if key == 'image' else key}.nii.gz"
            )
            write_volume(out / row[key], value, affine)
        rows.append(row)
    return rows


def _box(brain: Bool[np.ndarray, "x y z"]) -> tuple[slice, ...]:
    """The brain's bounding box with two voxels around it, as far as there are."""
    if not brain.any():
        raise InputError("the brain mask is empty; draw it again or leave it out")
    box: Sequence[slice] = ndimage.find_objects(brain.astype(np.uint8))[0]
    return tuple(slice(max(0, one.start - 2), one.stop + 2) for one in box)


def _generator(ref: ScanRef, contrast: Rendered, number: int, seed: int) -> np.random.Generator:
    """A pure function of its arguments, whatever the order and the number of the other scans."""
    key = int(hashlib.sha256(f"{ref.dataset}/{ref.name}/{contrast}".encode()).hexdigest()[:16], 16)
    return np.random.default_rng(np.random.SeedSequence((seed, key, number)))
