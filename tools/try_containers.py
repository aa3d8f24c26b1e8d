"""Run the steps of Dockerfile and apptainer.def in folders, where neither program is available.

    sudo python tools/try_containers.py BASE WORK                # both recipes
    sudo python tools/try_containers.py BASE WORK --only docker

BASE is a folder with the root file system of the recipes' base image: Debian (debootstrap), into
which you have put Python 3.12 as `python`. Each stage is a copy of it in WORK, and each step runs
there with chroot, as root, on Linux. The finished images then run as users run them: as user 1000,
with a read-only root, an empty /tmp and no network. Each image has to detect the lesion of the
sample scan and to answer to `maediff-bids --version`. The script prints the seconds of each step,
and ends with 1 if one fails.

What the script does not show: that the base image itself can be fetched, and that Docker and
Apptainer read the recipes as it does.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
USER = "1000:1000"
DETECT = "detect --sample -o results --device cpu"
STEP = """\
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -c "$2"
"""
"""Run a step of a recipe; $1 is the image and $2 the command."""
CALL = """\
root=$1 data=$2 user=$3 program=$4; shift 4
mount --bind "$root" "$root" && mount --bind /dev "$root/dev" && mount -t proc proc "$root/proc" &&
mount -t tmpfs tmpfs "$root/tmp" && mount --bind "$data" "$root/data" &&
mount -o remount,ro,bind "$root" &&
exec chroot --userspec="$user" "$root" /bin/sh -c "cd /data && $program" sh "$@"
"""
"""Run a finished image: root, folder of /data, user, a shell program, and its arguments."""


@dataclass
class Image:
    """An image that is being built.

    Args:
        folder: its root file system.
        environment: variables of its steps and of the finished image.
        arguments: values of ARG.
        entry: words of ENTRYPOINT.
        user: user of the finished image.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/root"})
    arguments: dict[str, str] = field(default_factory=dict)
    entry: list[str] = field(default_factory=list)
    user: str = "0:0"


def read_instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield instruction and argument of each line of a Dockerfile, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, " ".join(rest.split())


def read_sections(text: str) -> dict[str, str]:
    """Return the sections of an Apptainer recipe by name, for example "post" or "apprun bids"."""
    parts = re.split(r"^%(.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run_in(program: str, *words: object, environment: Mapping[str, str], offline: bool) -> None:
    """Run a shell program in a mount namespace of its own.

    Args:
        program: `STEP` or `CALL`.
        words: its arguments.
        environment: all environment variables.
        offline: without a network.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    variables = [f"{name}={value}" for name, value in environment.items()]
    flags = ["--mount", *(["--net"] if offline else [])]
    command = ["unshare", *flags, "env", "-i", *variables, "/bin/sh", "-c", program, "sh"]
    command += [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[-1]}: {(done.stdout + done.stderr)[-2000:]}")


def copy_image(source: Path, target: Path) -> None:
    """Copy a folder of an image with its owners, links and devices."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def copy(sources: Sequence[Path], target: Path, *, into: bool) -> None:
    """Copy files and folders, without compiled Python files.

    Args:
        sources: what to copy.
        target: a folder, or the name of the copy of the only source.
        into: True if `target` is a folder that holds the copies.
    """
    for source in sources:
        place = target / source.name if into else target
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(source, place)


def build_docker(
    text: str, base: Path, work: Path, given: Mapping[str, str], installer: Mapping[str, str]
) -> Image:
    """Run all steps of a Dockerfile, and return the image of the last stage.

    Args:
        text: the Dockerfile.
        base: root file system of the base image.
        work: folder of the stages.
        given: values of ARG.
        installer: environment variables of pip, which RUN gets in addition.
    """
    stages: dict[str, Image] = {}
    image = Image(work)
    for name, argument in read_instructions(text):
        began = time.monotonic()
        words = shlex.split(argument)
        if name == "FROM":
            label = words[2] if len(words) > 2 else f"stage-{len(stages)}"
            image = stages[label] = Image(work / label)
            copy_image(base, image.folder)
        elif name == "ARG":
            key, _, default = words[0].partition("=")
            image.arguments[key] = given.get(key, default)
        elif name == "ENV":
            for word in words:
                key, _, value = word.partition("=")
                image.environment[key] = string.Template(value).substitute(image.environment)
        elif name == "RUN":
            variables = {**installer, **image.arguments, **image.environment}
            run_in(STEP, image.folder, argument, environment=variables, offline=False)
        elif name == "COPY" and words[0].startswith("--from="):
            source = stages[words[0].partition("=")[2]].folder
            copy_image(source / words[1].lstrip("/"), image.folder / words[2].lstrip("/"))
        elif name == "COPY":
            target = image.folder / words[-1].lstrip("/")
            copy([ROOT / word for word in words[:-1]], target, into=argument.endswith("/"))
        elif name == "WORKDIR":
            (image.folder / argument.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            image.user = argument
        elif name == "ENTRYPOINT":
            image.entry = json.loads(argument)
        elif name not in ("LABEL", "CMD"):
            raise RuntimeError(f"Dockerfile: {name} is unknown to this script")
        if (seconds := time.monotonic() - began) >= 1:
            print(f"docker, {seconds:4.0f} s: {name} {argument[:70]}", flush=True)
    return image


def build_apptainer(
    sections: Mapping[str, str], base: Path, work: Path, index: str, installer: Mapping[str, str]
) -> Image:
    """Run %files and %post of an Apptainer recipe, and return the image.

    Args:
        sections: from `read_sections`.
        base: root file system of the base image.
        work: folder of the image.
        index: value of `torch_index`.
        installer: environment variables of pip, which %post gets in addition.
    """
    image = Image(work / "apptainer", user=USER)
    copy_image(base, image.folder)
    for line in sections["files"].splitlines():
        if line.strip():
            source, target = line.split()
            copy([ROOT / source], image.folder / target.lstrip("/"), into=False)
    began = time.monotonic()
    post = sections["post"].replace("{{ torch_index }}", index)
    variables = {**installer, **image.environment}
    run_in(STEP, image.folder, post, environment=variables, offline=False)
    print(f"apptainer, {time.monotonic() - began:4.0f} s: %post", flush=True)
    (image.folder / "data").mkdir(exist_ok=True)
    return image


def check_calls(image: Image, data: Path, programs: Mapping[str, str]) -> None:
    """Run a finished image without a network; it has to detect the lesion of the sample scan.

    Args:
        image: the finished image.
        data: empty folder that the image sees as /data.
        programs: shell program for each list of arguments, which it gets as "$@".

    Raises:
        RuntimeError: a call failed, or the lesion was not detected.
    """
    began = time.monotonic()
    for arguments, program in programs.items():
        words = [image.folder, data, image.user, program, *arguments.split()]
        run_in(CALL, *words, environment=image.environment, offline=True)
    summaries = [json.loads(path.read_text()) for path in data.glob("results/*/summary.json")]
    if not summaries or not all(summary["regions"] for summary in summaries):
        raise RuntimeError(f"{image.folder}: the lesion of the sample was not detected")
    print(f"{image.folder.name}, {time.monotonic() - began:4.0f} s: {len(programs)} calls")


def try_docker(args: argparse.Namespace, installer: Mapping[str, str], data: Path) -> None:
    """Build the image of the Dockerfile, and run it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    given = {"TORCH_INDEX": args.torch_index}
    image = build_docker(text, args.base, args.work, given, installer)
    entry = f'{shlex.join(image.entry)} "$@"'
    check_calls(image, data, {"--version": 'maediff-bids "$@"', DETECT: entry})


def try_apptainer(args: argparse.Namespace, installer: Mapping[str, str], data: Path) -> None:
    """Build the image of apptainer.def; run its %test, its app and its %runscript."""
    sections = read_sections((ROOT / "apptainer.def").read_text(encoding="utf-8"))
    index = args.torch_index or "default"
    image = build_apptainer(sections, args.base, args.work, index, installer)
    setup = sections["environment"]
    names = {"": "test", "--version": "apprun bids", DETECT: "runscript"}
    programs = {words: f"{setup}\nset -e\n{sections[name]}" for words, name in names.items()}
    check_calls(image, data, programs)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, metavar="BASE", help="root file system, see above")
    parser.add_argument("work", type=Path, metavar="WORK", help="a folder that does not exist")
    parser.add_argument("--only", choices=("docker", "apptainer"), help="default: both")
    parser.add_argument(
        "--torch-index", default="", help="package index of torch; default: pip's own"
    )
    return parser


def main() -> int:
    """Build and run the images; return the exit code."""
    args = build_parser().parse_args()
    args.work.mkdir(parents=True)
    installer = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))
    }
    try:
        for name in [args.only] if args.only else ["docker", "apptainer"]:
            data = args.work / f"data-{name}"
            data.mkdir()
            os.chown(data, *map(int, USER.split(":")))
            (try_docker if name == "docker" else try_apptainer)(args, installer, data)
    except RuntimeError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
