"""Write the reference pages that come from the code: commands, settings and model cards.

    python docs/generate.py FOLDER

commands-NAME.md is made from the command line, settings-GROUP.md from the dataclasses of the
settings and their docstrings, and card-NAME.md from the cards of the shipped models.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from pydantic.fields import FieldInfo

import maediff
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cli import app
from maediff.cli.bids_app.main import build_parser as build_bids_parser
from maediff.cli.shared.commands import fill_names
from maediff.diffusion.noise import SimplexConfig
from maediff.evaluation.scoring import ScoringConfig
from maediff.methods.autoencoders import AEConfig, DAEConfig
from maediff.methods.ddpm import DDPMConfig
from maediff.methods.fanogan import FAnoGANConfig
from maediff.methods.patchwise import PatchwiseConfig
from maediff.methods.registry import METHODS, TRAINED
from maediff.nn.autoencoder import AutoencoderConfig
from maediff.nn.mae import MAEConfig
from maediff.nn.unet import UNetConfig
from maediff.preparation.config import PARTS
from maediff.training.config import TrainConfig
from maediff.training.slices.augment import AugmentConfig
from maediff.training.slices.lesions import FabricateConfig


def configs_of(base: type, *others: type) -> dict[str, type]:
    """Return the config of each trained method whose config inherits from one of the classes."""
    bases = (base, *others)
    configs = {name: METHODS[name].config for name in TRAINED}
    return {name: config for name, config in configs.items() if issubclass(config, bases)}


GROUPS: dict[str, tuple[str, dict[str, type]]] = {
    "patchwise": ("Settings of MAEDiff and pDDPM", configs_of(PatchwiseConfig)),
    "ddpm": ("Settings of DDPM and AnoDDPM", configs_of(DDPMConfig)),
    "autoencoders": (
        "Settings of the autoencoders and f-AnoGAN",
        configs_of(AEConfig, DAEConfig, FAnoGANConfig),
    ),
    "networks": (
        "Settings of networks and noise",
        {
            "unet": UNetConfig,
            "mae": MAEConfig,
            "net": AutoencoderConfig,
            "simplex": SimplexConfig,
        },
    ),
    "training": (
        "Settings of training",
        {"train": TrainConfig, "train.fabricate": FabricateConfig, "train.augment": AugmentConfig},
    ),
    "preparation": ("Settings of preparation", dict(PARTS)),
    "postprocess": ("Settings of post-processing", {"postprocess": PostprocessConfig}),
    "evaluation": ("Settings of evaluation", {"evaluate": ScoringConfig}),
}


def describe_fields(config: type) -> dict[str, str]:
    """Return the description of each field of a dataclass, from `Args:` or the string below it."""
    texts: dict[str, str] = {}
    for owner in reversed(config.__mro__[:-1]):
        doc = inspect.cleandoc(owner.__doc__ or "")
        args = doc.partition("Args:\n")[2]
        for match in re.finditer(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", args, re.MULTILINE):
            for name in match[1].split(", "):
                texts[name] = " ".join(match[2].split())
        try:
            tree = ast.parse(inspect.cleandoc(inspect.getsource(owner)))
        except (OSError, TypeError):
            continue
        body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)).body
        for node, after in pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                texts[node.target.id] = " ".join(str(after.value.value).split())
    return texts


def default_of(field: dataclasses.Field) -> str:
    """Return the default of a field as it is written after `--set KEY=`; empty for a group."""
    value: Any = field.default
    if isinstance(value, FieldInfo):
        value = value.default
    if value is dataclasses.MISSING or dataclasses.is_dataclass(value):
        return ""
    return f"`{value!r}`"


def settings_page(title: str, configs: dict[str, type]) -> str:
    """Return the page of a group of settings."""
    lines = [
        f"# {title}",
        "",
        "Set a field with `--set KEY=VALUE` or in the file of `--config`.",
        "",
    ]
    for name, config in configs.items():
        summary = inspect.cleandoc(config.__doc__ or "").split("\n\n")[0]
        lines += [f"## `{name}`", "", " ".join(summary.split()), ""]
        lines += ["| field | default | meaning |", "|---|---|---|"]
        texts = describe_fields(config)
        for field in dataclasses.fields(config):
            text = texts.get(field.name, "").replace("|", "\\|")
            lines.append(f"| `{field.name}` | {default_of(field)} | {text} |")
        lines.append("")
    return "\n".join(lines)


def command_page(name: str, command: Any) -> str:
    """Return the page of a command."""
    fill_names(command)
    help_text = inspect.cleandoc(command.help or "")
    context = typer.Context(command, info_name=f"maediff {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f"# maediff {name}",
        "",
        help_text,
        "",
        "```text",
        f"maediff {name} {usage}",
        "```",
        "",
    ]
    lines += ["| option | meaning | default |", "|---|---|---|"]
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        names = (
            parameter.metavar or parameter.name
            if is_argument
            else ", ".join([*parameter.opts, *parameter.secondary_opts])
        )
        text = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
        default = parameter.default
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        empty = callable(default) or not (default or is_number) or parameter.required
        given = "required" if parameter.required else "" if empty else f"`{default}`"
        lines.append(f"| `{names}` | {text} | {given} |")
    return "\n".join([*lines, ""])


def bids_app_page() -> str:
    """Return the page of the BIDS App."""
    parser = build_bids_parser()
    parser.formatter_class = partial(argparse.HelpFormatter, width=88)
    return f"# maediff-bids\n\n```text\n{parser.format_help()}```\n"


def card_pages() -> dict[str, str]:
    """Return the cards of the shipped models by name."""
    package = Path(maediff.__file__).parent
    folders = [package / "weights", package.parents[1] / "models"]
    cards = sorted(card for folder in folders for card in folder.glob("*/MODEL_CARD.md"))
    return {card.parent.name: card.read_text(encoding="utf-8") for card in cards}


def write_pages(out: Path) -> None:
    """Write all pages into `out`; a page that has not changed is left alone."""
    out.mkdir(parents=True, exist_ok=True)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    pages = {f"commands-{name}": command_page(name, command) for name, command in commands.items()}
    pages["commands-maediff-bids"] = bids_app_page()
    pages |= {f"settings-{name}": settings_page(*group) for name, group in GROUPS.items()}
    pages |= {f"card-{name}": text for name, text in card_pages().items()}
    for name, text in pages.items():
        path = out / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
