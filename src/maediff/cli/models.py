"""`maediff models`."""

import typer


def models() -> None:
    """List the models that `detect --model NAME` and `train --init NAME` take by name."""
    from maediff.models.catalogue import describe, models

    found = [describe(folder, card) for folder, card in models()]
    typer.echo(
        "\n\n".join(found)
        or "no model comes with this installation; train one with `maediff train`, or name "
        "a folder of models in MAEDIFF_MODELS"
    )
