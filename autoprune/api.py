"""The searches as a script calls them: with a model and data in hand, or with nothing but a config.

Before: a user's script; after: `pipeline`, which is imported when one of these is called, so that
`import autoprune` stays light.

    result = autoprune.search(model, data, "run.toml")
    tuned = autoprune.finetune(result.study, result.storage, model=model, data=data)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from torch import nn

from autoprune.errors import ConfigError
from autoprune.support.usercode import entry

if TYPE_CHECKING:
    from autoprune.config.settings import RunConfig
    from autoprune.data import UserLoaders, VisionData
    from autoprune.run import Consent, Dense, FinetuneResult, SearchResult, Watcher

_MODEL = (nn.Module, NoneType)
_WATCH = (Callable, NoneType)


@entry(model=_MODEL, watch=_WATCH)
def search(
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    config: RunConfig | str | Path | Mapping[str, Any] | None = None,
    *,
    watch: Watcher | None = None,
) -> SearchResult:
    """Search smaller versions of a model under a budget.

    Args:
        model: the trained dense model, which stays as it is; None takes the one that the config names.
        data: loaders of your own, (train, val), (train, val, test) or a dict with these keys, each a torch
            DataLoader or another iterable of (inputs, targets) with a length; or what `autoprune.data.load`
            returns; None takes those that the config names. Model and data come together. That the model was
            not trained on the validation part is the caller's to know.
        config: a RunConfig, a mapping of sections, a TOML file, or the name of an embedded config.
        watch: called with events as the search goes on.

    Raises:
        AutopruneError: something cannot be used; the storage is then untouched.
    """
    from autoprune import run
    from autoprune.config import load_config
    from autoprune.config.settings import RunConfig
    from autoprune.run import silent

    if config is None:
        raise ConfigError('search: no config given; pass at least {"budget": {"flops": "50%"}}.')
    settings = config if isinstance(config, RunConfig) else load_config(config)
    return run.search(settings, dense=_dense(model, data, settings), watch=watch or silent)


@entry(study=str, storage=(str, NoneType), model=_MODEL, watch=_WATCH)
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
    """Go on with a search; model and data are needed where `search` was given them.

    With more search.trials than it began with, what follows from their number changes from there on: sizes of
    populations, start-up trials and the fall of exploration noise in the samplers.

    Args:
        study: its name.
        storage: its URL; default runs/STUDY.db.
        model: the same dense model.
        data: the same data.
        overrides: "section.key=value" of what may change: more trials, another engine.
        take_over: also run the trials again that other hosts hold; say so only where those hosts are gone.
        trust: whether code that the study names may run although no config of this user's own named it here.
        config: a config of your own, as `search` takes it, whose names are trusted.
        watch: called with events as the search goes on.

    Raises:
        StudyError: no such study, or model, data or space are not those that it was made for.
    """
    from autoprune import run
    from autoprune.run import silent

    url = run.find_storage(study, storage)
    consent = consent_of(trust, config)
    dense = _stored_dense(study, url, model, data, overrides, consent)
    return run.resume(
        study,
        url,
        dense=dense,
        overrides=overrides,
        take_over=take_over,
        consent=consent,
        watch=watch or silent,
    )


@entry(study=str, storage=(str, NoneType), trial=(int, NoneType), model=_MODEL, watch=_WATCH)
def finetune(
    study: str,
    storage: str | None = None,
    *,
    trial: int | None = None,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    config: RunConfig | str | Path | Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
) -> FinetuneResult:
    """Retrain the best plan of a study fully, evaluate it once on the test part, and save it.

    Args:
        study: its name.
        storage: its URL; default runs/STUDY.db.
        trial: the number of another trial to retrain in place of the best.
        model: the same dense model, where `search` was given it.
        data: the same data.
        overrides: "section.key=value" of what may change: all of [finetune].
        trust: whether code that the study names may run although no config of this user's own named it here.
        config: a config of your own, as `search` takes it, whose names are trusted.
        watch: called with events as the training goes on.

    Raises:
        StudyError: no such study, no complete trial, or another model or other data than the study's.
    """
    from autoprune import run
    from autoprune.run import silent

    url = run.find_storage(study, storage)
    consent = consent_of(trust, config)
    dense = _stored_dense(study, url, model, data, overrides, consent)
    return run.finetune(
        study,
        url,
        trial=trial,
        dense=dense,
        overrides=overrides,
        consent=consent,
        watch=watch or silent,
    )


def consent_of(trust: bool, config: RunConfig | str | Path | Mapping[str, Any] | None) -> Consent:
    """Return how far a command trusts a study, by its two arguments of these names."""
    from autoprune.config import load_config
    from autoprune.config.settings import RunConfig
    from autoprune.run import Consent

    settings = config if config is None or isinstance(config, RunConfig) else load_config(config)
    return Consent(trust, settings)


def _stored_dense(
    study: str,
    url: str,
    model: nn.Module | None,
    data: VisionData | UserLoaders | None,
    overrides: Sequence[str],
    consent: Consent,
) -> Dense | None:
    """Put a caller's model and data on the device that a study's trials run on."""
    from autoprune.run import change_config, on_device_of, stored_config, stored_setting, trusted
    from autoprune.study import open_study

    if model is None and data is None:
        return None
    opened = open_study(url, study)
    config = change_config(stored_config(opened), overrides)
    with trusted(opened, config, consent.with_overrides(overrides)):
        return _dense(model, data, on_device_of(stored_setting(opened), config))


def _dense(model: nn.Module | None, data: VisionData | UserLoaders | None, config: RunConfig) -> Dense | None:
    """Put a copy of a caller's model and its data together with the task and device of the config."""
    if (model is None) != (data is None):
        raise ConfigError("model and data come together: got one of them, expected both or neither.")
    if model is None or data is None:
        return None
    from autoprune.data import VisionData, wrap_loaders
    from autoprune.execution import resolve_device
    from autoprune.run import Dense, own_copy
    from autoprune.train import make_task

    task = make_task(config.task.loss, config.task.metric)
    device = resolve_device(config.search.device)
    if not isinstance(data, VisionData):
        data = wrap_loaders(data, device=device, batch_size=config.data.batch_size)
    return Dense(own_copy(model).cpu().eval(), data, task, device)
