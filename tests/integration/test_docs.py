"""Pages of the documentation: length, links, commands, settings, and Python examples that run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

import maediff
from helpers.brains import oblique, save
from helpers.cli import call_maediff
from helpers.cli import maediff as maediff_process
from helpers.scripts import load_script
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cli import app
from maediff.cli.bids_app.main import build_parser as build_bids_parser
from maediff.core.config import build_config, parse_settings
from maediff.evaluation.scoring import ScoringConfig
from maediff.methods.registry import METHODS, resolve
from maediff.models.reference import split_settings
from maediff.preparation.atlas.template import load_atlas
from maediff.preparation.config import PARTS
from maediff.training.config import resolve_training

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = {"_build", "gallery", "generated"}
SITE = sorted(p for p in DOCS.rglob("*.md") if not MADE & set(p.relative_to(DOCS).parts))
PAGES = [*sorted(ROOT.glob("*.md")), *SITE, *sorted((ROOT / "experiments/log").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FRONT = (ROOT / "README.md", ROOT / "PACKAGE.md")
RUNNABLE = [p for p in (*FRONT, *SITE) if "```python" in p.read_text("utf-8")]
SCANS = ("patient_T1w.nii.gz", "sub-01_T1w.nii.gz", "patient.nii.gz", "--sample")
"""Inputs of the commands that a test runs."""
NEEDS_SCANS = "needs a cohort, a study or a model of the reader; the tests of its package run it"
NOT_RUN = {
    "maediff --install-completion": "changes the shell of the user",
    "maediff detect": NEEDS_SCANS,  # with other inputs than SCANS
    "maediff preprocess": NEEDS_SCANS,
    "maediff train": NEEDS_SCANS,
    "maediff benchmark": "takes minutes; the tests of its package run it",
    "maediff fit": NEEDS_SCANS,
    "maediff calibrate": NEEDS_SCANS,
    "maediff evaluate": NEEDS_SCANS,
    "maediff compare": NEEDS_SCANS,
    "maediff report": NEEDS_SCANS,
    "maediff-bids": NEEDS_SCANS,
    "python": "an experiment or a script with its own test",
    "make": "CI runs the targets; results and models need scans and an hour",
    "pip": "changes the environment",
    "git": "changes the machine",
    "cd": "changes the shell",
    ".": "changes the shell",
}
"""Shell commands of the pages that no test runs as they are written, with the reason."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language; "" are shell commands."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for name, content in found if name == language]


def shell_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in the shell blocks of a page."""
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.replace(" ", "-") for text in plain}


def check_settings(command: str, words: list[str]) -> None:
    """Build the configs of `--set` and of `RUN@KEY=VALUE`, as the command does."""
    settings = parse_settings([words[i + 1] for i, w in enumerate(words) if w == "--set"])
    if command == "evaluate":
        settings = {
            key: value for key, value in settings.items() if key in ("postprocess", *PARTS)
        } | {"evaluate": {k: v for k, v in settings.items() if k not in ("postprocess", *PARTS)}}
    groups = {"postprocess": PostprocessConfig, "evaluate": ScoringConfig, **PARTS}
    for key, value in settings.items():
        if key in groups:
            build_config(groups[key], value, key)
        elif key == "train":
            resolve_training("tiny", value)
        else:
            resolve("maediff", "tiny", {key: value})
    for word in words:
        if re.fullmatch(r"[\w-]+@\S+=\S+", word):
            name, _, changes = word.partition("@")
            method = name if name in METHODS else "maediff"
            resolve(method, "tiny", parse_settings(split_settings(changes)))


@pytest.mark.parametrize("page", SITE, ids=name_of)
def test_no_page_is_longer_than_150_lines(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 150


def test_readme_has_at_most_90_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_generated_pages_have_content_and_at_most_150_lines(tmp_path: Path) -> None:
    load_script("docs/generate.py").write_pages(tmp_path)
    pages = {page.stem: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.md")}
    assert {f"commands-{name}" for name in COMMANDS} <= set(pages)
    assert "| `s` | `16` |" in pages["settings-patchwise"]
    assert "`--scan-fpr`" in pages["commands-detect"]
    assert {"card-t1", "card-t2", "card-flair"} <= set(pages)
    assert max(len(text.splitlines()) for text in pages.values()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if "gallery" in path:  # made by sphinx-gallery from docs/examples
            place = DOCS / "examples" / f"{place.name.removesuffix('.rst')}.py"
        assert place.exists(), f"{name_of(page)}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", [*FRONT, *SITE], ids=name_of)
def test_commands_of_the_page_are_valid(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in shell_lines(page):
        program, *arguments = words
        if program == "maediff" and not arguments[0].startswith("-"):
            command, *rest = arguments
            COMMANDS[command].make_context(f"maediff {command}", list(rest))
            check_settings(command, rest)
        elif program == "maediff-bids":
            build_bids_parser().parse_args(arguments)
        elif program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), words
        elif program == "python" and arguments[0] != "-m":
            script = load_script(arguments[0])
            if hasattr(script, "build_parser"):
                script.build_parser().parse_args(arguments[1:])
        else:
            assert program in ("maediff", "git", "cd", ".", "pip", "python"), words


def test_command_table_is_complete() -> None:
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `maediff ([a-z]+)", text, re.MULTILINE)) == set(COMMANDS)


def test_api_page_lists_every_public_name() -> None:
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. auto\w+:: maediff\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(maediff.__all__) - {"__version__"})


def test_every_page_is_in_a_toctree() -> None:
    entries = set()
    for page in SITE:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            entries |= {(page.parent / f"{line}.md").resolve() for line in lines}
    assert {page.resolve() for page in SITE} - entries == {(DOCS / "index.md").resolve()}


def is_run(words: list[str]) -> bool:
    """Return True for a command that `test_shell_commands_run` runs."""
    if words[:2] in (["maediff", "--version"], ["maediff", "models"]):
        return True
    return words[:2] == ["maediff", "detect"] and words[2] in SCANS and "--model" not in words


@pytest.mark.parametrize("page", [*FRONT, *SITE], ids=name_of)
def test_shell_commands_run_or_have_a_reason(page: Path) -> None:
    for words in shell_lines(page):
        assert is_run(words) or {" ".join(words[:2]), words[0]} & set(NOT_RUN), words


def write_small_scan(path: Path) -> None:
    """Write a small scan of the atlas."""
    atlas = load_atlas()
    data = np.where(atlas.brain, 100 * atlas.t1.clip(0.02, 1), 0)[::3, ::3, ::8]
    affine = oblique(atlas.affine @ np.diag([3.0, 3.0, 8.0, 1.0]))
    save(path, data.astype(np.float32), affine, "PSR")


@pytest.mark.slow
def test_shell_commands_run(tmp_path: Path) -> None:
    """Run each command for a single scan; commands that differ only in the output run once."""
    commands = {
        tuple(
            words[: words.index("-o")] + words[words.index("-o") + 2 :] if "-o" in words else words
        )
        for page in (*FRONT, *SITE)
        for words in shell_lines(page)
        if is_run(words)
    }
    assert {words[2] for words in commands if len(words) > 2} == set(SCANS)
    for name in SCANS[:-1]:
        write_small_scan(tmp_path / name)
    for number, words in enumerate(sorted(commands)):
        output = ("-o", f"results-{number}") if words[1] == "detect" else ()
        # beartype refuses the context of `maediff models` in this process.
        run = call_maediff if words[1] == "detect" else maediff_process
        result = run(*words[1:], *output, cwd=tmp_path)
        assert result.returncode == 0, (words, result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each example in a folder with a small scan of the atlas."""
    write_small_scan(tmp_path / "patient_T1w.nii.gz")
    monkeypatch.chdir(tmp_path)
    for example in blocks(page, "python"):
        exec(compile(example, name_of(page), "exec"), {"__name__": "example"})
