"""Batches of any structure."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from typing import Any

import pytest
import torch

from autoprune.support.structures import call_on, described, mapped, moved, samples_in

ROWS = torch.ones(4, 2)


def shown(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs", "samples", "text"),
    [
        (ROWS, (ROWS,), {}, 4, "(4, 2)"),
        ((ROWS, 3), (ROWS, 3), {}, 4, "[(4, 2), int]"),
        ([ROWS, ROWS], (ROWS, ROWS), {}, 4, "[(4, 2), (4, 2)]"),
        (([ROWS] * 5,), ([ROWS] * 5,), {}, 5, "[[(4, 2), (4, 2), (4, 2), ...]]"),
        (OrderedDict(a=ROWS), (), {"a": ROWS}, 4, "{a: (4, 2)}"),
        (UserDict(a={"b": ROWS}), (), {"a": {"b": ROWS}}, 4, "{a: {b: (4, 2)}}"),
        (torch.tensor(1.0), (torch.tensor(1.0),), {}, 1, "()"),
    ],
)
def test_inputs_are_the_arguments_of_a_model(
    inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any], samples: int, text: str
) -> None:
    assert call_on(shown, inputs) == (args, kwargs) or inputs is ROWS
    assert samples_in(inputs) == samples
    assert described(inputs) == text


def test_tensors_change_and_everything_else_stays() -> None:
    batch = {"images": [ROWS, ROWS], "names": ["a", "b"]}
    doubled = mapped(lambda tensor: tensor * 2, batch)
    assert torch.equal(doubled["images"][1], ROWS * 2)
    assert doubled["names"] == ["a", "b"]
    assert moved(UserDict(a=ROWS), "meta")["a"].is_meta
