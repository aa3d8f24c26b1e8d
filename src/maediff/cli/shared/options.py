"""Options that several commands share, and the functions that read and print for all commands."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maediff.cli.shared.errors import echo
from maediff.core.errors import InputError

if TYPE_CHECKING:
    from maediff.core.shards import Shard

Inputs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="INPUT",
        help="NIfTI file, folder of NIfTI files, DICOM folder, BIDS dataset or manifest CSV.",
        show_default=False,
    ),
]
MoreInputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="INPUT",
        help="Same as INPUT; can be repeated.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for the results; must be empty or not exist.",
        show_default=False,
    ),
]
Modality = Annotated[
    str | None,
    typer.Option(help="Contrast: T1w, T2w or FLAIR. Default: the contrast in the file names."),
]
Series = Annotated[
    str | None,
    typer.Option(
        help="Number or UID of the DICOM series to use. Default: one series of the contrast, "
        "chosen for each study.",
        show_default=False,
    ),
]
LayoutName = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Layout of dataset folders: ixi, brats or mslub; auto recognises the layout, "
        "plain ignores it.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Resume a stopped command: keep finished parts of the output folder."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete the content of the output folder first.")
]
Device = Annotated[
    str,
    typer.Option(help="cpu, cuda, mps (GPU of a Mac), or auto: cuda if there is one, else cpu."),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress and no line for each scan.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, for example t_test=250 or train.steps=2000; can be repeated.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file of settings; --set overrides it."),
]
CohortFolder = Annotated[
    Path,
    typer.Option("--cohort", metavar="FOLDER", help="Cohort made by `maediff preprocess`."),
]
CalibrateSplit = Annotated[
    str, typer.Option(help="Split on which thresholds are chosen: train, val or test.")
]
ScoreSplit = Annotated[str, typer.Option(help="Split that is scored: train, val or test.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the predictions: fp32, bf16, or auto: bf16 if the processor has it."
    ),
]
ScanWorkers = Annotated[
    int, typer.Option("--workers", help="Scans processed at once, each in its own process.", min=1)
]
RunWorkers = Annotated[
    int, typer.Option("--workers", help="Runs scored at once, each in its own process.", min=1)
]
Engine = Annotated[
    str,
    typer.Option(
        help="Where scans are processed: local, or ray: as tasks on the Ray cluster at "
        "RAY_ADDRESS (needs the extra `ray` of maediff)."
    ),
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Process only shard I of N, for example 2/4; all shards share one output folder, "
        "and `maediff report` merges them. auto: the task of a SLURM array.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        help="Slices or patches in one forward pass; fewer need less memory. Results stay the "
        "same.",
        min=1,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Threads of each process. Default: the cores, shared among the workers.",
        min=1,
        show_default=False,
    ),
]


def collect_inputs(inputs: Sequence[Path] | None, more: Sequence[Path] | None) -> list[Path]:
    """Return the paths of INPUT and --input.

    Raises:
        InputError: there is none.
    """
    paths = [*(inputs or []), *(more or [])]
    if not paths:
        raise InputError(
            "no INPUT: give a NIfTI file, a folder of NIfTI files, a DICOM folder, "
            "a BIDS dataset or a manifest CSV"
        )
    return paths


@contextmanager
def read_cli_settings(
    config: Path | None, pairs: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    """Yield the settings of --config, overridden by those of --set.

    Args:
        config: YAML file; None for no file.
        pairs: `KEY=VALUE` texts.

    Raises:
        InputError: the settings are invalid, or the block rejects them; names the file.
    """
    from maediff.core.config import SettingsError, merge, parse_settings, read_settings

    try:
        yield merge(read_settings(config) if config else {}, parse_settings(list(pairs or [])))
    except SettingsError as error:
        source = f"; given in {config} or on the command line" if config else ""
        raise InputError(f"{error}{source}") from None


def refuse_settings(settings: dict[str, Any], known: str) -> None:
    """Refuse the settings that remain after a command has used its own.

    Args:
        settings: remaining settings.
        known: settings that the command has, for the error message.

    Raises:
        SettingsError: a setting remains.
    """
    if settings:
        from maediff.core.config import SettingsError

        raise SettingsError(f"unknown settings: {', '.join(settings)}; this command has {known}")


def parse_seeds(text: str, option: str) -> list[int]:
    """Return the seeds in `text`, for example `0,1,2`.

    Args:
        text: whole numbers with commas between them.
        option: option and value as typed, for the error message.

    Raises:
        InputError: a part of the text is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option}: give whole numbers with commas between them, for example 0,1,2"
        ) from None


def parse_shard(text: str | None) -> "Shard | None":
    """Return the shard of --shard; None without the option.

    Raises:
        InputError: the text is no shard.
    """
    from maediff.core.shards import Shard

    return None if text is None else Shard.parse(text)


def print_shard(shard: "Shard", scans: int, out: Path) -> None:
    """Print that a shard has finished, and the command that merges all shards."""
    if not scans:
        echo(f"shard {shard}: no subject belongs to it")
    echo(
        f"shard {shard}: finished, {scans} scan{'' if scans == 1 else 's'}; "
        f"when all shards have finished: maediff report {out}"
    )


def print_failures(failed: Sequence[str], flagged: Sequence[str], where: Path) -> None:
    """Print the names of failed and flagged scans to the error stream.

    Args:
        failed: scans that could not be processed.
        flagged: scans that somebody should look at.
        where: file with the reasons.
    """
    texts = [
        f"{len(names)} {status}: {', '.join(names)}"
        for names, status in ((failed, "failed"), (flagged, "flagged"))
        if names
    ]
    if texts:
        echo(f"{'; '.join(texts)}; see {where}", err=True)


def exit_if_failed(count: int) -> None:
    """Exit with code 1 if `count` scans, more than 0, failed."""
    if count:
        raise typer.Exit(1)


def print_report(folder: Path) -> None:
    """Write the report of a folder and print its path.

    The results are complete without the report. If a package for pictures is missing, a note
    explains how to write the report on another machine.
    """
    try:
        from maediff.report import write_report

        echo(f"report: {write_report(folder)}")
    except ModuleNotFoundError as error:
        echo(
            f"no report, because {error.name} is not installed; "
            f"where it is installed: maediff report {folder}",
            err=True,
        )
