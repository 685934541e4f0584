"""The search: everything is checked, then the study is made, then an engine runs its trials; and its resume.

result = search(model, data, "run.toml", watch=print)
result = resume(result.study, result.storage, model=model, data=data)   # after a kill: goes on where it was
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import optuna
from torch import nn

from autoprune.config import load_config, parse_override
from autoprune.config.settings import RunConfig
from autoprune.data import UserLoaders, VisionData
from autoprune.engines import MakeScorer, TrialRunner, find_engine, run_search
from autoprune.errors import ConfigError, TrialError, shown_url
from autoprune.report import StudySummary, summarise
from autoprune.run._checks import (
    check_engine_runs,
    check_names,
    check_places,
    check_study_is_new,
    rates_of,
    workers_of,
)
from autoprune.run._dense import (
    GIVEN_MODEL,
    Dense,
    distils,
    given_dense,
    load_dense,
    try_model,
    try_task,
    try_training,
    without_names,
)
from autoprune.run._events import GIVEN_WATCH, Stage, Watcher, silent
from autoprune.run._expected_time import Pace
from autoprune.run._finalists import measure_finalists
from autoprune.run._identity import identify
from autoprune.run._latency import LatencyTables, settle_divisor, stored_tables
from autoprune.run._moments import StudyMoments, prepare_moments, try_repair
from autoprune.run._next_step import next_step
from autoprune.run._objectives import objective_costs
from autoprune.run._other_processes import report_held_elsewhere, report_unended
from autoprune.run._paths import find_storage, settle, without_password
from autoprune.run._problem import (
    Problem,
    asks_for_latency,
    pose,
    pose_traced,
    require_unmeasured,
    trace_dense,
)
from autoprune.run._progress import report_problem, trial_reporter
from autoprune.run._ranking import encode_ranking, rank_channels
from autoprune.run._scoring import ScorerFactory, identify_parts, make_score, parse_rungs, with_weights
from autoprune.run._seen_validation import require_unseen_validation
from autoprune.run._statistics import Ground, measure_statistics
from autoprune.run._stored_config import (
    change_config,
    on_device_of,
    stored_config,
    stored_ranking,
    stored_setting,
    threads_of,
)
from autoprune.run._supernet_training import prepare_supernet
from autoprune.run._train import clear_finished, measure_setting, train_dense
from autoprune.run._trust import Consent, consent_of, keep_consent, require_places, trusted, vouch
from autoprune.run._unused_settings import report_unused
from autoprune.run._warm_starts import choose_warm_starts, enqueue_missing
from autoprune.study import SCORE, SearchStudy, StudyFacts, TrialRecord, create_study, open_study
from autoprune.support.threads import cpu_threads, usable_cores
from autoprune.support.usercode import entry
from autoprune.train import Choice, evaluate


@dataclass(frozen=True)
class SearchResult:
    """A search that has all its trials."""

    study: str
    storage: str = field(repr=False)  # may hold a password
    output: Path
    summary: StudySummary
    next_step: str = ""

    @property
    def best(self) -> TrialRecord:
        """The best complete trial.

        Raises:
            TrialError: there is none.
        """
        if self.summary.best is None:
            failures = self.summary.failures()
            most = f", {len(failures[0].trials)} of them with: {failures[0].reason}" if failures else "."
            raise TrialError(f"{self.study}: none of {len(self.summary.records)} trials completed{most}")
        return self.summary.best

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials that none dominates, the cheapest first, where there are several objectives."""
        return self.summary.front


@entry(model=GIVEN_MODEL, watch=GIVEN_WATCH)
def search(
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    config: RunConfig | str | Path | Mapping[str, Any] | None = None,
    *,
    watch: Watcher | None = None,
) -> SearchResult:
    """Search smaller versions of a model under a budget, in a new study.

    Args:
        model: the trained dense model, which stays as it is; None takes the one that the config names.
        data: loaders of your own, (train, val), (train, val, test) or a dict with these keys, each a torch
            DataLoader or another iterable of (inputs, targets) with a length; or what `autoprune.data.load`
            returns; None takes those that the config names. Model and data come together, and the study then
            names none. That the model was not trained on the validation part is the caller's to know.
        config: a RunConfig, a mapping of sections, a TOML file, or the name of an embedded config.
        watch: called with events as the search goes on.

    Raises:
        AutopruneError: something cannot be used; the storage is then untouched.
    """
    if config is None:
        raise ConfigError('search: no config given; pass at least {"budget": {"flops": "50%"}}.')
    config = config if isinstance(config, RunConfig) else load_config(config)
    watch = watch or silent
    dense = given_dense(model, data, config)
    config = settle(config if dense is None else without_names(config), named=dense is None)
    check_names(config)
    check_places(config)
    check_study_is_new(config)
    check_engine_runs(config)
    report_unused(config, watch)
    storage, config = str(config.search.storage), without_password(config)
    dense, config, problem, measured = _prepare(config, dense, watch)
    choice = _measure(dense, config, watch)
    setting = choice.setting
    started = time.perf_counter()
    dense_score = evaluate(copy.deepcopy(dense.model), dense.data.val, dense.task, setting)
    image_s = (time.perf_counter() - started) / dense.data.val.samples
    if not math.isfinite(dense_score):
        raise ConfigError(f"task.metric: {config.task.metric} is {dense_score} for the dense model.")
    source = f" ({config.model.checkpoint})" if config.model.checkpoint else ""
    watch(Stage(f"dense model{source}: {config.task.metric} {dense_score:.4f} on the validation part"))
    moments = StudyMoments(problem.prunable, dense.data, config, setting, watch)
    ranked = rank_channels(dense, problem, config.search.criterion, config.search.seed, moments)
    pace = Pace(choice.step_ms / 1000, image_s, try_repair(moments, ranked))
    plans = None if problem.space.plans is None else len(problem.space.plans)
    watch(Stage(pace.announcement(config, dense.data, plans)))
    ground = Ground(dense, problem, config, setting, ranked, watch, pace, moments)
    costs: dict[str, Any] = problem.dense_cost.known()  # one model's, so plain numbers
    facts = StudyFacts(
        setting=setting.facts,
        ranking=encode_ranking(ranked),
        dense_score=dense_score,
        dense_costs=costs,
        limits=dict(problem.budget.limits),
        dense_widths={group.name: group.width for group in problem.prunable.searchable},
        relaxed=dict(problem.space.relaxed),
        **measured,
        statistics=measure_statistics(ground, config.search.sampler),
        warm_starts=choose_warm_starts(ground),
    )
    with _quiet_optuna():
        study = create_study(
            storage,
            str(config.search.study),
            config=dataclasses.asdict(config),
            identity=identify(dense, problem, config),
            facts=facts,
            objectives=(SCORE, *objective_costs(config.search)),
        )
    vouch(study, config)
    return _run(study, config, dense, problem, watch, moments=moments)


@entry(study=str, storage=(str, NoneType), model=GIVEN_MODEL, watch=GIVEN_WATCH)
def resume(
    study: str,
    storage: str | None = None,
    *,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    overrides: Sequence[str] = (),
    take_over: bool = False,
    trust: bool = False,
    config: RunConfig | str | Path | Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
) -> SearchResult:
    """Go on with a search; model and data are needed if `search` was given them.

    With more search.trials than it began with, what follows from their number changes from there on: sizes of
    populations, start-up trials and the fall of exploration noise in the samplers.

    Args:
        study: its name.
        storage: its URL; default runs/STUDY.db.
        model: the same dense model.
        data: the same data.
        overrides: "section.key=value" of what may change: more trials, another engine, a moved file.
        take_over: also run the trials again that other hosts hold. Set it only if those hosts are gone.
        trust: whether code that the study names may run although no config of this user's own named it here.
        config: a config of your own, as `search` takes it, whose names are trusted.
        watch: called with events as the search goes on.

    Raises:
        StudyError: there is no such study, or model, data or space are not those that it was made for, or its
            trials run on a device that is not here, or it names code or places that are not trusted.
        AutopruneError: what the config names cannot be used any more.
    """
    watch = watch or silent
    url = find_storage(study, storage)
    consent = consent_of(trust, config, overrides)
    opened = open_study(url, study)
    changed = change_config(stored_config(opened), overrides)
    with trusted(opened, changed, consent):
        require_places(opened, changed, consent)
        running = on_device_of(stored_setting(opened), changed)
        dense = given_dense(model, data, running)
        return _go_on(opened, changed, dense, overrides, consent, take_over=take_over, watch=watch)


def _go_on(
    opened: SearchStudy,
    config: RunConfig,
    dense: Dense | None,
    overrides: Sequence[str],
    consent: Consent,
    *,
    take_over: bool,
    watch: Watcher,
) -> SearchResult:
    """Run the trials that a study lacks, once its config is trusted."""
    study = opened.name
    running = on_device_of(stored_setting(opened), config)
    known = opened.facts.latency is not None or not asks_for_latency(config)
    check_names(running, measured=known)
    check_places(running, opened.url)
    check_engine_runs(running)
    dense = dense or load_dense(running)
    problem = pose(dense, running, stored_tables(opened, running))
    opened.require(identify(dense, problem, running))
    keep_consent(opened, config, consent)
    if overrides:
        opened.store_config(dataclasses.asdict(config))
        report_unused(config, watch, only=[parse_override(override)[0] for override in overrides])
    done = sum(record.has_ended for record in opened.records())
    if done >= config.search.trials:
        asked = config.search.trials
        watch(Stage(f"{study}: {done} trials are done, and search.trials is {asked}: none is left to run"))
    else:
        watch(Stage(f"resuming {study}: {done} of {config.search.trials} trials are done"))
    if not take_over:
        report_held_elsewhere(opened, watch)
    return _run(opened, running, dense, problem, watch, take_over=take_over)


def _prepare(
    config: RunConfig, dense: Dense | None, watch: Watcher
) -> tuple[Dense, RunConfig, Problem, dict[str, Any]]:
    """Load or train the dense model and pose the problem; refuse what can be before any training.

    Returns:
        The dense model, the config with the divisor if that was measured, the problem, and what the study
        keeps of the measurements: {"stairs": ..., "latency": ...}.
    """
    checkpoint = config.model.checkpoint
    given = dense
    missing = checkpoint is not None and config.train.when_missing and not Path(checkpoint).exists()
    if checkpoint is not None and given is None and not missing:
        clear_finished(Path(checkpoint))
    if given is not None:
        try_model(given)
    dense = given or load_dense(config, trained=not missing)
    try_task(dense, distilled=distils(config))
    if missing or any(rung.steps or rung.epochs for rung in parse_rungs(config.score)):
        try_training(dense)
    if given is None and not missing:
        require_unseen_validation(config, dense.data, checkpoint)
    prunable = trace_dense(dense, config)
    require_unmeasured(prunable, config)
    config, stairs = settle_divisor(config, dense, watch)
    tables = LatencyTables(config, watch)
    problem = pose_traced(prunable, config, tables)
    report_problem(problem, config, watch)
    measured = {"stairs": None if stairs is None else stairs.to_json(), "latency": tables.to_json()}
    if missing and given is None and checkpoint is not None:
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        train_dense(dense, config, Path(checkpoint), watch=watch)
        dense = load_dense(config)
        problem = pose(dense, config, tables)
        require_unseen_validation(config, dense.data, checkpoint)
    return dense, config, problem, measured


def _measure(dense: Dense, config: RunConfig, watch: Watcher) -> Choice:
    """Measure the fastest setting with the threads that a trial will have."""
    if not find_engine(config.search.engine).parallel:
        return measure_setting(dense, config, watch)
    # A machine of a cluster may give trials more threads than this one, which begins the search, has cores.
    with cpu_threads(min(workers_of(config.search).threads, usable_cores())):
        return measure_setting(dense, config, watch)


def _run(
    study: SearchStudy,
    config: RunConfig,
    dense: Dense,
    problem: Problem,
    watch: Watcher,
    *,
    moments: StudyMoments | None = None,
    take_over: bool = False,
) -> SearchResult:
    """Run the trials that a study lacks, with the dense model's moments if they are measured already."""
    search, setting = config.search, stored_setting(study)
    runner = TrialRunner(
        study,
        problem.space,
        sampler=search.sampler,
        pruner=search.pruner,
        trials=search.trials,
        rungs=len(parse_rungs(config.score)),
        seed=search.seed,
        device=setting.device,
        statistics=study.facts.statistics,
        shapes=problem.prunable.shapes,
        rates=rates_of(config.search.evolution),
        cost=problem.cost,
        on_event=trial_reporter(study, config, problem, watch),
    )
    watch(
        Stage(
            f"study {study.name} in {shown_url(study.url)}: {search.trials} trials, "
            f"sampler {search.sampler}, engine {search.engine}"
        )
    )
    enqueue_missing(study, problem.space)
    with _quiet_optuna(), threads_of(search.engine, setting):
        make_scorer = _scorer_maker(study, config, dense, problem, moments, watch)
        run_search(
            search.engine,
            runner,
            make_scorer,
            workers=workers_of(search),
            other_hosts_are_gone=take_over,
        )
    if runner.has_tried_all:
        plans = 0 if problem.space.plans is None else len(problem.space.plans)
        tried = "the one distinct plan is" if plans == 1 else f"all {plans} distinct plans are"
        watch(Stage(f"{tried} tried: the search ends before {search.trials} trials"))
    report_unended(study, watch)
    measure_finalists(study, config, dense, problem, watch)
    summary = summarise(study)
    folder = Path(str(config.output.folder))
    return SearchResult(study.name, study.url, folder, summary, next_step(study, summary))


def _scorer_maker(
    study: SearchStudy,
    config: RunConfig,
    dense: Dense,
    problem: Problem,
    moments: StudyMoments | None,
    watch: Watcher,
) -> MakeScorer:
    """Return what makes the score where the engine needs it: of the parts at hand, or of names alone.

    What trials are cut from and repaired by is made now, if the study does not have it yet.
    """
    stored_ranking(study, problem.prunable)  # a damaged one ends the search here, not every trial
    ranking = study.facts.ranking
    setting = stored_setting(study)
    supernet = prepare_supernet(study, config, dense, problem, watch)
    if moments is None or supernet is not None:
        cut_from = with_weights(problem.prunable, supernet)
        moments = StudyMoments(cut_from, dense.data, config, setting, watch)
    note, measured = prepare_moments(study, moments) or (None, None)
    if not find_engine(config.search.engine).parallel:
        score = make_score(dense, problem.prunable, config, setting, ranking, supernet, measured)
        return lambda: score
    handed_on = dense if config.model.name is None and config.model.factory is None else None
    parts = identify_parts(dense, problem.prunable, supernet)
    return ScorerFactory(config, setting, ranking, handed_on, supernet, note, parts)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's progress lines, which a watcher reports better, from the terminal; warnings stay."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
