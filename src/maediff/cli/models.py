"""`maediff models`."""

import typer

from maediff.cli.options import NoDevice, NoQuiet, NoSeed


def models(device: NoDevice = "auto", seed: NoSeed = 0, quiet: NoQuiet = False) -> None:
    """List the models that `detect --model NAME` and `train --init NAME` take by name."""
    from maediff.models.catalogue import describe, models

    del device, seed, quiet
    found = [describe(folder, card) for folder, card in models()]
    typer.echo(
        "\n\n".join(found)
        or "no model comes with this installation; train one with `maediff train`, or name "
        "a folder of models in MAEDIFF_MODELS"
    )
