"""Settings that are filled in for nothing: one row of IDLE a reason why nothing reads them.

tell_idle(config, watch)     # search.workers is set, but the engine "serial" runs one at a time: ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from autoprune.config.rungs import REPAIR, asks_for_supernet
from autoprune.config.settings import RunConfig
from autoprune.criteria import BY_MOMENTS
from autoprune.engines import find_engine, find_pruner
from autoprune.run._events import Stage, Watcher
from autoprune.run._moments import reads_moments
from autoprune.run._problem import MEASURED, asks_for_latency, measures_divisor
from autoprune.run._scoring import parse_rungs
from autoprune.run._seen_validation import is_separate


@dataclass(frozen=True)
class Idle:
    """Settings, and when they are without effect.

    Attributes:
        keys: sections ("latency") or keys ("search.workers").
        when: whether nothing reads them under a config.
        why: what is said then, behind "... is set, but ".
    """

    keys: tuple[str, ...]
    when: Callable[[RunConfig], bool]
    why: str


def _finetunes(config: RunConfig) -> bool:
    return any(rung.steps is not None or rung.epochs is not None for rung in parse_rungs(config.score))


def _measures_sensitivity(config: RunConfig) -> bool:
    return "sensitivity" in config.search.warm_starts


def _is_from_a_script(config: RunConfig) -> bool:
    return config.data.name is None and config.data.loaders is None


IDLE = (
    Idle(
        ("data.folder", "data.image_size", "data.seed"),
        _is_from_a_script,
        "a script brought the data: none are read here",
    ),
    Idle(
        ("data.folder",),
        lambda config: config.data.name == "digits",
        "the digits come with scikit-learn, from no folder",
    ),
    Idle(
        ("data.workers",),
        lambda config: config.data.name != "folder",
        'only data.name = "folder" is read by workers of ours',
    ),
    Idle(
        ("data.val_fraction", "data.checkpoint_saw_validation"),
        lambda config: _is_from_a_script(config) or is_separate(config.data),
        "the validation part is one of its own, no share of the training part",
    ),
    Idle(
        ("data.seed",),
        lambda config: config.data.name == "folder",
        "a folder has its parts already: nothing is drawn",
    ),
    Idle(
        ("data.augment",),
        lambda config: config.data.name is None,
        "loaders of your own give images as they are to be",
    ),
    Idle(
        ("latency",),
        lambda config: not asks_for_latency(config) and not measures_divisor(config),
        "nothing is timed: neither budget.latency, search.objectives nor "
        f'search.divisor = "{MEASURED}" asks for it',
    ),
    Idle(
        ("evolution",),
        lambda config: config.search.sampler != "evolution",
        'only the sampler "evolution" reads that: set search.sampler = "evolution"',
    ),
    Idle(
        ("supernet",),
        lambda config: not asks_for_supernet(config.score.rungs),
        'no supernet is trained: score.rungs does not begin with "supernet"',
    ),
    Idle(
        ("score.moment_images",),
        lambda config: not reads_moments(config),
        f'neither score.rungs names "{REPAIR}" nor search.warm_starts "reconstruction", and search.criterion '
        f"is none of {', '.join(BY_MOMENTS)}",
    ),
    Idle(
        ("search.workers", "search.cpus_per_trial"),
        lambda config: not find_engine(config.search.engine).parallel,
        'the engine "serial" runs one trial at a time: set search.engine = "processes"',
    ),
    Idle(
        ("search.gpus_per_trial", "search.address"),
        lambda config: config.search.engine != "ray",
        'only the engine "ray" reads that: set search.engine = "ray"',
    ),
    Idle(
        ("score.teacher", "score.learning_rate"),
        lambda config: not _finetunes(config),
        'no rung of score.rungs trains, such as "100 steps" would',
    ),
    Idle(
        ("finetune.distill_weight", "finetune.temperature"),
        lambda config: config.finetune.teacher == "none",
        'finetune.teacher is "none": nothing is distilled',
    ),
    Idle(
        ("search.pruner",),
        lambda config: find_pruner(config.search.pruner).prunes and len(config.score.rungs) == 1,
        "score.rungs has one rung: no trial can be pruned before another",
    ),
    Idle(
        ("search.sensitivity_evaluations", "search.sensitivity_images"),
        lambda config: not _measures_sensitivity(config),
        'search.warm_starts does not name "sensitivity"',
    ),
    Idle(
        ("search.sensitivity_batches",),
        lambda config: not _measures_sensitivity(config) and config.search.sampler != "kl",
        'neither search.warm_starts names "sensitivity" nor is search.sampler "kl"',
    ),
)
"""What is told; a key counts as set where it differs from its default."""

_DEFAULTS = RunConfig()


def tell_idle(config: RunConfig, watch: Watcher, only: Collection[str] | None = None) -> None:
    """Say which settings differ from their defaults and yet change nothing.

    Args:
        config: of the run, its names checked.
        watch: is told.
        only: the keys to look at, those that a resume was given; default all.
    """
    for idle in IDLE:
        keys = [key for key in idle.keys if only is None or key in only]
        changed = [key for key in keys if _value(config, key) != _value(_DEFAULTS, key)]
        if changed and idle.when(config):
            names = " and ".join(key if "." in key else f"[{key}]" for key in changed)
            watch(Stage(f"{names} {'is' if len(changed) == 1 else 'are'} set, but {idle.why}"))


def _value(config: RunConfig, key: str) -> Any:
    """Return a section of a config, or one of its values."""
    section, _, name = key.partition(".")
    content = getattr(config, section)
    return getattr(content, name) if name else content
