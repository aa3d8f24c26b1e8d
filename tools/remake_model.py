"""Retrain a shipped model with its own settings, and export the result.

python tools/remake_model.py t1|flair|t2|flair-lgg COHORT OUT [--max-time 12m] [--device cuda]

COHORT must be prepared like the model's scans (`maediff preprocess ... --like NAME`).
`make models` retrains all models. OUT gets two folders: `NAME-run`, written by `maediff train`,
and the model NAME. The model's thresholds come from healthy people of COHORT that it was not
trained on. `maediff detect --model OUT/NAME` uses it. To resume after an interruption, run the
same command.
"""

import argparse
from pathlib import Path
from typing import Any

from maediff.core.config import read_settings
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.evaluation.compare import seconds_used
from maediff.models.card import Card
from maediff.models.card_text import read_origin
from maediff.models.catalogue import describe
from maediff.models.export import NewCalibration, export_model
from maediff.models.model import TrainedMethod, read_model
from maediff.training.command import reconstruct_command
from maediff.training.config import parse_duration
from maediff.training.train import train

CARDS = Path(__file__).parent / "cards"
MEASURED = ("default_threshold", "calibrated_on", "failure_cases")
"""Fields of a card that were measured with the shipped weights."""


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return the parser and the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in CARDS.glob("*.yaml"))
    parser.add_argument("name", choices=names, help="model to retrain")
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="cohort to train on")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the run and the model")
    parser.add_argument(
        "--max-time", help="stop training after 12m, 1.5h; default: after the last step"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser, parser.parse_args()


def retrain(model: TrainedMethod, args: argparse.Namespace) -> Path:
    """Train a run with the model's settings, or resume it; return the run folder."""
    shipped = model.settings
    run = args.out / f"{args.name}-run"
    limit = parse_duration(args.max_time)
    result = train(
        shipped.method,
        args.cohort,
        run,
        preset=shipped.preset,
        settings={**model.config, "train": shipped.train},
        max_time=None if limit is None else max(0.0, limit - seconds_used(run)),
        run=RunOptions(device=args.device, seed=shipped.seed, resume=True),
    )
    if result["step"] < result["steps"] and (limit is None or result["seconds"] < 0.99 * limit):
        raise KeyboardInterrupt  # the first Ctrl-C has only ended the training
    return run


def describe_for_card(name: str, run: Path) -> dict[str, Any]:
    """Return the card's text for a retrained model: nothing that was measured before is kept."""
    shipped = read_settings(CARDS / f"{name}.yaml")
    about = {key: value for key, value in shipped.items() if key not in MEASURED}
    summary = about["summary"].partition(" Trained ")[0]
    about["summary"] = f"{summary} Retrained by tools/remake_model.py."
    about["failure_cases"] = [
        "Not examined since the model was retrained; those of the shipped model may apply."
    ]
    # A run that an older version completed does not record its command.
    if "command" not in about and read_origin(run)[0] is None:
        about["command"] = reconstruct_command(run)
    return about


def remake(args: argparse.Namespace) -> tuple[Path, Card]:
    """Retrain and export; return the model's folder and its card.

    Raises:
        InputError: see `train` and `export_model`.
    """
    shipped = read_model(args.name)
    run = retrain(shipped, args)
    folder = args.out / args.name
    calibration = NewCalibration(
        args.cohort, unseen=args.name == "t1", postprocess=shipped.postprocess
    )
    about = describe_for_card(args.name, run)
    return folder, export_model(run, folder, about, calibration=calibration, overwrite=True)


def main() -> None:
    """Retrain and export the model, and print its description, as `maediff models` shows it."""
    parser, args = parse_arguments()
    try:
        print(describe(*remake(args)))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
