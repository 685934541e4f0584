"""The probe of a user's own function, named "package.module:function": (model, inputs) -> milliseconds.

Before: a model and example inputs; after: `timing` calls what this yields. The function receives a copy of
the model in eval mode and random inputs of the setting's batch (a tuple, or a dict of keyword inputs), both
on the setting's device, and returns how long one forward pass takes:

    def on_my_board(model, inputs):               # latency.probe = "mypkg.board:on_my_board"
        return board.run(convert(model), [tensor.numpy() for tensor in inputs]).milliseconds
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from autoprune.errors import LatencyError, shown_value
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, placed_copy, random_inputs
from autoprune.support.threads import cpu_threads
from autoprune.support.usercode import call_user, guarded


@contextlib.contextmanager
def user_function(
    measure: Callable[..., object], model: nn.Module, example_inputs: object, setting: LatencySetting
) -> Iterator[Timed]:
    """Make a copy of a model ready to be timed by a user's function.

    Raises:
        ConfigError: the setting's device is not there.
        LatencyError: later, the function fails or returns no milliseconds.
    """
    with cpu_threads(setting.threads):
        placed, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)

        def timed() -> float:
            where = f'latency.probe: "{setting.probe}"'
            with torch.no_grad():
                found = call_user(measure, where, LatencyError, placed, inputs)
            return checked_milliseconds(found, f"{where} returned")

        yield timed


def checked_milliseconds(found: object, where: str) -> float:
    """Return what a user's probe found as a number.

    Args:
        found: a number, or a text that holds nothing else.
        where: opens the message, up to the value.

    Raises:
        LatencyError: it is no positive number.
    """
    try:
        with guarded(where, LatencyError):  # a class of the user's may raise anything here
            milliseconds = float(found)  # type: ignore[arg-type]  # refused here if it cannot be converted
    except LatencyError:
        milliseconds = math.nan
    if not (0 < milliseconds < math.inf):
        raise LatencyError(
            f"{where} {shown_value(found)}, expected the milliseconds of one forward pass, e.g. 12.5."
        )
    return milliseconds
