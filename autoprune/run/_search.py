"""Starts and resumes searches: checks all settings, creates the study, and runs its trials on an engine.

Example:
    result = search(model, data, "run.toml", watch=print)
    result = resume(result.name, result.storage, model=model, data=data)   # after a kill
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from types import NoneType

from torch import nn

from autoprune.config import find_profile
from autoprune.data import Prepare, UserLoaders, VisionData
from autoprune.errors import ConfigError, StudyError
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._checks.checks import (
    check_engine_runs,
    check_names,
    check_paths,
    check_study_is_new,
    study_exists,
)
from autoprune.run._checks.stored_run import StoredRun, open_earlier, open_run
from autoprune.run._checks.trust import consent_of, sign_derived, sign_names, store_consent
from autoprune.run._checks.unused_settings import report_unused
from autoprune.run._existing_study import (
    changes_since,
    remove_study,
    require_replaceable,
)
from autoprune.run._measuring.sparse import begin_search, is_sparsified, sparsified
from autoprune.run._other_processes import report_held_elsewhere
from autoprune.run._resolving.dense import GIVEN_MODEL, Dense, given_dense
from autoprune.run._resolving.if_exists import IfExists, checked_action
from autoprune.run._resolving.latency import stored_table
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.resolve import resolve, resolve_stored
from autoprune.run._resolving.session import STUDY, Session, StudyRef, of_study
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._resolving.stored_config import objects_of
from autoprune.run._results.search_result import SearchResult
from autoprune.run._trial_loop import run_trials
from autoprune.run._trials.new_study import make_study
from autoprune.study import SearchStudy, file_of, open_study
from autoprune.support.events import Stage, Watcher
from autoprune.support.launch import require_alone
from autoprune.support.usercode import entry
from autoprune.training import EvaluateFunction, TrainStep


@entry(model=GIVEN_MODEL, from_study=(*STUDY, NoneType), from_storage=(str, NoneType), watch=GIVEN_WATCH)
def search(
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    config: ConfigSource | None = None,
    *,
    from_study: StudyRef | None = None,
    from_storage: str | None = None,
    overrides: Sequence[str] = (),
    if_exists: IfExists = "error",
    trust: bool = False,
    train_step: TrainStep | None = None,
    evaluate: EvaluateFunction | None = None,
    prepare: Prepare | None = None,
    watch: Watch = True,
) -> SearchResult:
    """Search smaller versions of a model under a budget, in a new study.

    Pass both `model` and `data`, or neither to load those that the config names. If you pass them, the study
    names no model and no data, and you make sure that the model was not trained on the validation part.

    Args:
        model: the trained dense model. It is copied and never changed.
        data: the result of `autoprune.data.load`, or loaders of your own: (train, val), (train, val, test) or
            a dict with these keys. Each is a torch DataLoader, or another iterable of (inputs, targets) with
            a length.
        config: a RunConfig, a mapping of sections, the path of a TOML file, or an embedded config's name.
            In a mapping, functions, classes and objects may stand for names: {"task": {"loss": my_loss}}.
        from_study: name of an earlier study, or its result, in place of a config. The new study has the
            settings of that one, and reuses its measurements that do not depend on the budget.
        from_storage: URL of the storage of that study, runs/STUDY.db by default.
        overrides: changes of its settings as "section.key=value".
        if_exists: what to do if the storage has a study of this name: "error" refuses, "resume" goes on with
            it, and "overwrite" deletes it with its own files and searches again. A resume may change the
            settings that `resume` may change. Nothing is deleted while a process works on the study.
        trust: whether code that the earlier study names may run although no config of yours named it here.
        train_step: in place of task.train_step, as are the next two: (model in training mode, (inputs,
            targets)) -> the mean loss of the batch, a scalar tensor. It calls neither backward nor an
            optimizer.
        evaluate: (model in eval mode, loader of (inputs, targets)) -> the score, or a dict that holds it
            under the name task.metric. Higher is better.
        prepare: a batch of your loaders -> (inputs, targets). The inputs are a tensor, a tuple of arguments,
            or a dict of keyword arguments.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The result of the search, with the best trial.

    Raises:
        AutopruneError: a setting, the model or the data cannot be used. The storage is unchanged then.

    Example:
        result = autoprune.search(model, loaders, {"budget": {"flops": "50%"}, "search": {"study": "digits"}})
        result.best.score, result.plan.widths
    """
    require_alone("search")
    checked_action(if_exists)
    if from_study is not None:
        _check_derived(config, overrides)
        name, storage, session = of_study(from_study, from_storage, Session(model, data))
        earlier = open_earlier(name, storage, overrides, trust=trust, config=session.config)
        with watching(watch) as show, earlier as stored:
            return _search(session, stored.spec, show, stored, if_exists)
    if overrides:
        raise ConfigError("search: got overrides without from_study. Change the config itself.")
    if config is None:
        raise ConfigError('search: no config given. Pass at least {"budget": {"flops": "50%"}}.')
    spec = RunSpec.of(config).with_task(train_step=train_step, evaluate=evaluate, prepare=prepare)
    with watching(watch) as show:
        return _search(Session(model, data), spec, show, None, if_exists)


def _check_derived(config: ConfigSource | None, overrides: Sequence[str]) -> None:
    """Refuse a search from a study that has a config too, or that changes nothing."""
    if config is not None:
        raise ConfigError("search: got a config and from_study, expected one of them.")
    if not overrides:
        raise ConfigError(
            "search: without changes, a search from a study repeats it. Add one such as "
            "--set budget.flops=30%, or search.seed for a repetition."
        )


def _search(
    session: Session, spec: RunSpec, watch: Watcher, stored: StoredRun | None, if_exists: IfExists
) -> SearchResult:
    """Search in a new study, which reuses measurements of a `stored` one if that is given."""
    given = given_dense(session.model, session.data, spec)
    spec = settle(spec if given is None else spec.without_names(), named=given is None)
    check_names(spec)
    check_paths(spec)
    replaced = None
    if if_exists == "error" or not study_exists(spec):
        check_study_is_new(spec)
    else:
        found = open_study(str(spec.search.storage), str(spec.search.study))
        if if_exists == "resume":
            return _resume_same(found, spec, session, watch)
        if stored is not None and _is_same(found, stored.study):
            raise StudyError(
                f"{found.name}: the new search would replace the study that it begins from. Choose another "
                "name with --set search.study=NAME."
            )
        require_replaceable(found)
        replaced = found
    check_engine_runs(spec)
    report_unused(spec, watch)
    if spec.search.profile is not None and find_profile(spec.search.profile).is_trial_run:
        watch(Stage(f'search.profile = "{spec.search.profile}": a trial run, whose figures mean nothing'))
    storage, spec = str(spec.search.storage), spec.without_password()
    earlier = None if stored is None else stored.study
    run, choice = resolve(
        spec, given, watch, begin_search, known=None if earlier is None else stored_table(earlier)
    )
    if replaced is not None:  # only now, when nothing else can refuse the new search
        require_replaceable(replaced)
        remove_study(replaced, consent_of(False, spec))
    if is_sparsified(spec):
        run = sparsified(run)
    study, moments = make_study(run, choice.step_ms, storage, earlier)
    if stored is None:
        sign_names(study, run.spec)
    else:
        sign_derived(study, run.spec, stored.consent)
    result = run_trials(run, study, moments=moments)
    return replace(result, session=replace(session, config=objects_of(run.spec)))


def _is_same(first: SearchStudy, second: SearchStudy) -> bool:
    """Return whether two opened studies are one, even if their URLs name its file in different ways."""
    files = [None if (file := file_of(each.url)) is None else file.resolve() for each in (first, second)]
    is_same_storage = first.url == second.url or (files[0] is not None and files[0] == files[1])
    return is_same_storage and first.name == second.name


def _resume_same(found: SearchStudy, spec: RunSpec, session: Session, watch: Watcher) -> SearchResult:
    """Go on with an existing study under the settings of this call."""
    with open_run(found.name, found.url, changes_since(found, spec), config=spec) as stored:
        given = given_dense(session.model, session.data, stored.running)
        result = _go_on(stored, given, watch, take_over=False)
    return replace(result, session=replace(session, config=objects_of(stored.spec)))


@entry(study=STUDY, storage=(str, NoneType), model=GIVEN_MODEL, watch=GIVEN_WATCH)
def resume(
    study: StudyRef,
    storage: str | None = None,
    *,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    overrides: Sequence[str] = (),
    take_over: bool = False,
    trust: bool = False,
    config: ConfigSource | None = None,
    watch: Watch = True,
) -> SearchResult:
    """Resume a search that was stopped or killed, or extend it by more trials.

    Pass the same model and data if `search` received them. Functions that `search` received are imported by
    their names. In another process pass those that cannot be imported, such as lambdas, in `config`.

    Args:
        study: name of the study, or the result of a search, which also knows its storage, model and data.
        storage: URL of its storage, runs/STUDY.db by default.
        model: the same dense model.
        data: the same data.
        overrides: changes as "section.key=value", such as more trials, another engine, or a moved file.
        take_over: also run the trials again that other hosts hold. Set it only if those hosts are gone.
        trust: whether code that the study names may run although no config of yours named it here.
        config: a config of your own, as `search` accepts it. The code that it names is trusted. Functions and
            objects that the study cannot store are passed again in it.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The result of the search, with the best trial.

    Raises:
        StudyError: the study does not exist, it was made for another model, other data or another space, its
            trials run on a device that this machine lacks, or it names code or paths that are not trusted.
        AutopruneError: something that the config names can no longer be used.

    Note:
        If search.trials grows, the settings of the samplers that depend on it change for the new trials:
        sizes of populations, start-up trials, and the decay of exploration noise.

    Example:
        result = autoprune.resume("digits", model=model, data=loaders, overrides=["search.trials=4"])
    """
    require_alone("resume")
    name, url, session = of_study(study, storage, Session(model, data, config))
    opened = open_run(name, url, overrides, trust=trust, config=session.config)
    with watching(watch) as show, opened as stored:
        given = given_dense(session.model, session.data, stored.running)
        result = _go_on(stored, given, show, take_over=take_over)
    return replace(result, session=replace(session, config=objects_of(stored.spec)))


def _go_on(stored: StoredRun, given: Dense | None, watch: Watcher, *, take_over: bool) -> SearchResult:
    """Run the remaining trials of a study."""
    study, spec = stored.study, stored.running
    is_measured = study.facts.latency is not None or not spec.limits_latency
    check_names(spec, measured=is_measured)
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
            Stage(f"{study.name}: {done} trials are done and search.trials is {trials}: none is left to run")
        )
    else:
        watch(Stage(f"resuming {study.name}: {done} of {trials} trials are done"))
    if not take_over:
        report_held_elsewhere(study, watch)
    return run_trials(run, study, take_over=take_over)
