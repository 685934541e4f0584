"""The commands that train, inspect, export and time models.

They import heavy modules only when they run, so that `autoprune --help` answers at once.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from autoprune.cli._arguments import (
    ConfigSource,
    IfCheckpointExists,
    IfFlowExists,
    Outputs,
    Overrides,
    OwnConfig,
    Storage,
    Trust,
)
from autoprune.cli._completion import complete_format, complete_method, complete_study
from autoprune.cli._output import screen, show
from autoprune.cli._results import show_curves
from autoprune.cli._resumable import resumable, same_command
from autoprune.errors import ConfigError


def train(config: ConfigSource, overrides: Overrides = None, if_exists: IfCheckpointExists = "error") -> None:
    """Train the dense model with a held-out validation part. A note next to it records the split."""
    from autoprune import run
    from autoprune.config import load_config

    settings = load_config(config, overrides or ())
    with resumable(same_command), screen() as watch:
        result = run.train(settings, if_exists=run.checked_action(if_exists), watch=watch)
    show(result, notes=lambda: [f"Validation score {result.val_score:.4f}. Saved in {result.checkpoint}."])


def prune(
    config: ConfigSource,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="A preset. `autoprune methods` lists them.",
            autocompletion=complete_method,
        ),
    ] = None,
    overrides: Overrides = None,
    if_exists: IfFlowExists = "resume",
) -> None:
    """Make a model smaller by the stages of [flow], without a search. A stopped flow resumes."""
    from autoprune import run
    from autoprune.config import load_config
    from autoprune.run import flow_table, pruned_table

    chosen = [] if method is None else [f"flow.method={method}"]
    settings = load_config(config, [*(overrides or ()), *chosen])
    with resumable(same_command), screen() as watch:
        result = run.prune(config=settings, if_exists=run.checked_action(if_exists), watch=watch)
    command = shlex.join(["autoprune", "export", str(result.folder)])
    masked = [] if result.remaining is None else [f"Masks leave {result.remaining}."]
    show(
        result,
        lambda: [flow_table(result), pruned_table(result)],
        lambda: [*masked, run.after_saving(result.folder, command)],
    )


def methods() -> None:
    """List the presets of prune. Each has its paper, its needs and its command."""
    from autoprune.config import presets
    from autoprune.run import method_notes

    show(tuple(presets().values()), notes=method_notes)


def inspect(
    config: ConfigSource,
    overrides: Overrides = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Show the output error of each group at each width.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Cut one group at a time, and show the score.")
    ] = False,
    output: Outputs = None,
    limit: Annotated[
        float, typer.Option("--limit", metavar="SECONDS", help="Time limit of --sensitivity.")
    ] = 300.0,
) -> None:
    """Show channel groups, droppable blocks, costs and budgets. Nothing is trained."""
    from autoprune import run
    from autoprune.config import load_config
    from autoprune.run import block_table, group_table, inspection_notes, inspection_table

    if errors and sensitivity:
        raise ConfigError("--errors and --sensitivity: got both, expected at most one.")
    if output and not (errors or sensitivity):
        raise ConfigError("--output: inspect writes files of --errors or --sensitivity only. Add one.")
    settings = load_config(config, overrides or ())
    with screen() as watch:
        if errors:
            return show_curves(run.error_curves(settings, output or (), watch=watch))
        if sensitivity:
            found = run.sensitivity_curves(settings, output or (), limit_seconds=limit, watch=watch)
            return show_curves(found)
        inspection = run.inspect(settings, watch=watch)
    blocks = [block_table(inspection)] if inspection.blocks else []
    show(
        inspection,
        lambda: [group_table(inspection), *blocks, inspection_table(inspection)],
        lambda: inspection_notes(inspection),
    )


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FOLDER",
            help="A study that is finetuned or was scored without training, or the folder of a saved model.",
            autocompletion=complete_study,
        ),
    ],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="onnx, pt2, safetensors, or folder for the whole folder.",
            autocompletion=complete_format,
        ),
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file to write, or with --format safetensors or folder the folder.",
        ),
    ] = None,
    storage: Storage = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Export the dense model of the study, for a comparison.")
    ] = False,
    trust: Trust = False,
    config: OwnConfig = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", help="Version of ONNX's operators, by default torch's own."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write an int8 ONNX file, and compare it with the float file.")
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", metavar="METHOD", help="Of --int8: minmax (default), entropy or percentile."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", help="Of --int8: training images to use, by default 256."),
    ] = None,
    reduce_range: Annotated[
        bool | None,
        typer.Option("--reduce-range/--full-range", help="Of --int8: 7-bit weights, for CPUs without VNNI."),
    ] = None,
) -> None:
    """Export the small model to another format. Its outputs are compared with the model's."""
    from autoprune import run

    options = {"calibration": calibration, "images": images, "reduce_range": reduce_range}
    given = _given_options(options, int8=int8)
    if int8:
        if dense or format_name != "onnx":
            raise ConfigError("--int8: it quantises the small model as onnx. Leave out --dense and --format.")
        places = {"output": output, "opset": opset, "storage": storage, "trust": trust, "config": config}
        return _export_int8(target, **places, **given)
    with screen() as watch:
        report = run.export(
            target,
            output,
            format_name,
            storage=storage,
            dense=dense,
            trust=trust,
            config=config,
            opset=opset,
            watch=watch,
        )
    kind = report.format if report.opset is None else f"{report.format}, opset {report.opset}"
    difference = f"largest difference to PyTorch {report.max_difference:.2e}"
    show(report, notes=lambda: [f"Wrote {report.path} ({kind}), {difference}."])


def _given_options(options: dict[str, Any], *, int8: bool) -> dict[str, Any]:
    """Return the options of --int8 that were given. Without --int8 none may be."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and not int8:
        name = next(iter(given)).replace("_", "-")
        raise ConfigError(f"--{name}: export reads it with --int8 alone. Add that, or leave it out.")
    return given


def _export_int8(target: str, **given: Any) -> None:
    from autoprune import run

    with screen() as watch:
        found = run.export_int8(target, **given, watch=watch)
    show(
        found,
        lambda: [run.int8_table(found)],
        lambda: [f"Wrote {found.path} (int8).", *found.notes],
    )


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
        typer.Option(
            "--batch", metavar="N", help="Images per forward pass, by default as in the files or shapes."
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:1.")] = "cpu",
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", help="Time until ratios are this exact: 0.02 is +-2%."),
    ] = 0.02,
    limit: Annotated[float, typer.Option("--limit", metavar="SECONDS", help="Time limit.")] = 10.0,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="[NAME=]SIZES", help="Sizes that a file leaves free: 1x3x224x224."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Time exported models side by side. Each runs in its own runtime, and ratios refer to the first."""
    from autoprune import run
    from autoprune.run import bench_notes, bench_table

    with screen() as watch:
        found = run.bench(
            models,
            batch=batch,
            threads=threads,
            device=device,
            shapes=shape or (),
            tolerance=tolerance,
            limit_seconds=limit,
            trust=trust,
            watch=watch,
        )
    show(found, lambda: [bench_table(found)], lambda: bench_notes(found))
