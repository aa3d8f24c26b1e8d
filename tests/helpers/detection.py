"""Run `detect` with every option as a plain keyword argument."""

from dataclasses import fields, replace
from pathlib import Path

from helpers.options import QUIET_CPU
from maediff.core.options import RunOptions
from maediff.detection.detect import DetectOptions, DetectReport, detect
from maediff.scans.inputs.find import find_scans


def detect_in(inputs, out, model=None, **changes) -> DetectReport:
    """Detect anomalies in `inputs` (paths or ScanRefs) on the CPU, without a progress bar.

    `changes` are arguments of `detect`, and fields of `DetectOptions` and `RunOptions`.
    """
    run = {
        field.name: changes.pop(field.name)
        for field in fields(RunOptions)
        if field.name in changes
    }
    options = {
        field.name: changes.pop(field.name)
        for field in fields(DetectOptions)
        if field.name in changes
    }
    refs = (
        inputs if not all(isinstance(each, (str, Path)) for each in inputs) else find_scans(inputs)
    )
    return detect(
        refs,
        out,
        model=None if model is None else str(model),
        options=DetectOptions(**options),
        run=replace(QUIET_CPU, **run),
        **changes,
    )
