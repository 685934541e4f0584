"""The commands that create, resume and evaluate a study.

They import heavy modules only when they run, so that `autoprune --help` answers at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.cli._arguments import (
    IfStudyExists,
    OptionalConfig,
    Outputs,
    Overrides,
    OwnConfig,
    Storage,
    StudyName,
    Trust,
)
from autoprune.cli._completion import complete_profile, complete_study
from autoprune.cli._output import output as output_options
from autoprune.cli._output import screen, show
from autoprune.cli._results import show_budget_curve, show_flows, show_report, show_search
from autoprune.cli._resumable import resumable, same_command
from autoprune.cli._signals import ended_by
from autoprune.cost import budget_keys
from autoprune.errors import ConfigError

if TYPE_CHECKING:
    from autoprune.run import RunSpec
_SHORTEST_INTERVAL = 0.5
_LONGEST_INTERVAL = 3600


def search(
    config: OptionalConfig = None,
    overrides: Overrides = None,
    from_study: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STUDY",
            help="A study whose settings and measurements are reused.",
            autocompletion=complete_study,
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="The storage of the study in --from.")
    ] = None,
    if_exists: IfStudyExists = "error",
    trust: Trust = False,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="thorough, balanced, or smoke: a short trial run.",
            autocompletion=complete_profile,
        ),
    ] = None,
) -> None:
    """Search smaller versions of a model under a budget."""
    from autoprune import run
    from autoprune.config import find_profile, load_config
    from autoprune.study import study_command

    changes, action = overrides or [], run.checked_action(if_exists)
    _check_source(config, from_study, storage, profile, trust=trust)
    if config is None:
        settings = run.earlier_settings(str(from_study), storage, changes)
    else:
        settings = run.settle(load_config(config, changes, profile))
        if profile is not None and find_profile(profile, "--profile").is_trial_run:
            return _smoke(config, settings, changes, action)

    def go_on() -> str | None:
        if not run.study_exists(settings):
            return None
        return study_command("resume", str(settings.search.study), str(settings.search.storage))

    with resumable(go_on), screen() as watch:
        if from_study is None:
            result = run.search(config=settings, if_exists=action, watch=watch)
        else:
            result = run.search(
                from_study=from_study,
                from_storage=storage,
                overrides=changes,
                if_exists=action,
                trust=trust,
                watch=watch,
            )
    show_search(result)


def _check_source(
    config: str | None, from_study: str | None, storage: str | None, profile: str | None, *, trust: bool
) -> None:
    """Require a config or an earlier study, and only the options that go with it."""
    if (config is None) == (from_study is None):
        got = "neither" if config is None else "both"
        raise ConfigError(f"search: expected CONFIG or --from STUDY, got {got}.")
    if config is None and profile is not None:
        raise ConfigError("--profile: a search --from a study has the settings of that one. Use --set.")
    if config is not None and trust:
        raise ConfigError(
            "--trust: the code that your own CONFIG names is trusted. Give --trust with --from."
        )
    if config is not None and storage is not None:
        raise ConfigError(
            "--storage: got it without --from, whose study it holds. Set search.storage for the new study."
        )


def _smoke(config: str, settings: RunSpec, overrides: list[str], if_exists: str) -> None:
    """Run the trial run of a config, and print the command of the real search."""
    from autoprune import run

    with screen() as watch:
        if if_exists != "error":
            watch(run.Stage("--if-exists is given, but a trial run keeps no study"))
        result = run.smoke(settings, watch=watch)
    changes = [word for override in overrides for word in ("--set", override)]
    following = shlex.join(["autoprune", "search", config, *changes])
    show(result, notes=lambda: [result.sentence, f"Next: {following}"])


def resume(
    study: StudyName,
    storage: Storage = None,
    overrides: Overrides = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Run again the trials of hosts that are gone."),
    ] = False,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Resume a search that was stopped or killed."""
    from autoprune import run

    with resumable(same_command), screen() as watch:
        result = run.resume(
            study,
            storage,
            overrides=overrides or (),
            take_over=take_over,
            trust=trust,
            config=config,
            watch=watch,
        )
    show_search(result)


def watch(
    study: StudyName,
    storage: Storage = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="Time between two updates.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Print the state once and end.")] = False,
) -> None:
    """Follow a search that runs elsewhere. It changes nothing there."""
    from autoprune import run
    from autoprune.cli._watch import show_statuses, status_advice, status_view

    if not _SHORTEST_INTERVAL <= interval <= _LONGEST_INTERVAL:
        raise ConfigError(
            f"--interval: got {interval:g}, expected {_SHORTEST_INTERVAL:g} to {_LONGEST_INTERVAL} seconds."
        )
    if output_options.json and not once:
        raise ConfigError("--json: watch prints one document. Add --once.")
    statuses = run.follow(study, run.find_storage(study, storage), interval=interval)
    if once:
        status = next(statuses)
        return show(status, lambda: [status_view(status)], lambda: status_advice(status))
    try:
        show_statuses(statuses)
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(ended_by(interrupt)[1]) from None


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the keyword arguments of a command by an option for each key of [budget]."""
    given = list(signature(command, eval_str=True).parameters.values())[:-1]
    for key in budget_keys().values():
        example = f'Upper limit, or a share: "{key.unit.example}", "40%".'
        kind = Annotated[str | None, typer.Option(key.option, metavar="LIMIT", help=example)]
        given.append(Parameter(key.name, Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    vars(command)["__signature__"] = Signature(given)
    command.__annotations__.update({each.name: each.annotation for each in given})
    return command


@_with_limits
def best(
    study: StudyName,
    storage: Storage = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="RANGE", help='Show predicted errors instead: "flops=20%..60%".'),
    ] = None,
    output: Outputs = None,
    trust: Trust = False,
    config: OwnConfig = None,
    **limits: str | None,
) -> None:
    """Pick the best trial of a study within limits. The search may still be running.

    With --budget, print the predicted error over a range of budgets, from the study's error library.
    """
    from autoprune import run
    from autoprune.reporting import cost_notes, cost_table, tolerance_notes, trial_table, widths_table

    if budget is not None:
        if any(limits.values()):
            raise ConfigError(
                "--budget shows predictions for plans, and limits pick a trial: give one of them."
            )
        with screen() as watch:
            curve = run.budget_curve(
                study, storage, budget=budget, outputs=output or (), trust=trust, config=config, watch=watch
            )
        return show_budget_curve(curve)
    for option, value in (("--output", output), ("--trust", trust), ("--config", config)):
        if value:
            raise ConfigError(f"{option}: best reads it with --budget alone. Add that, or leave it out.")
    given = {name: value for name, value in limits.items() if value is not None}
    picked = run.best(study, run.find_storage(study, storage), given)
    summary, trial = picked.summary, picked.trial
    within = [] if given else tolerance_notes(summary)
    show(
        picked,
        lambda: [
            trial_table(summary, only=trial),
            widths_table(summary, trial),
            cost_table(summary, trial),
        ],
        lambda: [*within, *cost_notes(trial), f"Next: {picked.command}"],
    )


def finetune(
    study: StudyName,
    storage: Storage = None,
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", help="A trial to finetune instead of the best.")
    ] = None,
    overrides: Overrides = None,
    trust: Trust = False,
    config: OwnConfig = None,
) -> None:
    """Train the best trial of a study fully and test it once. A stopped finetune resumes."""
    from autoprune import run
    from autoprune.run import after_saving, export_command, pruned_table

    with resumable(same_command), screen() as watch:
        result = run.finetune(
            study,
            storage,
            trial=trial,
            overrides=overrides or (),
            trust=trust,
            config=config,
            watch=watch,
        )

    def next_step() -> list[str]:
        url = run.find_storage(study, storage)
        return [after_saving(result.folder, export_command(study, url, result.folder))]

    show(result, lambda: [pruned_table(result)], next_step)


def report(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FOLDER",
            help="A study, or a folder with flows of `prune` to compare.",
            autocompletion=complete_study,
        ),
    ],
    storage: Storage = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The plot (.png, .svg, .pdf) or the page (.html)."
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write one HTML page in place of the plot, to share or to print.")
    ] = False,
) -> None:
    """Print and plot a study's trials, or rank the flows in a folder."""
    from autoprune import run

    if storage is None and run.holds_flows(study):
        if output is not None or html:
            raise ConfigError(
                f"report: {study} holds flows, which have no plot and no page. Leave these options out, or "
                "name the --storage of a study."
            )
        return show_flows(run.compare_flows(study))
    url = run.find_storage(study, storage, or_folder_of="flows")
    show_report(run.report(study, url, output, html=html))
