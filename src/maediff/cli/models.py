"""`maediff models`."""

import typer

from maediff.cli.shared.errors import collect_flags, echo, echo_page, name_flags


def models(context: typer.Context) -> None:
    """List the models that `detect --model NAME` and `train --init NAME` accept."""
    from maediff.models.catalogue import describe, models

    descriptions = [describe(folder, card) for folder, card in models()]
    flags = collect_flags(context.find_root().command)
    for description in descriptions:
        echo_page(f"{name_flags(description, flags)}\n")
    if not descriptions:
        echo(
            "no model comes with this installation; train one with `maediff train`, or set "
            "MAEDIFF_MODELS to a folder of models"
        )
