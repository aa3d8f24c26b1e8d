"""Export a trained run as a model that maediff ships.

python tools/export_model.py RUN NAME --card card.yaml [--scores EVAL ...] [--cohort COHORT]

RUN@t_test=125 makes a test setting the model's own. The folder NAME is written to
src/maediff/weights/, or to models/ (outside the wheel) if the card says opt_in. card.yaml supplies
what no file of the run holds; see tools/card_example.yaml.
"""

import argparse
from pathlib import Path

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.core.config import build_config, parse_settings, read_settings
from maediff.core.errors import InputError
from maediff.models.card import Card
from maediff.models.card_text import read_origin
from maediff.models.catalogue import CHECKOUT, PACKAGED, describe
from maediff.models.export import NewCalibration, export_model
from maediff.models.reference import split_reference
from maediff.training.command import reconstruct_command


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return the parser and the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="run folder, with settings after an @")
    parser.add_argument("name", metavar="NAME", help="name of the model")
    parser.add_argument("--card", type=Path, required=True, help="YAML file with the card's text")
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], help="EVAL folders that scored RUN"
    )
    parser.add_argument(
        "--cohort", type=Path, help="cohort to calibrate on; default: copy the run's calibration"
    )
    parser.add_argument(
        "--post", nargs="+", help="post-processing as key=value; default: the run's"
    )
    parser.add_argument(
        "--calibration-scans",
        type=int,
        default=CALIBRATION_SCANS,
        help="healthy val scans to calibrate on, at most",
    )
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="calibrate on all healthy people that the run was not trained on",
    )
    parser.add_argument(
        "--half",
        action=argparse.BooleanOptionalAction,
        help="write fp16 weights; default: only if fp32 is too large",
    )
    parser.add_argument("--folder", type=Path, help="parent folder of NAME")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    return parser, parser.parse_args()


def export(args: argparse.Namespace) -> tuple[Path, Card]:
    """Export the model; return its folder and its card.

    Raises:
        InputError: see `export_model`.
    """
    about = read_settings(args.card)
    run, _ = split_reference(args.run)
    if "command" not in about and read_origin(run)[0] is None:
        about["command"] = reconstruct_command(run)
    calibration = None
    if args.cohort:
        calibration = NewCalibration(
            args.cohort,
            max_scans=args.calibration_scans,
            unseen=args.unseen,
            postprocess=(
                build_config(PostprocessConfig, parse_settings(args.post), "--post")
                if args.post
                else None
            ),
        )
    parent = args.folder or (CHECKOUT / "models" if about.get("opt_in") else PACKAGED)
    card = export_model(
        args.run,
        parent / args.name,
        about,
        evaluations=args.scores,
        calibration=calibration,
        half=args.half,
        overwrite=args.overwrite,
    )
    return parent / args.name, card


def main() -> None:
    """Export the model and print its description, as `maediff models` shows it."""
    parser, args = parse_arguments()
    try:
        print(describe(*export(args)))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
