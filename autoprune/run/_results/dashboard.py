"""Keeps the pages of a study up to date: the HTML report, and the note and the files in Optuna's dashboard.

Example:
    publish(study, spec, watch, summary)        # at the end of a search, a finetune and an export
    dashboard_command(study)                    # optuna-dashboard sqlite:///runs/fm.db --artifact-dir ...
"""

from __future__ import annotations

import shlex
from pathlib import Path

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.engines import rung_step
from autoprune.errors import AutopruneError, shown_url
from autoprune.exporting import CARD, PAGE, RECIPE, WEIGHTS
from autoprune.reporting import StudySummary, summarise
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.finetune_result import known_results
from autoprune.run._results.next_step import exported_files, next_step
from autoprune.run._results.page import refresh_page
from autoprune.space import SHARE
from autoprune.study import SearchStudy, file_of, keep_file, kept_files, save_note, show, study_command
from autoprune.support.events import Stage, Watcher


def publish(
    study: SearchStudy, spec: RunSpec, watch: Watcher, summary: StudySummary | None = None
) -> Path | None:
    """Write the HTML report, and the note and the files that Optuna's dashboard shows.

    A file that cannot be written is reported as a warning, since the result of the verb is stored already.

    Returns:
        The HTML report, or None if it could not be written.
    """
    summary = summary or summarise(study, with_importances=True)
    page = refresh_page(study, spec, watch, summary)
    note_study(study, watch, summary)
    keep_files(study, watch, page)
    return page


def note_study(study: SearchStudy, watch: Watcher, summary: StudySummary | None = None) -> None:
    """Store the note of a study, which the dashboard shows as Markdown. If that fails, a warning says why."""
    try:
        summary = summary or summarise(study)
        save_note(study, "\n\n".join(_paragraphs(study, summary)))
        verdict = "no race has ended" if summary.verdict is None else summary.verdict.sentence
        show(study, best=_best(summary), verdict=verdict)
    except AutopruneError as error:
        watch(Stage(f"warning: no note in Optuna's dashboard: {error}"))


def keep_files(study: SearchStudy, watch: Watcher, page: Path | None = None) -> None:
    """Copy the report, and all finetuned and exported models, among the artifacts of the dashboard.

    If that fails, a warning says why.
    """
    folder = artifact_folder(study)
    try:
        if page is not None:
            keep_file(study, page, folder)
        for result in known_results(study):
            written = [result.folder / name for name in (RECIPE, WEIGHTS, CARD)]
            for file in (*written, *exported_files(study, result)):
                if file.is_file():  # an export may be a folder
                    keep_file(study, file, folder, trial=result.trial)
    except AutopruneError as error:
        watch(Stage(f"warning: no files in Optuna's dashboard: {error}"))


def dashboard_files(study: SearchStudy) -> list[Path]:
    """Return the copies of a study's files among the artifacts of the dashboard."""
    models = [exported_files(study, result) for result in known_results(study)]
    names = {PAGE, RECIPE, WEIGHTS, CARD, *(file.name for files in models for file in files)}
    return kept_files(study, artifact_folder(study), names)


def artifact_folder(study: SearchStudy) -> Path:
    """Return the folder of the dashboard's files, next to the storage, whose studies share one dashboard."""
    file = file_of(study.url)
    return Path("runs/artifacts") if file is None else file.with_name(f"{file.stem}-artifacts")


def dashboard_command(study: SearchStudy) -> str:
    """Return the command line that opens the dashboard."""
    is_journal = study.url.startswith("journal:")
    storage = str(file_of(study.url)) if is_journal else shown_url(study.url)
    return shlex.join(["optuna-dashboard", storage, "--artifact-dir", str(artifact_folder(study))])


def _paragraphs(study: SearchStudy, summary: StudySummary) -> list[str]:
    limits = [
        f"at most {limit / summary.dense_costs[name]:.1%} of the dense {COSTS[name].label} "
        f"({COSTS[name].unit.write(limit)})"
        for name, limit in summary.limits.items()
        if summary.dense_costs.get(name)
    ]
    verdict = [] if summary.verdict is None else [f"**{summary.verdict.sentence}**"]
    rungs = [f"step {rung_step(index)} is {rung}" for index, rung in enumerate(summary.rungs)]
    commands = {
        "Go on, or add trials": study_command("resume", study.name, study.url, anywhere=True),
        "One HTML page to share": study_command("report", study.name, study.url, "--html", anywhere=True),
        "This dashboard": dashboard_command(study),
    }
    step = next_step(study, summary, anywhere=True)
    return [
        f"# {study.name}",
        *verdict,
        *([step] if step else []),
        "\n".join(
            [
                f"- Budget: {'; '.join(limits) or 'none'}",
                f"- Dense model: {summary.metric} {score_text(summary.dense_score, summary.dense_error)}",
                f"- Best: {_best(summary)}",
                f"- Finetuned: {_finetuned(study)}",
            ]
        ),
        "## How to read this page",
        "\n".join(
            [
                f"- The score is {summary.metric} on the validation part after the last rung. Compare "
                "trials with each other, since their trainings are short.",
                *_about_objectives(summary),
                "- A parameter is the keep ratio that was proposed for a channel group. The widths that the "
                "budget made of it are the attribute *widths*.",
                f"- Intermediate values are the scores of the rungs: {', '.join(rungs)}.",
                '- *origin* is "sampler", or the heuristics that proposed the trial as a warm start.',
            ]
        ),
        "## Commands",
        "\n\n".join(f"{purpose}:\n\n```sh\n{command}\n```" for purpose, command in commands.items()),
    ]


def _about_objectives(summary: StudySummary) -> list[str]:
    """Return the lines on the best trial of a dashboard, which knows neither a race nor a budget's share."""
    lines = []
    if summary.race is not None:
        lines.append("- The dashboard marks the trial that was the best before the race.")
    if len(summary.objectives) > 1:
        costs = ", ".join(summary.objectives[1:])
        lines.append(f"- Minimised are {costs}, and the parameter {SHARE} is the share of the budget.")
    return lines


def _best(summary: StudySummary) -> str:
    best = summary.best
    if best is None:
        return "no trial is complete yet"
    shares = [f"{summary.share(best, cost):.1%} of the {COSTS[cost].label}" for cost in summary.shown_costs]
    score = score_text(best.score, best.error)
    return f"trial {best.number} ({best.origin}), {summary.metric} {score} with {', '.join(shares)}"


def _finetuned(study: SearchStudy) -> str:
    found = [
        f"trial {each.trial}, {'test' if each.test_score is not None else 'validation'} score "
        f"{each.val_score if each.test_score is None else each.test_score:.4f} in {each.folder}"
        for each in known_results(study)
    ]
    return "; ".join(found) or "no trial yet"
