"""The brain of a raw scan, with the skull still on it.

    T1w            deepbet (Fisch et al. 2024, doi 10.1016/j.compbiomed.2024.108845; weights in its wheel)
    T2w, FLAIR     the mask of the same session's T1, moved rigidly; without one, deepbet on the scan itself, which it
                   was not trained for: quality control has to look at what comes out
    HD-BET, SynthStrip     where their commands are installed (`brain.tool`)

Every extractor is a function (volume, config) -> mask on the volume's own grid, in `EXTRACTORS`.
"""

import importlib.util
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.core.types import VolumeMask
from maediff.preparation.registration import align_rigidly, settled
from maediff.preparation.resample import resample
from maediff.scans.nifti import read_mask, write_volume
from maediff.scans.volume import Volume

Tool = Literal["auto", "deepbet", "hd-bet", "synthstrip", "none"]
COMMANDS = {"hd-bet": "hd-bet", "synthstrip": "mri_synthstrip"}
INSTALL = {
    "deepbet": "run `pip install deepbet`",
    "hd-bet": "run `pip install hd-bet`",
    "synthstrip": "install FreeSurfer's mri_synthstrip",
}
TIMEOUT_S = 1800
SMALLEST_ML, WHOLE_HEAD_MM = (
    300.0,
    100.0,
)  # less brain is none, where the scan reaches that far in each direction


@config(frozen=True, config=ConfigDict(extra="forbid"))
class BrainConfig:
    """How the brain of a raw scan is found; stripped scans and given masks never come here.

    Args:
        tool: "auto" is the first that is installed of deepbet, HD-BET and SynthStrip; "none" refuses raw scans.
        from_t1: take the mask of the same session's T1 for a T2 or FLAIR.
        threshold: of deepbet's probability.
    """

    tool: Tool = "auto"
    from_t1: bool = True
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"brain.threshold {self.threshold}: a probability between 0 and 1")


def extract_brain(volume: Volume, config: BrainConfig | None = None) -> tuple[VolumeMask, str]:
    """The brain mask of a raw scan, and the name of the tool that drew it.

    Raises:
        InputError: no tool is installed, or it found no brain, or too little for one.
    """
    config = config or BrainConfig()
    tool = _choose(volume, config.tool)
    brain = EXTRACTORS[tool](volume, config)
    check_extracted_brain(volume, brain, tool)
    return brain, tool


def check_extracted_brain(volume: Volume, brain: VolumeMask, tool: str) -> None:
    """Refuse a brain mask that a tool extracted, if it is empty or too small for a brain.

    Raises:
        InputError: no voxel, or less than `SMALLEST_ML` in a scan of a whole head.
    """
    if not brain.any():
        raise InputError(
            f"{volume.source}: brain extraction ({tool}) failed, it found no brain; look at the scan, choose another "
            "brain.tool or give a brain_mask"
        )
    brain_ml = float(brain.sum() * np.prod(volume.spacing_mm)) / 1000
    if brain_ml < SMALLEST_ML and (volume.spacing_mm * volume.data.shape).min() >= WHOLE_HEAD_MM:
        raise InputError(
            f"{volume.source}: brain extraction ({tool}) failed, it found {brain_ml:.0f} ml of brain "
            f"({SMALLEST_ML:.0f} at least); look at the scan, choose another brain.tool or give a brain_mask"
        )


def brain_from_t1(volume: Volume, t1: Volume, t1_brain: Bool[np.ndarray, "a b c"]) -> VolumeMask:
    """The brain of the session's T1, moved rigidly onto the grid of `volume`.

    Raises:
        InputError: the two do not lie in one place, so nothing of the brain is left, or fit better elsewhere.
    """
    place = align_rigidly(volume, t1)
    if not settled(volume, t1, place):
        raise InputError(
            f"{volume.source}: rigid registration with its T1 {t1.source} went wrong, the two fit better "
            "10 mm away; look at both, add brain.from_t1=false, or give a brain_mask"
        )
    to_t1 = np.linalg.inv(t1.affine) @ place @ volume.affine
    moved = resample(t1_brain, to_t1, volume.data.shape, "majority")
    if not moved.any():
        raise InputError(
            f"{volume.source}: the brain of its T1 {t1.source} does not lie in this scan; add "
            "brain.from_t1=false, or give a brain_mask"
        )
    return np.asarray(moved)


def _choose(volume: Volume, tool: Tool) -> str:
    if tool == "none":
        raise InputError(
            f"{volume.source}: raw scan with skull, and brain.tool=none; give a stripped scan or a brain_mask"
        )
    known = ["deepbet", *COMMANDS] if tool == "auto" else [tool]
    for name in known:
        if (
            importlib.util.find_spec("deepbet")
            if name == "deepbet"
            else shutil.which(COMMANDS[name])
        ):
            return name
    raise InputError(
        f"{volume.source}: raw scan with skull, and {' or '.join(known)} is not installed; "
        f"{INSTALL.get(tool, INSTALL['deepbet'])}, or give a stripped scan or a brain_mask"
    )


def _deepbet(volume: Volume, config: BrainConfig) -> VolumeMask:
    """What deepbet says of RAS+ voxels, as it was trained."""
    network = _deepbet_network()
    try:
        probability = network.run_model(volume.data.copy())
        brain = network.postprocess(probability > config.threshold)
    except (
        AssertionError,
        RuntimeError,
        ValueError,
    ) as error:  # it says so where it sees no brain at all
        raise InputError(
            f"{volume.source}: brain extraction (deepbet) failed, it found no brain ({error}); look at the scan, "
            "choose another brain.tool or give a brain_mask"
        ) from error
    return np.asarray(brain, dtype=bool)


@lru_cache(maxsize=1)
def _deepbet_network() -> Any:
    """The networks of deepbet with their weights, loaded once a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit and tqdm, about themselves
        from deepbet import BrainExtraction

        return BrainExtraction(no_gpu=True)


def _command(
    volume: Volume, arguments: Callable[[Path, Path], list[str]], name: str
) -> VolumeMask:
    """Run a program on the scan in a folder of its own, and read the mask that it leaves there."""
    with tempfile.TemporaryDirectory(prefix="maediff-") as folder:
        scan, out = Path(folder) / "scan.nii.gz", Path(folder) / "brain.nii.gz"
        write_volume(scan, volume.data, volume.affine)
        try:
            subprocess.run(
                arguments(scan, out), check=True, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise InputError(
                f"{volume.source}: brain extraction ({name}) failed: {said[-1] if said else error}; run it by hand to "
                "see why, or choose another brain.tool"
            ) from error
        masks = sorted(path for path in Path(folder).glob("*.nii.gz") if path not in (scan, out))
        if not masks:
            raise InputError(
                f"{volume.source}: brain extraction ({name}) left no mask; choose another brain.tool"
            )
        return read_mask(masks[0], volume)


def _hd_bet(volume: Volume, _: BrainConfig) -> VolumeMask:
    """HD-BET 2 (Isensee et al. 2019, doi 10.1002/hbm.24750); it adds `_bet` to the name of the mask."""
    return _command(
        volume,
        lambda scan, out: [
            "hd-bet",
            "-i",
            str(scan),
            "-o",
            str(out),
            "-device",
            "cpu",
            "--disable_tta",
            "--save_bet_mask",
            "--no_bet_image",
        ],
        "hd-bet",
    )


def _synthstrip(volume: Volume, _: BrainConfig) -> VolumeMask:
    """SynthStrip (Hoopes et al. 2022, doi 10.1016/j.neuroimage.2022.119474)."""
    return _command(
        volume,
        lambda scan, out: [
            "mri_synthstrip",
            "-i",
            str(scan),
            "-m",
            str(out.with_name("mask.nii.gz")),
        ],
        "synthstrip",
    )


EXTRACTORS: dict[str, Callable[[Volume, BrainConfig], VolumeMask]] = {
    "deepbet": _deepbet,
    "hd-bet": _hd_bet,
    "synthstrip": _synthstrip,
}
