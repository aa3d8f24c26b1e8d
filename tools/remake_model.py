"""Train a shipped model anew, by the settings that it carries, and make a model folder of it.

python tools/remake_model.py t1|flair|t2|flair-lgg COHORT OUT [--max-time 12m] [--device cuda]

COHORT is prepared like the model's scans (`maediff preprocess ... --like NAME`); `make models` makes all of them. OUT
gets `NAME-run`, as `maediff train` writes it, and NAME, with thresholds from healthy people of COHORT that it did not
learn from; `maediff detect --model OUT/NAME` takes it. Stopped, the same command goes on.
"""

import argparse
from pathlib import Path

from maediff.core.config import read_settings
from maediff.core.errors import InputError
from maediff.evaluation.compare import seconds_used
from maediff.models.catalogue import describe
from maediff.models.export import export_model
from maediff.models.folder import read_config
from maediff.models.operating_point import own_postprocess
from maediff.models.reference import locate
from maediff.training.config import parse_duration
from maediff.training.train import train

CARDS = Path(__file__).parent / "cards"
MEASURED = (
    "default_threshold",
    "calibrated_on",
    "failure_cases",
)  # of the shipped weights, not of these


def main() -> None:
    """Train, export, and print what `maediff models` would say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(path.stem for path in CARDS.glob("*.yaml")))
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--max-time", help="stop training after 12m, 1.5h; default: when its steps are done"
    )
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        folder = locate(args.name)
        like = read_config(folder)
        run, settings = args.out / f"{args.name}-run", {**like["config"], "train": like["train"]}
        limit = parse_duration(args.max_time)
        left = None if limit is None else f"{max(0.0, limit - seconds_used(run)):.3f}s"
        train(
            like["method"],
            args.cohort,
            run,
            preset=like["preset"],
            settings=settings,
            seed=like["seed"],
            max_time=left,
            device=args.device,
            resume=True,
        )
        about = {
            key: value
            for key, value in read_settings(CARDS / f"{args.name}.yaml").items()
            if key not in MEASURED
        }
        about["summary"] = (
            about["summary"].partition(" Trained ")[0] + " Trained anew by tools/remake_model.py."
        )
        about["failure_cases"] = [
            "Not looked at since it was trained; those of the shipped one are a guess."
        ]
        card = export_model(
            run,
            args.out / args.name,
            about,
            cohort=args.cohort,
            unseen=args.name == "t1",
            post=own_postprocess(folder),
            overwrite=True,
        )
    except InputError as error:
        parser.error(str(error))
    print(describe(args.out / args.name, card))


if __name__ == "__main__":
    main()
