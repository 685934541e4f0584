"""Choose the number format and memory layout that train a model fastest on this machine.

Example:
    choice = fastest_setting(model, (inputs, targets), Task(), device="auto")
    choice.setting.label     # "bfloat16 channels_last"
    choice.milliseconds      # {"float32 contiguous": 101.2, ...}
"""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.data import Batch, head, seeded
from autoprune.errors import AutopruneError, ConfigError, TrialError, reason_of
from autoprune.execution import Setting, faults_of, fit_to_machine, resolve_device
from autoprune.support.structures import moved, samples_in
from autoprune.support.usercode import guarded
from autoprune.training.task import Task

LIMIT_S = 4.0
"""Seconds after which no further step is timed, once each remaining candidate has been timed."""

HOPELESS = 2.0
"""A candidate is dropped if one of its steps takes this many times as long as the fastest candidate's."""

HOPELESS_AT_FIRST = 4.0
"""The same for its very first step, on a part of the batch, which also sets up kernels and memory."""

SHORT_S = 0.05
"""A step of at most this many seconds is never hopeless, because timing it costs little."""

FIRST_SHARE = 8
"""The first step runs on 1/8 of the batch, because an emulated format may take 12 times as long."""


@dataclass(frozen=True)
class Choice:
    """The fastest setting.

    Attributes:
        setting: the fastest setting.
        milliseconds: {label: median milliseconds of a training step} of all timed candidates.
        left_out: {label: reason} of all other candidates.
    """

    setting: Setting
    milliseconds: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def step_ms(self) -> float:
        """Milliseconds of a training step under the fastest setting."""
        return self.milliseconds[self.setting.label]


@dataclass
class Candidate:
    """A setting to time.

    Attributes:
        family: the number format. If one candidate is hopeless at its first step, later ones of its family
            are dropped.
        first: runs a step on a part of the batch. It is called twice, as a warm-up and to be timed.
        step: runs a step on the whole batch.
        first_s: seconds of `first`.
        seconds: seconds of each `step`, of which the first one is a warm-up.
        dropped: the reason why the candidate was dropped, or "".
        slow: whether it was dropped only for its speed.
    """

    family: str
    first: Callable[[], object]
    step: Callable[[], object]
    first_s: float = math.inf
    seconds: list[float] = field(default_factory=list)
    dropped: str = ""
    slow: bool = False

    @property
    def median_s(self) -> float:
        """The median of the timed steps. The warm-up counts only if no other step was timed."""
        return statistics.median(self.seconds[1:] or self.seconds)


def fastest_setting(
    model: nn.Module,
    batch: Batch,
    task: Task,
    device: str = "auto",
    *,
    only: Setting | None = None,
    repeats: int = 5,
) -> Choice:
    """Time training steps in every number format and layout, interleaved, and choose the lowest median.

    The model and the global random states do not change. A candidate is left out if it computes wrong results
    on this machine, fails, has a loss that is not finite, or is far slower than others.

    Args:
        model: the model to train. Copies of it are timed.
        batch: (inputs, targets) of the batch size to train with.
        task: the task with the loss.
        device: "auto", or the name of a torch device.
        only: a single setting to time, or None to time all.
        repeats: maximum number of timed steps of each candidate. Slow candidates get fewer.

    Raises:
        ConfigError: if the device does not exist, or no candidate ran.
    """
    device = resolve_device(device)
    settings, faulty = _sound_settings(device) if only is None else ([fit_to_machine(only)], {})
    candidates: dict[Setting, Candidate] = {}
    failed: dict[str, str] = {}
    with seeded(0):
        for setting in settings:
            try:
                with guarded("no copy of the model", ConfigError):  # memory may not hold all copies
                    candidates[setting] = _candidate(model, batch, task, setting)
            except AutopruneError as error:
                failed[setting.label] = reason_of(error)
        race(list(candidates.values()), repeats=repeats)
    # Candidates that were tried come first: a user can act on their reasons, but not on a machine's faults.
    dropped = {setting.label: each.dropped for setting, each in candidates.items() if each.dropped}
    left_out = {**failed, **dropped, **faulty}
    timed = {setting: 1000 * each.median_s for setting, each in candidates.items() if not each.dropped}
    if not timed:
        reason = next(iter(left_out.values()))
        raise ConfigError(
            f"search.device: {device}: no setting runs a training step of the model here ({reason})."
        )
    best = min(timed, key=lambda setting: timed[setting])
    return Choice(best, {setting.label: value for setting, value in timed.items()}, left_out)


def race(
    candidates: Sequence[Candidate], *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Time candidates and drop those that cannot win as early as possible.

    Args:
        candidates: the candidates, which receive the times. The one expected to be fastest should come first.
        repeats: maximum number of timed steps of each candidate.
        clock: returns seconds.
    """
    end = clock() + LIMIT_S
    _take_first_steps(candidates, clock)
    for candidate in _left(candidates):
        candidate.seconds.append(_timed(candidate, candidate.step, clock))
    best = min((each.seconds[0] for each in _left(candidates)), default=math.inf)
    for candidate in _left(candidates):
        _drop_if_slow(candidate, candidate.seconds[0], HOPELESS * best)
    # A candidate that is left alone has won. It needs one step after the warm-up, for its time.
    for _ in range(repeats if len(_left(candidates)) > 1 else 1):
        if clock() > end:
            break
        for candidate in _left(candidates):
            candidate.seconds.append(_timed(candidate, candidate.step, clock))
    while not _left(candidates) and any(each.slow for each in candidates):
        # All faster candidates have failed since, so a slow one is better than none.
        candidate = min((each for each in candidates if each.slow), key=lambda each: each.first_s)
        candidate.slow, candidate.dropped = False, ""
        candidate.seconds.append(_timed(candidate, candidate.step, clock))


def _take_first_steps(candidates: Sequence[Candidate], clock: Callable[[], float]) -> None:
    """Run two steps on a part of the batch, a warm-up and a timed one, and drop hopeless candidates."""
    hopeless: set[str] = set()
    for candidate in candidates:
        if candidate.family in hopeless:
            candidate.dropped, candidate.slow = f"{candidate.family} is slow on this machine", True
            continue
        best = min((each.first_s for each in _left(candidates)), default=math.inf)
        candidate.first_s = _timed(candidate, candidate.first, clock)
        if _drop_if_slow(candidate, candidate.first_s, HOPELESS_AT_FIRST * best):
            hopeless.add(candidate.family)
        elif not candidate.dropped:
            candidate.first_s = _timed(candidate, candidate.first, clock)
            _drop_if_slow(candidate, candidate.first_s, HOPELESS * best)


def _left(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if not candidate.dropped]


def _timed(candidate: Candidate, run: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    try:
        with guarded("its step failed", ConfigError):  # a user's loss may support float32 only
            run()
    except AutopruneError as error:
        candidate.dropped = reason_of(error)
    return clock() - started


def _drop_if_slow(candidate: Candidate, seconds: float, most: float) -> bool:
    if candidate.dropped or seconds <= max(most, SHORT_S):
        return False
    candidate.dropped = f"a step takes {1000 * seconds:.0f} ms, far more than in other settings"
    candidate.slow = True
    return True


def _sound_settings(device: str) -> tuple[list[Setting], dict[str, str]]:
    """Return the settings to time, float32 first, and {label: fault} of the settings that are wrong here.

    If all settings are wrong, return those that are right with a detour.
    """
    formats = ["float32", "bfloat16", "float16"] if device.startswith("cuda") else ["float32", "bfloat16"]
    threads = torch.get_num_threads()
    settings = [Setting(device, dtype, last, threads) for dtype in formats for last in (False, True)]
    faults = faults_of(settings)
    sound = [setting for setting in settings if setting not in faults]
    if not sound:
        faults = faults_of([dataclasses.replace(setting, detour=True) for setting in settings])
        sound = [fit_to_machine(setting) for setting in settings if setting not in faults]
    return sound, {setting.label: f"goes wrong on this machine: {fault}" for setting, fault in faults.items()}


def _candidate(model: nn.Module, batch: Batch, task: Task, setting: Setting) -> Candidate:
    """Prepare training steps on a copy of the model."""
    trained = setting.place(copy.deepcopy(model)).train()
    batch = moved(batch, setting.device)

    def step(images: int) -> None:
        with setting.autocast():
            inputs, targets = head(batch, images)
            loss = task.step(trained, (setting.arrange(inputs), targets)).loss
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if setting.device.startswith("cuda"):
            torch.cuda.synchronize(setting.device)
        trained.zero_grad(set_to_none=True)  # all copies are in memory at once
        if not bool(torch.isfinite(loss)):
            raise TrialError(f"the loss is not finite in {setting.label}")

    images = samples_in(batch[0])
    few = max(2, images // FIRST_SHARE)  # BatchNorm cannot train on one image
    return Candidate(setting.dtype, lambda: step(few), lambda: step(images))
