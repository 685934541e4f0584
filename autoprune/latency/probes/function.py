"""The probe of a user's own function "package.module:function": (model, inputs) -> milliseconds.

The function receives a copy of the model in eval mode and random inputs of the setting's batch size, as a
tuple or a dict of keyword inputs. Both are on the setting's device. It returns the milliseconds of one
forward pass:

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

    The function that is yielded raises LatencyError if the user's function fails or returns no milliseconds.

    Raises:
        ConfigError: torch does not see the setting's device.
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
    """Convert the result of a user's function or command to milliseconds.

    Args:
        found: a number, or a text that holds only a number.
        where: beginning of the error message, before the value.

    Raises:
        LatencyError: the result is not a positive number.
    """
    try:
        with guarded(where, LatencyError):  # the conversion of a user's own class may raise anything
            milliseconds = float(found)  # type: ignore[arg-type]  # refused here if it cannot be converted
    except LatencyError:
        milliseconds = math.nan
    if not (0 < milliseconds < math.inf):
        raise LatencyError(
            f"{where} {shown_value(found)}, expected the milliseconds of one forward pass, e.g. 12.5."
        )
    return milliseconds
