"""`maediff-bids BIDS_DIR OUT_DIR participant|group`, with the options that BIDS Apps share.

argparse parses the command line, because a label option of a BIDS App has several values.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maediff import __version__
from maediff.cli.shared.commands import STOPPED
from maediff.cli.shared.errors import echo, name_flags, show_log
from maediff.cli.shared.options import print_failures
from maediff.core.errors import InputError
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.process import stops_as_interrupt

if TYPE_CHECKING:
    from maediff.core.options import RunOptions
    from maediff.detection.participants import Scans

MB_PER_SCAN = 3500
"""Memory of one process, MB: a scan of 512 x 512 x 400 voxels needs 3.3 GB."""
OPTION_OF_ARGUMENT = {"workers": "--n-cpus"}
"""Options with another name than the argument of the library."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="maediff-bids",
        description="BIDS App: anomaly detection in the T1w, T2w and FLAIR scans of a BIDS "
        "dataset. For research, not for diagnosis.",
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset")
    parser.add_argument("out_dir", type=Path, help="folder of the derivative")
    parser.add_argument(
        "level",
        choices=("participant", "group"),
        help="participant: detect anomalies in each scan and skip finished scans; group: table "
        "and reports over all participants",
    )
    parser.add_argument("--version", action="version", version=f"maediff {__version__}")
    _add_list(parser, "participant-label", "labels of participants, with or without sub-")
    _add_list(parser, "session-label", "labels of sessions, with or without ses-")
    _add_list(parser, "modality", "contrasts: T1w, T2w or FLAIR; default: all in the dataset")
    _add_list(
        parser,
        "model",
        "run folders, names of `maediff models`, or hf:ORG/NAME; each is used for the contrast "
        "that it was trained on; default: the shipped model of each contrast",
    )
    parser.add_argument(
        "--n-cpus",
        "--n_cpus",
        type=_positive,
        metavar="N",
        help="processor cores; default: one scan at a time, with the threads of torch",
    )
    parser.add_argument(
        "--mem-mb",
        "--mem_mb",
        type=_positive,
        metavar="N",
        help=f"memory in MB: as many scans at once as fit, at {MB_PER_SCAN} MB each",
    )
    parser.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="skip the check of dataset_description.json and of the labels",
    )
    parser.add_argument(
        "-w",
        "--work-dir",
        "--work_dir",
        type=Path,
        metavar="DIR",
        help="folder for temporary files; default: the system's",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, mps (GPU of a Mac), or auto: cuda if there is one, else cpu",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the content of OUT_DIR first"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return parser


def _add_list(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    flags = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
    parser.add_argument(*flags, nargs="+", action="extend", default=[], metavar="X", help=text)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number


def count_workers(n_cpus: int | None, mem_mb: int | None) -> int:
    """Return the number of scans processed at once.

    Args:
        n_cpus: processor cores; None for one.
        mem_mb: memory in MB; None for no limit.
    """
    workers = n_cpus or 1
    return workers if mem_mb is None else max(1, min(workers, mem_mb // MB_PER_SCAN))


def share_cores(n_cpus: int | None, workers: int) -> int | None:
    """Return the threads of each process, so that all processes together use `n_cpus` cores.

    Args:
        n_cpus: processor cores; None for no limit.
        workers: number of processes.

    Returns:
        None for no limit.
    """
    return None if n_cpus is None else max(1, n_cpus // workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App.

    Returns:
        0: done. 1: some scans failed. 2: a user error, which is printed in one line. 130: stopped
        by Ctrl-C, SIGTERM or SIGHUP.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    flags = {name: f"--{name.replace('_', '-')}" for name in vars(args)} | OPTION_OF_ARGUMENT
    show_log(flags)
    try:
        with stops_as_interrupt(), hold_locks():
            return _run(args)
    except KeyboardInterrupt:
        echo("maediff-bids: stopped; the same command continues with the other scans", err=True)
        return STOPPED
    except InputError as error:
        echo(f"maediff-bids: {name_flags(str(error), flags)}", err=True)
        return 2
    except OSError as error:  # for example a full disk
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        echo(f"maediff-bids: {where}{error.strerror}", err=True)
        return 2


def _run(args: argparse.Namespace) -> int:
    if args.work_dir:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(args.work_dir.resolve())
    from maediff.core.options import RunOptions
    from maediff.detection.participants import check_dataset, find_participants

    if not args.bids_dir.is_dir():
        raise InputError(f"{args.bids_dir}: no such folder; check the path")
    if not args.skip_bids_validation:
        check_dataset(args.bids_dir)
    scans = find_participants(
        args.bids_dir, args.participant_label, args.session_label, args.modality
    )
    workers = count_workers(args.n_cpus, args.mem_mb)
    run = RunOptions(
        device=args.device,
        seed=args.seed,
        workers=workers,
        threads=share_cores(args.n_cpus, workers),
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    return _run_group(args, scans) if args.level == "group" else _run_level(args, scans, run)


def _run_level(args: argparse.Namespace, scans: "Scans", run: "RunOptions") -> int:
    """Run the participant level; return the exit code."""
    from maediff.detection.participants import choose_models, run_participants

    models = choose_models(args.model, scans)
    reports = run_participants(args.bids_dir, args.out_dir, scans, models=models, run=run)
    for report in reports.values():
        print_failures(list(report.failures), report.flagged, report.folder / "detect.json")
    echo(f"derivative: {args.out_dir}")
    return int(any(report.failures for report in reports.values()))


def _run_group(args: argparse.Namespace, scans: "Scans") -> int:
    """Run the group level; return the exit code."""
    from maediff.detection.participants import collect_group
    from maediff.report import write_report

    if args.overwrite:
        raise InputError("`overwrite`: deletes the results of participants; leave it out")
    reports = collect_group(args.out_dir, scans)
    for modality, report in reports.items():
        page = write_report(report.folder, f"{args.out_dir.resolve().name}: {modality}")
        echo(f"report of {modality}: {page}")
        print_failures(list(report.failures), report.flagged, page)
    echo(f"table: {args.out_dir / 'participants_findings.tsv'}")
    return int(any(report.failures for report in reports.values()))
