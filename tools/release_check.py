"""Build the wheel, check its contents, and use it in empty environments without a network.

    python tools/release_check.py                                   # this Python, newest versions
    python tools/release_check.py --python python3.11 --python python3.13
    python tools/release_check.py --versions lowest                 # oldest allowed dependencies
    python tools/release_check.py --versions lowest --torch 2.6.0   # and the oldest torch

`make release-check` runs the first line. Each environment gets the wheel only, not the repository.
There, `maediff detect --sample` has to find the lesion of the synthetic sample while every network
connection fails. `maediff-bids` then processes the sample as a BIDS dataset: participant level,
again, and group level; the BIDS validator has to accept the derivative. `maediff demo` has to
write its report, and `maediff fit` has to make a model that `maediff detect` can use. The script
prints the seconds and MB of each step, and ends with 1 if one fails.
Options for pip, such as an index of CPU builds of torch, come from pip's own configuration.
`--work FOLDER` keeps the wheel and the environments.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_WHEEL_MB = 45.0
NEEDED = (
    "maediff/weights/t1/model.safetensors",
    "maediff/weights/t2/model.safetensors",
    "maediff/weights/flair/model.safetensors",
    "maediff/report/templates/viewer.js",
    "maediff/preparation/atlas/LICENSE.txt",
    "maediff/synthetic/sample/sub-sample_FLAIR.nii.gz",
    "maediff/py.typed",
)
"""Files that the wheel must hold."""
SCANS = re.compile(r"\.(nii|nii\.gz|dcm|mgz|nrrd|mha)$")
SAMPLE = "maediff/synthetic/sample/"
OFFLINE = '''"""Refuse every network connection."""
import socket

def refuse(*args, **kwargs):
    raise OSError("the network is cut off")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
'''
SAMPLE_SCANS = """\
from maediff.synthetic.sample import CONTRASTS, find_sample
print(*map(find_sample, CONTRASTS), sep="\\n")
"""
HEALTHY_SCANS = """\
from pathlib import Path
from maediff.synthetic.dataset import make_phantom_dataset
counts = {"n_train": 4, "n_healthy_val": 2, "n_val": 0, "n_test": 0, "n_healthy_test": 0}
make_phantom_dataset(Path("healthy"), **counts)
"""
"""Four healthy synthetic brains to train on, and two to calibrate on."""
VERSIONS = """\
import sys, torch
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")
"""
KEEP_TORCH = "torch"
"""The oldest allowed torch has no CPU build on every index, so `lowest` keeps the newest one.

`--torch` chooses another version.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="PROGRAM",
        help="Python to install the wheel in; can be repeated; default: the running one",
    )
    parser.add_argument(
        "--versions",
        choices=("newest", "lowest"),
        default="newest",
        help="versions of the dependencies; default: %(default)s",
    )
    parser.add_argument(
        "--torch", metavar="VERSION", help="version of torch; default: that of constraints.txt"
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keep the wheel and the environments here; an earlier environment is replaced",
    )
    return parser


def run(command: Sequence[object], **options: object) -> str:
    """Run a command and return its output; the output is shown if it fails.

    Raises:
        RuntimeError: the command failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return str(done.stdout)


def find_broken_links(wheel: Path) -> list[str]:
    """Return the links of the wheel's package page that lead to no website, as problems."""
    archive = zipfile.ZipFile(wheel)
    pages = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    if not pages:
        return ["lacks METADATA"]
    page = archive.read(pages[0]).decode("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    return [f"links to {target}" for target in targets if not target.startswith("https://")]


def find_validator() -> Path:
    """Return where pip installs the BIDS validator for this Python."""
    return Path(sys.executable).with_name("bids-validator-deno")


def find_missing_tools() -> list[str]:
    """Return the names of the packages that the checks need and this Python lacks."""
    missing = [name for name in ("build", "twine") if find_spec(name) is None]
    return missing if find_validator().exists() else [*missing, "bids-validator-deno"]


def check_wheel(wheel: Path) -> str:
    """Check size and contents of the wheel, and return a line about them.

    Raises:
        RuntimeError: it is too large, lacks a file, holds a scan, or its package page has a link
            to a file of the repository.
    """
    size = wheel.stat().st_size / 1e6
    names = zipfile.ZipFile(wheel).namelist()
    problems = [f"lacks {name}" for name in NEEDED if name not in names]
    problems += find_broken_links(wheel)
    if not any(name.endswith("/LICENSE") for name in names):
        problems.append("lacks LICENSE")
    problems += [f"holds {name}" for name in names if SCANS.search(name) and SAMPLE not in name]
    if size > MAX_WHEEL_MB:
        problems.append(f"is {size:.1f} MB, more than {MAX_WHEEL_MB:.0f}")
    if problems:
        raise RuntimeError(f"{wheel.name}: {'; '.join(problems)}")
    return f"{wheel.name}: {size:.1f} MB, {len(names)} files"


def lowest_versions() -> list[str]:
    """Return the oldest allowed version of each dependency, as constraints for pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pairs = [re.match(r"([\w-]+)>=([\w.]+)", text) for text in project["dependencies"]]
    return [
        f"{m[1]}=={m[2]}.*" if m[2].count(".") < 2 else f"{m[1]}=={m[2]}"
        for m in pairs
        if m and m[1] != KEEP_TORCH
    ]


def make_constraints(versions: str, torch: str | None) -> str:
    """Return the content of a constraints file for pip.

    Args:
        versions: "newest" or "lowest".
        torch: version of torch; None for the version in constraints.txt.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [f"torch=={torch}"] if torch else [x for x in lines if x.startswith("torch==")]
    if versions == "lowest":
        kept += lowest_versions()
    return "\n".join(kept) + "\n"


def try_wheel(
    wheel: Path, python: str, versions: str, folder: Path, torch: str | None = None
) -> str:
    """Install the wheel in an empty environment, use it there, and return a line with times.

    `detect --sample` comes first, then `CHECKS`.

    Args:
        wheel: the wheel.
        python: Python of the environment.
        versions: "newest" or "lowest".
        folder: an empty folder for the environment and the results.
        torch: version of torch; None for the version in constraints.txt.

    Raises:
        RuntimeError: the installation or a check failed, or the sample's lesion was missed.
    """
    environment = folder / "env"
    run([python, "-m", "venv", environment])
    program = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text(make_constraints(versions, torch), encoding="utf-8")
    began = time.monotonic()
    run([program, "-m", "pip", "install", "-q", "-c", constraints, wheel])
    installed = time.monotonic() - began
    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file()) / 1e6
    (folder / "offline").mkdir()
    (folder / "offline" / "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
    began = time.monotonic()
    offline = {**os.environ, "PYTHONPATH": str(folder / "offline"), "OMP_NUM_THREADS": "1"}
    run([program, "-m", "maediff", "detect", "--sample", "-o", "results"], cwd=folder, env=offline)
    detected = time.monotonic() - began
    summaries = [json.loads(path.read_text()) for path in folder.glob("results/*/summary.json")]
    if not summaries or not all(summary["regions"] for summary in summaries):
        raise RuntimeError(f"{python}: the lesion of the sample was not detected")
    version = run([program, "-c", VERSIONS]).strip()
    parts = [
        f"{version}, {versions}: installed in {installed:.0f} s ({size:.0f} MB)",
        f"detect --sample without network in {detected:.0f} s",
    ]
    for name, check in CHECKS.items():
        began = time.monotonic()
        check(program, folder, offline)
        parts.append(f"{name} in {time.monotonic() - began:.0f} s")
    return ", ".join(parts)


def make_dataset(scans: Sequence[Path], dataset: Path) -> None:
    """Make a BIDS dataset of one participant.

    Args:
        scans: files named as in BIDS, of the participant `sample`.
        dataset: folder of the dataset.
    """
    anat = dataset / "sub-sample" / "anat"
    anat.mkdir(parents=True)
    for scan in scans:
        shutil.copy(scan, anat)
    description = {"Name": "Sample of maediff", "BIDSVersion": "1.9.0"}
    (dataset / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")


def try_bids_app(program: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Process the sample as a BIDS dataset, and validate the derivative.

    Args:
        program: Python of the environment.
        folder: folder for dataset and derivative.
        environment: environment variables of the commands.

    Raises:
        RuntimeError: a command failed, a scan is missing, the second run changed a result, or the
            validator found an error.
    """
    dataset, out = folder / "bids", folder / "bids-derivative"
    scans = [Path(line) for line in run([program, "-c", SAMPLE_SCANS]).splitlines()]
    make_dataset(scans, dataset)
    app = [program.with_name("maediff-bids"), dataset, out]
    times = []
    for level in ("participant", "participant", "group"):
        run([*app, level, "--quiet", "--n-cpus", "1"], cwd=folder, env=environment)
        images = sorted(out.glob("sub-sample/anat/*_desc-anomaly_*.nii.gz"))
        if len(images) != len(scans):
            raise RuntimeError(f"maediff-bids: {len(images)} anomaly maps of {len(scans)} scans")
        times.append([image.stat().st_mtime_ns for image in images])
    if times[0] != times[1]:
        raise RuntimeError("maediff-bids: the second run repeated finished scans")
    run([find_validator(), out])


def try_demo(program: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Run `maediff demo`.

    Args:
        program: Python of the environment.
        folder: folder for the demo.
        environment: environment variables of the commands.

    Raises:
        RuntimeError: the command failed, or wrote no report.
    """
    run([program, "-m", "maediff", "demo", "-q", "-o", "demo"], cwd=folder, env=environment)
    if not (folder / "demo" / "report.html").is_file():
        raise RuntimeError("maediff demo: wrote no report")


def try_fit(program: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Make a model of synthetic brains with `maediff fit`, and detect with it.

    Args:
        program: Python of the environment.
        folder: folder for the scans, the model and the detection.
        environment: environment variables of the commands.

    Raises:
        RuntimeError: a command failed, or the model has no thresholds.
    """
    call = [program, "-m", "maediff"]
    run([program, "-c", HEALTHY_SCANS], cwd=folder, env=environment)
    options = ["-o", "fitted", "--modality", "T1w", "--set", "train.steps=10", "-q"]
    run([*call, "fit", "healthy/manifest.csv", *options], cwd=folder, env=environment)
    scan = "healthy/val-healthy-000/image.nii.gz"
    options = ["-o", "own", "--model", "fitted", "-q"]
    run([*call, "detect", scan, *options], cwd=folder, env=environment)
    settings = json.loads((folder / "own" / "detect.json").read_text(encoding="utf-8"))
    if settings["scale"] is None:
        raise RuntimeError("maediff fit: the model has no thresholds")


CHECKS = {"maediff-bids and its validator": try_bids_app, "demo": try_demo, "fit": try_fit}
"""What an environment has to do after `detect --sample`."""


def main() -> int:
    """Run all checks; return the exit code."""
    args = build_parser().parse_args()
    if missing := find_missing_tools():
        packages = " ".join(missing)
        print(
            f"failed: {sys.executable} lacks {packages}: pip install {packages}", file=sys.stderr
        )
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work.resolve() if args.work else Path(temporary)
        try:
            shutil.rmtree(folder / "dist", ignore_errors=True)
            run([sys.executable, "-m", "build", "-o", folder / "dist", ROOT])
            wheel = next(folder.glob("dist/*.whl"))
            print(check_wheel(wheel), flush=True)
            run([sys.executable, "-m", "twine", "check", "--strict", *folder.glob("dist/*")])
            print("twine check: passed", flush=True)
            for number, python in enumerate(args.python or [sys.executable]):
                part = folder / f"{args.versions}-{number}"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                line = try_wheel(wheel, python, args.versions, part, args.torch)
                print(line, flush=True)
        except RuntimeError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
