"""Draw the picture of the README: scans with a synthetic lesion, and what the models detect.

    python tools/readme_picture.py docs/images/readme.png

Row 1 is the MNI152 brain that nilearn ships, with a dark synthetic lesion. Rows 2 and 3 are
synthetic brains with a bright lesion, and row 4 is one without. Each row shows the axial slice
with most lesion, or the slice with the highest anomaly score if there is none. As in the report,
the patient's left is on the left.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

import maediff
from maediff.synthetic import PhantomConfig, add_lesion, healthy_brain

SEED = 7
COLUMNS = ("scan", "healthy reference", "anomaly map", "detected")
LESION_CENTRE_MM = (34.0, -22.0, 30.0)
LESION_RADIUS_MM = 17.0
LESION_INTENSITY = 0.45
"""Mean intensity of the dark lesion, as a share of the 99th percentile in the brain."""


@dataclass(frozen=True, eq=False)
class Example:
    """A scan of the picture.

    Args:
        label: label of the row.
        model: name of the shipped model.
        image: intensities (x, y, z), RAS+.
        affine: voxels to mm.
        brain: brain mask.
        lesion: the synthetic lesion; empty for a healthy scan.
    """

    label: str
    model: str
    image: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray


def mni152() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the MNI152 T1w of nilearn at 2 mm, its affine and its brain mask."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    brain = np.asarray(mask.dataobj) > 0
    image = np.where(brain, np.asarray(template.dataobj, np.float32), 0)
    return image, np.asarray(template.affine), brain


def add_dark_lesion(
    image: np.ndarray, affine: np.ndarray, brain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image with a dark lumpy lesion with soft borders, and the lesion's mask."""
    rng = np.random.default_rng(SEED)
    voxels = np.stack(np.indices(image.shape), -1) @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(voxels - LESION_CENTRE_MM, axis=-1)
    lumps = ndimage.gaussian_filter(rng.standard_normal(image.shape), 4.0)
    distance = distance + 5.0 * lumps / lumps.std()
    weight = np.clip((LESION_RADIUS_MM - distance) / 4.0 + 0.5, 0, 1) * brain
    grain = 1 + 0.08 * ndimage.gaussian_filter(rng.standard_normal(image.shape), 1.0) / 0.2
    level = LESION_INTENSITY * np.percentile(image[brain], 99) * grain
    return (image * (1 - weight) + level * weight).astype(np.float32), weight > 0.5


def make_examples() -> list[Example]:
    """Return the rows of the picture."""
    image, affine, brain = mni152()
    ill, lesion = add_dark_lesion(image, affine, brain)
    examples = [Example("T1w, model t1\nMNI152 + lesion", "t1", ill, affine, brain, lesion)]
    for contrast, model in (("T2w", "t2"), ("FLAIR", "flair")):
        healthy = healthy_brain((SEED, 1), PhantomConfig(contrast=contrast))
        phantom = add_lesion(healthy, "bright", "large", (SEED, 2))
        label = f"{contrast}, model {model}\nsynthetic + lesion"
        mask = phantom.lesion if phantom.lesion is not None else np.zeros_like(phantom.brain)
        examples.append(Example(label, model, phantom.image, phantom.affine, phantom.brain, mask))
    healthy = healthy_brain((SEED, 3), PhantomConfig(contrast="FLAIR"))
    nothing = np.zeros_like(healthy.brain)
    label = "FLAIR, model flair\nsynthetic, healthy"
    return [
        *examples,
        Example(label, "flair", healthy.image, healthy.affine, healthy.brain, nothing),
    ]


def axial(volume: np.ndarray, k: int) -> np.ndarray:
    """Return slice `k` with the patient's left on the left and anterior up."""
    return np.asarray(volume[:, ::-1, k].T)


def draw_row(axes: Sequence[Any], example: Example, result: maediff.Detection) -> None:
    """Draw scan, healthy reference, anomaly map, and the detected mask over the scan."""
    ill = example.lesion.any()
    k = int(np.argmax(example.lesion.sum((0, 1)) if ill else result.anomaly_map.max((0, 1))))
    rows, columns = np.nonzero(axial(example.brain, k))
    box = np.s_[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3]
    spacing = np.linalg.norm(example.affine[:3, :3], axis=0)
    grey = {
        "cmap": "gray",
        "vmin": 0,
        "vmax": float(np.percentile(example.image[example.brain], 99.5)),
        "aspect": spacing[1] / spacing[0],
    }
    scan = axial(example.image, k)[box]
    axes[0].imshow(scan, **grey)
    axes[1].imshow(axial(result.healthy_reference * result.brain_mask, k)[box], **grey)
    top = 3 * result.threshold
    anomaly = axial(result.anomaly_map, k)[box]
    axes[2].imshow(anomaly, cmap="inferno", vmin=0, vmax=top, aspect=grey["aspect"])
    axes[3].imshow(scan, **grey)
    detected = axial(result.anomaly_mask, k)[box]
    shown = np.ma.masked_equal(detected.astype(float), 0)
    axes[3].imshow(shown, cmap="autumn", vmin=0, vmax=1, alpha=0.6, aspect=grey["aspect"])
    truth = axial(example.lesion, k)[box]
    if truth.any():
        axes[3].contour(truth, levels=[0.5], colors="cyan", linewidths=1.0)
    axes[3].set_xlabel(f"{result.volume_ml:.0f} ml", color="white", fontsize=9)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(example.label, color="white", fontsize=9)


def draw(examples: Sequence[Example]) -> Figure:
    """Detect anomalies in each example with the shipped models, and return the picture."""
    figure = Figure(figsize=(7.2, 2.1 * len(examples)), layout="constrained", facecolor="black")
    axes = figure.subplots(len(examples), len(COLUMNS), squeeze=False)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, color="white", fontsize=10)
    for row, example in zip(axes, examples, strict=True):
        model = maediff.load(example.model, device="cpu")
        result = model.detect(example.image, affine=example.affine, brain_mask=example.brain)
        overlap = 2 * (result.anomaly_mask & example.lesion).sum()
        total = max(int(result.anomaly_mask.sum() + example.lesion.sum()), 1)
        print(f"{example.label!r}: {result.volume_ml:.1f} ml detected, Dice {overlap / total:.2f}")
        draw_row(row, example, result)
    return figure


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.png", help="picture to write")
    return parser


def main() -> None:
    """Write the picture."""
    arguments = build_parser().parse_args()
    buffer = io.BytesIO()
    draw(make_examples()).savefig(buffer, dpi=110)
    Image.open(buffer).convert("RGB").quantize(128).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
