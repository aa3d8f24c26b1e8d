"""`maediff models`."""

import typer


def models() -> None:
    """List the models that `detect --model NAME` and `train --init NAME` accept."""
    from maediff.models.catalogue import describe, models

    descriptions = [describe(folder, card) for folder, card in models()]
    typer.echo(
        "\n\n".join(descriptions)
        or "no model comes with this installation; train one with `maediff train`, or set "
        "MAEDIFF_MODELS to a folder of models"
    )
