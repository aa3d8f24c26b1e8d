"""Options that several commands take, and what they do with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from maediff.core.errors import InputError

Inputs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="NIfTI file, folder of them, DICOM folder, BIDS dataset or manifest CSV.",
        show_default=False,
    ),
]
MoreInputs = Annotated[
    list[Path] | None, typer.Option("--input", "-i", help="The same as INPUT.", show_default=False)
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Output folder; must not exist.", show_default=False)
]
Modality = Annotated[
    str | None, typer.Option(help="T1w, T2w or FLAIR; default: from the file names.")
]
Series = Annotated[
    str | None, typer.Option(help="Number or UID of the DICOM series to take.", show_default=False)
]
LayoutName = Annotated[
    str, typer.Option("--layout", help="ixi, brats, mslub; auto: recognised; plain: ignored.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Empty an existing output folder first.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, results only.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, e.g. t_test=250 or train.steps=2000.")
]
NoDevice = Annotated[
    str, typer.Option("--device", help="Without effect: nothing here runs on a GPU.")
]
NoSeed = Annotated[int, typer.Option("--seed", help="Without effect: nothing here is random.")]
NoQuiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Without effect: there is no progress to show.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings; --set wins.")
]
CohortFolder = Annotated[
    Path, typer.Option("--cohort", help="A cohort made by `maediff preprocess`.")
]
CalibrateSplit = Annotated[str, typer.Option(help="Split that thresholds are chosen on.")]
ScoreSplit = Annotated[str, typer.Option(help="Split that is scored.")]
ScanWorkers = Annotated[
    int, typer.Option("--workers", help="Scans done at once, a process each.", min=1)
]
RunWorkers = Annotated[
    int, typer.Option("--workers", help="Runs scored at once, a process each.", min=1)
]
BatchSize = Annotated[int, typer.Option(help="Forward passes at once.", min=1)]


def inputs_of(inputs: list[Path] | None, more: list[Path] | None) -> list[Path]:
    """Those of INPUT and of --input; there has to be one."""
    found = [*(inputs or []), *(more or [])]
    if not found:
        raise InputError(
            "no INPUT: give a NIfTI file, a folder of them or of DICOM, a BIDS dataset or a manifest CSV"
        )
    return found


@contextmanager
def settings_of(config: Path | None, pairs: list[str] | None) -> Iterator[dict[str, Any]]:
    """Those of FILE with those of --set on top; what is wrong with them is said with FILE's name."""
    from maediff.core.config import SettingsError, merge, parse_settings, read_settings

    try:
        yield merge(read_settings(config) if config else {}, parse_settings(pairs or []))
    except SettingsError as error:
        raise InputError(
            f"{error}; given in {config} or on the command line" if config else str(error)
        ) from None


def numbers(text: str, said: str) -> list[int]:
    """`0,1,2` as seeds; `said` is what was typed."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{said}: seeds are whole numbers with commas between them, e.g. 0,1,2"
        ) from None


def no_more(settings: dict[str, Any], known: str) -> None:
    """Refuse settings that are left when a command has taken its own."""
    if settings:
        from maediff.core.config import SettingsError

        raise SettingsError(f"unknown settings: {', '.join(settings)}; known here: {known}")


def say_failed(failed: list[str], flagged: list[str], where: Path) -> None:
    """Name the scans that failed or should be looked at, last of all."""
    said = [
        f"{len(names)} {word}: {', '.join(names)}"
        for names, word in ((failed, "failed"), (flagged, "flagged"))
        if names
    ]
    if said:
        typer.echo(f"{'; '.join(said)}; see {where}", err=True)


def exit_if(failed: int) -> None:
    """Exit code 1 where scans failed."""
    if failed:
        raise typer.Exit(1)


def say_report(folder: Path) -> None:
    """Write the report of a scored cohort and say where; scores are complete without it, and without matplotlib."""
    try:
        from maediff.report import write_report

        typer.echo(f"report: {write_report(folder)}")
    except ModuleNotFoundError as error:
        typer.echo(
            f"no report, {error.name} is not installed; where it is: maediff report {folder}",
            err=True,
        )
