"""User code that misbehaves, named as "tests.misbehaving:name" in a config, and a small net with its data."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

Batches = list[tuple[Any, Any]]


class OwnEnd(BaseException):
    """An exception that `except Exception` does not catch."""


class UnprintableError(Exception):
    """An exception that raises again when it is printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class UnprintableValue:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def leaves(*given: Any, **named: Any) -> Any:
    sys.exit(0)


def leaves_with_words(*given: Any, **named: Any) -> Any:
    sys.exit("bye")


def ends_generators(*given: Any, **named: Any) -> Any:
    raise GeneratorExit


def is_cancelled(*given: Any, **named: Any) -> Any:
    raise asyncio.CancelledError


def ends_its_own_way(*given: Any, **named: Any) -> Any:
    raise OwnEnd("enough")


def cannot_be_printed(*given: Any, **named: Any) -> Any:
    raise UnprintableError


def talks_long(*given: Any, **named: Any) -> Any:
    raise ValueError("line\n" * 200_000)


def controls_the_terminal(*given: Any, **named: Any) -> Any:
    raise ValueError("\x1b[2Jgone\x00\a")


async def waits(*given: Any, **named: Any) -> Any:
    return 1.0


def yields(*given: Any, **named: Any) -> Iterator[int]:
    yield 1


def gives_nothing(*given: Any, **named: Any) -> Any:
    return None


def gives_what_cannot_be_shown(*given: Any, **named: Any) -> Any:
    return UnprintableValue()


def only_by_keyword(*, something: Any) -> Any:
    return something


def stops(*given: Any, **named: Any) -> Any:
    raise StopIteration


ANYWHERE = {
    "leaves": "SystemExit: 0",
    "leaves_with_words": "SystemExit: bye",
    "ends_generators": "GeneratorExit",
    "is_cancelled": "CancelledError",
    "ends_its_own_way": "OwnEnd: enough",
    "cannot_be_printed": "UnprintableError",
    "talks_long": "ValueError: line line",
    "controls_the_terminal": "ValueError: ",
    "waits": "coroutine",
    "yields": "generator",
    "gives_nothing": "None",
    "gives_what_cannot_be_shown": "UnprintableValue",
    "only_by_keyword": "TypeError: only_by_keyword",
    "stops": "StopIteration",
}
"""Functions that misbehave wherever they are called, and words that their message holds."""


def net(classes: int = 3, in_channels: int = 1) -> nn.Module:
    """Return a small net that trains well."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 3, size: int = 4, seed: int = 0) -> Batches:
    return [(images(size, seed + i), (torch.arange(size) + i) % 3) for i in range(count)]


def parts() -> tuple[Batches, Batches]:
    return batches(), batches(2, seed=7)


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)
