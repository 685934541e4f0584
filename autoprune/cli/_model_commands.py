"""The commands that train, look into, write and time models.

Each parses, calls the function that a script would call, and prints. Heavy modules are imported inside them,
so that `autoprune --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli._arguments import ConfigSource, Overrides, OwnConfig, Storage, Trust
from autoprune.cli._console import console
from autoprune.cli._output import print_curves, print_notes, screen
from autoprune.cli._resumable import resumable, same_command
from autoprune.errors import ConfigError


def train(config: ConfigSource, overrides: Overrides = None) -> None:
    """Train the dense model with a clean validation part. What it has seen is noted beside it."""
    from autoprune import run
    from autoprune.config import load_config

    settings = load_config(config, overrides or ())
    with resumable(same_command), screen() as watch:
        result = run.train(settings, watch=watch)
    print_notes([f"Validation score {result.val_score:.4f}. Saved in {result.checkpoint}."])


def inspect(
    config: ConfigSource,
    overrides: Overrides = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Show the output error of each group by its width instead.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show the score as each group alone is cut instead.")
    ] = False,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="A .png, .svg, .pdf or .csv file of these; may be repeated."),
    ] = None,
    limit: Annotated[float, typer.Option("--limit", help="Seconds of --sensitivity at most.")] = 300.0,
) -> None:
    """Show groups, costs and budgets before any training. Also frozen layers and the memory needed."""
    from autoprune import run
    from autoprune.cli._tables import group_table, inspection_notes, inspection_table
    from autoprune.config import load_config

    if errors and sensitivity:
        raise ConfigError("--errors and --sensitivity: give one of them at a time.")
    if output and not (errors or sensitivity):
        raise ConfigError("--output: inspect writes a file with --errors or --sensitivity alone; give one.")
    settings = load_config(config, overrides or ())
    with screen() as watch:
        if errors:
            return print_curves(run.error_curves(settings, output or (), watch=watch))
        if sensitivity:
            found = run.sensitivity_curves(settings, output or (), limit_seconds=limit, watch=watch)
            return print_curves(found)
        inspection = run.inspect(settings, watch=watch)
    console.print(group_table(inspection))
    console.print(inspection_table(inspection))
    print_notes(inspection_notes(inspection))


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FOLDER",
            help="A study that is finetuned, or scored without training, or a saved model.",
        ),
    ],
    format_name: Annotated[str, typer.Option("--format", help="onnx, pt2 or safetensors.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")] = None,
    storage: Storage = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="The dense model of the study, to be timed beside the small one.")
    ] = False,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Write the small model for another runtime. What was written has to compute the same."""
    from autoprune import run

    report = run.export(
        target,
        format_name,
        output=output,
        storage=storage,
        dense=dense,
        trust=trust,
        config=config,
    )
    difference = f"largest difference to PyTorch {report.max_difference:.2e}"
    print_notes([f"Wrote {report.path} ({report.format}); {difference}."])


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Files .onnx (run in ONNX Runtime) or .pt2, or folders that finetune saved (in PyTorch).",
        ),
    ],
    batch: Annotated[
        int | None,
        typer.Option("--batch", help="Images at a time; default as files or shapes say."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")] = "cpu",
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="How exact the ratios shall be: 0.02 is 2% either way.")
    ] = 0.02,
    limit: Annotated[float, typer.Option("--limit", help="Seconds to measure at most.")] = 10.0,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="[NAME=]SIZES", help="Sizes that a file leaves free: 1x3x224x224."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Time exported models side by side. Each runs in its runtime; ratios are to the first."""
    from autoprune import run
    from autoprune.cli._tables import bench_notes, bench_table

    found = run.bench(
        models,
        batch=batch,
        threads=threads,
        device=device,
        shapes=shape or (),
        tolerance=tolerance,
        limit_seconds=limit,
        trust=trust,
    )
    console.print(bench_table(found))
    print_notes(bench_notes(found))
