"""Chooses the setting that trains a model the fastest on this machine, in a few steps of each candidate.

choice = fastest_setting(model, (inputs, targets), Task(), device="auto")
choice.setting.label, choice.milliseconds      # "bfloat16 channels_last", {"float32 contiguous": 101.2, ...}
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
from torch import Tensor, nn

from autoprune.data import seeded
from autoprune.errors import AutopruneError, ConfigError, TrialError, reason_of
from autoprune.execution import Setting, faults_of, fit_to_machine, resolve_device
from autoprune.support.usercode import forward, guarded
from autoprune.train.task import Task, batch_loss, main_output

LIMIT_S = 4.0
"""No further step is timed after so many seconds, once each candidate that can win has been timed."""

HOPELESS = 2.0
"""A candidate is dropped once a step of its takes more than so many times as long as the fastest one's."""

HOPELESS_AT_FIRST = 4.0
"""Likewise for its first step, on a part of the batch, which also prepares kernels and memory."""

SHORT_S = 0.05
"""A step that is no longer than this is never hopeless: timing it costs little, and noise may lengthen it."""

FIRST_SHARE = 8
"""The first step is on the batch's length divided by this: emulated formats take 12 times as long."""


@dataclass(frozen=True)
class Choice:
    """The fastest setting.

    Attributes:
        setting: the one to train with.
        milliseconds: {label: a training step} of all candidates that were timed.
        left_out: {label: why} of the others.
    """

    setting: Setting
    milliseconds: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def step_ms(self) -> float:
        """Milliseconds of a training step under the setting."""
        return self.milliseconds[self.setting.label]


@dataclass
class Candidate:
    """A way to train that can be timed.

    Attributes:
        family: once one member is hopeless at its first step, so are those after it.
        first: does a step on a part of the batch, once to prepare and once to time. It may raise an error.
        step: does a whole one.
        first_s: seconds of such a step.
        seconds: of the whole ones, the warm-up first.
        dropped: why it takes part no more, else "".
        slow: whether that is for its speed alone.
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
        """The median of the timed steps, without the warm-up unless there was no time for more."""
        return statistics.median(self.seconds[1:] or self.seconds)


def fastest_setting(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    task: Task,
    device: str = "auto",
    *,
    only: Setting | None = None,
    repeats: int = 5,
) -> Choice:
    """Time training steps in every number format and layout, interleaved, and choose by the median.

    The model is not changed, nor are the global random states. A candidate is left out if it goes wrong on
    this machine, fails, gives a loss that is not finite, or turns out to be hopelessly slow.

    Args:
        model: as it will be trained. Copies of it are timed.
        batch: (inputs [n, C, H, W], targets [n]) of the size to train with.
        task: for its loss.
        device: "auto", or torch's name of a device.
        only: the one setting to time.
        repeats: timed steps of a candidate, at most: fewer if they take long.

    Raises:
        ConfigError: no such device, or no candidate ran.
    """
    device = resolve_device(device)
    settings, faulty = _sound_settings(device) if only is None else ([fit_to_machine(only)], {})
    candidates: dict[Setting, Candidate] = {}
    failed: dict[str, str] = {}
    with seeded(0):
        for setting in settings:
            try:
                with guarded("no copy of the model", ConfigError):  # memory may not do for all of them
                    candidates[setting] = _candidate(model, batch, task, setting)
            except AutopruneError as error:
                failed[setting.label] = reason_of(error)
        race(list(candidates.values()), repeats=repeats)
    # Those that were tried come first: their reason is the user's, a fault of the machine is not.
    dropped = {setting.label: each.dropped for setting, each in candidates.items() if each.dropped}
    left_out = {**failed, **dropped, **faulty}
    timed = {setting: 1000 * each.median_s for setting, each in candidates.items() if not each.dropped}
    if not timed:
        reason = next(iter(left_out.values()))
        raise ConfigError(
            f"search.device: {device}: not one training step of the model runs here ({reason})."
        )
    best = min(timed, key=lambda setting: timed[setting])
    return Choice(best, {setting.label: value for setting, value in timed.items()}, left_out)


def race(
    candidates: Sequence[Candidate], *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Time candidates, and drop those that cannot win as soon as that is seen.

    Args:
        candidates: the one that is expected to be the fastest comes first. They receive the times.
        repeats: timed steps of each, at most.
        clock: gives seconds.
    """
    end = clock() + LIMIT_S
    _take_first_steps(candidates, clock)
    for candidate in _left(candidates):
        candidate.seconds.append(_timed(candidate, candidate.step, clock))
    best = min((each.seconds[0] for each in _left(candidates)), default=math.inf)
    for candidate in _left(candidates):
        _drop_if_slow(candidate, candidate.seconds[0], HOPELESS * best)
    for _ in range(repeats if len(_left(candidates)) > 1 else 1):
        if clock() > end:
            break
        for candidate in _left(candidates):
            candidate.seconds.append(_timed(candidate, candidate.step, clock))
    while not _left(candidates) and any(each.slow for each in candidates):
        # The faster ones have failed since.
        candidate = min((each for each in candidates if each.slow), key=lambda each: each.first_s)
        candidate.slow, candidate.dropped = False, ""
        candidate.seconds.append(_timed(candidate, candidate.step, clock))


def _take_first_steps(candidates: Sequence[Candidate], clock: Callable[[], float]) -> None:
    """Do steps on a part of the batch, once to prepare and once to time, and drop the hopeless."""
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
        with guarded("its step failed", ConfigError):  # the user's loss may know float32 alone
            run()
    except AutopruneError as error:
        candidate.dropped = reason_of(error)
    return clock() - started


def _drop_if_slow(candidate: Candidate, seconds: float, most: float) -> bool:
    if candidate.dropped or seconds <= max(most, SHORT_S):
        return False
    candidate.dropped = f"a step takes {1000 * seconds:.0f} ms, more than others by far"
    candidate.slow = True
    return True


def _sound_settings(device: str) -> tuple[list[Setting], dict[str, str]]:
    """Return the settings to time, float32 first, and {label: fault} of those that go wrong here.

    If all of them do, those are returned that are sound with a detour.
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


def _candidate(model: nn.Module, batch: tuple[Tensor, Tensor], task: Task, setting: Setting) -> Candidate:
    """Prepare training steps on a copy of the model."""
    trained = setting.place(copy.deepcopy(model)).train()
    inputs, targets = batch[0].to(setting.device), batch[1].to(setting.device)

    def step(images: int) -> None:
        with setting.autocast():
            outputs = main_output(forward(trained, setting.arrange(inputs[:images])))
            loss = batch_loss(task.loss, outputs, targets[:images])
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if setting.device.startswith("cuda"):
            torch.cuda.synchronize(setting.device)
        trained.zero_grad(set_to_none=True)  # as all copies lie in memory at once
        if not bool(torch.isfinite(loss)):
            raise TrialError(f"the loss is not finite in {setting.label}")

    few = max(2, len(inputs) // FIRST_SHARE)  # BatchNorm cannot train on one
    return Candidate(setting.dtype, lambda: step(few), lambda: step(len(inputs)))
