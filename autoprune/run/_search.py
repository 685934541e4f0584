"""The search: everything is checked, then the study is made, then an engine runs its trials; and its resume.

result = search(model, data, "run.toml", watch=print)
result = resume(result.study, result.storage, model=model, data=data)   # after a kill: goes on where it was
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import NoneType

from torch import nn

from autoprune.data import UserLoaders, VisionData
from autoprune.errors import ConfigError
from autoprune.run._checks import check_engine_runs, check_names, check_paths, check_study_is_new
from autoprune.run._dense import GIVEN_MODEL, Dense, given_dense
from autoprune.run._events import GIVEN_WATCH, Stage, Watcher, silent
from autoprune.run._new_study import make_study
from autoprune.run._other_processes import report_held_elsewhere
from autoprune.run._paths import settle
from autoprune.run._resolve import resolve, resolve_stored
from autoprune.run._search_result import SearchResult
from autoprune.run._spec import ConfigSource, RunSpec
from autoprune.run._stored_run import StoredRun, open_run
from autoprune.run._trials import run_trials
from autoprune.run._trust import sign_names, store_consent
from autoprune.run._unused_settings import report_unused
from autoprune.support.usercode import entry


@entry(model=GIVEN_MODEL, watch=GIVEN_WATCH)
def search(
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    config: ConfigSource | None = None,
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
    watch = watch or silent
    spec = RunSpec.of(config)
    given = given_dense(model, data, spec)
    spec = settle(spec if given is None else spec.without_names(), named=given is None)
    check_names(spec)
    check_paths(spec)
    check_study_is_new(spec)
    check_engine_runs(spec)
    report_unused(spec, watch)
    storage, spec = str(spec.search.storage), spec.without_password()
    run, choice = resolve(spec, given, watch)
    study, moments = make_study(run, choice, storage)
    sign_names(study, run.spec)
    return run_trials(run, study, moments=moments)


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
    config: ConfigSource | None = None,
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
    with open_run(study, storage, overrides, trust=trust, config=config) as stored:
        given = given_dense(model, data, stored.running)
        return _go_on(stored, given, watch or silent, take_over=take_over)


def _go_on(stored: StoredRun, given: Dense | None, watch: Watcher, *, take_over: bool) -> SearchResult:
    """Run the trials that a study lacks."""
    study, spec = stored.study, stored.running
    is_known = study.facts.latency is not None or not spec.limits_latency
    check_names(spec, measured=is_known)
    check_paths(spec, study.url)
    check_engine_runs(spec)
    run = resolve_stored(study, spec, given, watch)
    store_consent(study, stored.spec, stored.consent)
    if stored.consent.given:
        study.store_config(dataclasses.asdict(stored.spec))
        report_unused(stored.spec, watch, only=stored.consent.given)
    done, trials = sum(record.has_ended for record in study.records()), spec.search.trials
    if done >= trials:
        watch(
            Stage(f"{study.name}: {done} trials are done, and search.trials is {trials}: none is left to run")
        )
    else:
        watch(Stage(f"resuming {study.name}: {done} of {trials} trials are done"))
    if not take_over:
        report_held_elsewhere(study, watch)
    return run_trials(run, study, take_over=take_over)
