"""`maediff preprocess`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import (
    ConfigFile,
    Engine,
    Inputs,
    LayoutName,
    Modality,
    MoreInputs,
    Out,
    Overwrite,
    Quiet,
    Resume,
    ScanWorkers,
    Series,
    ShardText,
    Threads,
    collect_inputs,
    exit_if_failed,
    parse_shard,
    print_failures,
    print_shard,
    read_cli_settings,
    refuse_settings,
)
from maediff.core.errors import InputError


def preprocess(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    modality: Modality = None,
    series: Series = None,
    layout: LayoutName = "auto",
    fold: Annotated[
        int,
        typer.Option(
            help="Block of IXI's healthy scans, of five, that is the val split.", min=0, max=4
        ),
    ] = 0,
    manifest_only: Annotated[
        bool, typer.Option("--manifest-only", help="Write OUT/manifest.csv without any images.")
    ] = False,
    lesion_free_margin: Annotated[
        int, typer.Option(help="Slices next to a lesion that training does not use.", min=0)
    ] = 1,
    like: Annotated[
        str | None,
        typer.Option(
            help="Run or shipped model: prepare the scans like its own. --config and --set "
            "override this."
        ),
    ] = None,
    workers: ScanWorkers = 1,
    threads: Threads = None,
    shard: ShardText = None,
    engine: Engine = "local",
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of grid, normalise, brain, bias, registration or qc, for example "
            "bias.enabled=true; can be repeated.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Prepare scans for models: write a cohort to train and evaluate on."""
    part = parse_shard(shard)
    if part and manifest_only:
        raise InputError("`manifest_only` and `shard`: one process writes the manifest; use one")
    if manifest_only:
        from maediff.core.files import fresh_folder, refuse_inputs_inside_output
        from maediff.scans.inputs.find import find_scans
        from maediff.scans.inputs.manifest import write_manifest

        given = collect_inputs(inputs, more)
        refs = find_scans(given, modality, layout=layout, series=series, fold=fold, unique=True)
        refuse_inputs_inside_output(out, [*given, *(file for ref in refs for file in ref.files)])
        write_manifest(
            fresh_folder(out, overwrite=overwrite, resume=resume) / "manifest.csv", refs
        )
        echo(f"manifest of {len(refs)} scans: {out / 'manifest.csv'}")
        return
    from maediff.cohort.preprocess import preprocess as run
    from maediff.core.config import merge
    from maediff.core.options import RunOptions
    from maediff.preparation.config import PARTS, PreparationConfig

    own: dict[str, Any] = {}
    if like:
        from maediff.models.folder import prepared_for

        own = prepared_for(like)
    with read_cli_settings(config, set_) as changes:
        settings = merge(own, changes)
        parts = {key: settings.pop(key) for key in PARTS if key in settings}
        preparation = PreparationConfig.from_settings(parts)
        refuse_settings(settings, "grid.*, normalise.*, brain.*, bias.*, registration.* and qc.*")
    failed = run(
        collect_inputs(inputs, more),
        out,
        modality=modality,
        layout=layout,
        series=series,
        fold=fold,
        lesion_free_margin=lesion_free_margin,
        preparation=preparation,
        run=RunOptions(
            workers=workers,
            threads=threads,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            shard=part,
            engine=engine,
        ),
    )
    if part:
        from maediff.core.files import read_json

        record = part.record_in(out)
        qc = read_json(record)["qc"]
        print_shard(part, len(qc), out)
        _print_status({name: line[1] for name, line in qc.items()}, record)
        exit_if_failed(failed)
        return
    if (out / "cohort.json").is_file():
        from maediff.report import write_report

        echo(f"cohort: {out}")
        echo(f"report: {write_report(out)}")
    else:
        echo(f"no cohort: every scan failed, see {out / 'qc.csv'}")
    import csv

    from maediff.core.text import plain_cell

    with (out / "qc.csv").open(newline="", encoding="utf-8") as file:
        status = {plain_cell(row["name"]): row["status"] for row in csv.DictReader(file)}
    _print_status(status, out / "qc.csv")
    exit_if_failed(failed)


def _print_status(status: Mapping[str, str], where: Path) -> None:
    """Print the names of failed and flagged scans, from the status of all scans by name."""
    lost, flagged = (
        [name for name, value in status.items() if value == kind] for kind in ("failed", "flagged")
    )
    print_failures(lost, flagged, where)
