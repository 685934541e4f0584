"""Channels chosen group after group: readers of the narrowed model, targets of the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import DataError
from autoprune.graph import Plan
from autoprune.graph.capture import call
from autoprune.rebuilding import narrow
from autoprune.reconstruction import Reader, choose_by_layers
from autoprune.reconstruction._calls import CallCounter
from autoprune.reconstruction._intercepts import normalised_by
from autoprune.reconstruction._layerwise import Choose, _Step
from autoprune.reconstruction._sequential import Targets, paired_branches
from tests.reconstruction.nets import Residual, images, traced, trained_like

ALL = 10**6


def first(readers: list[Reader], width: int, kept: int) -> NDArray[np.int64]:
    return np.arange(kept)


def noting(seen: list[Reader]) -> Choose:
    """Return a choice of the first channels that adds the readers to a list."""

    def choose(readers: list[Reader], width: int, kept: int) -> NDArray[np.int64]:
        seen.extend(readers)
        return first(readers, width, kept)

    return choose


def patches(inputs: Tensor) -> Tensor:
    """Return all 3 x 3 patches [rows, channels x 9], centred."""
    rows = functional.unfold(inputs, 3, padding=1).transpose(1, 2).reshape(-1, 9 * inputs.shape[1])
    return rows - rows.mean(dim=0)


@torch.no_grad()
def test_the_end_of_a_branch_aims_at_the_sum_less_the_shortcut_of_the_narrowed_model() -> None:
    prunable = traced(trained_like(Residual()))
    dense, inputs = prunable.model, (images(),)
    assert isinstance(dense, Residual)
    small = narrow(dense, {}).eval()
    branches, _ = paired_branches(dense, small, inputs)
    targets = Targets(branches, ALL, torch.Generator())
    with CallCounter(targets.before, targets.after):
        call(dense, inputs)
    step = _Step(prunable, targets, inputs, normalised_by(prunable), None)
    small, plan = step.cut(small, Plan({}), prunable.group("stem.0"), 3, first)
    seen: list[Reader] = []
    assert isinstance(small, Residual)
    shortcut = torch.relu(small.stem(*inputs))
    hidden = torch.relu(small.first(shortcut))
    stem = torch.relu(dense.stem(*inputs))
    summed = dense.second(torch.relu(dense.first(stem))) + stem
    aims = (summed[:, :3] - shortcut).flatten(2).transpose(1, 2).reshape(-1, 3)
    expected = (aims - aims.mean(dim=0)).T @ patches(hidden) / len(aims)
    small, plan = step.cut(small, plan, prunable.group("first.0"), 2, noting(seen))
    (reader,) = seen
    assert reader.target is not None
    torch.testing.assert_close(reader.target, expected)
    torch.testing.assert_close(reader.moment, patches(hidden).T @ patches(hidden) / len(aims))
    assert plan.widths == {"stem.0": 3, "first.0": 2}
    assert small.get_parameter("first.0.weight").shape == (2, 3, 3, 3)


def test_groups_go_in_the_order_of_execution_and_report_it() -> None:
    prunable = traced(trained_like(Residual()))
    done: list[tuple[int, int]] = []
    widths: list[int] = []

    def choose(readers: list[Reader], width: int, kept: int) -> NDArray[np.int64]:
        widths.append(kept)
        return first(readers, width, kept)

    plan = choose_by_layers(
        prunable, {"first.0": 2, "stem.0": 4}, [images()], choose, done=lambda *each: done.append(each)
    )
    assert widths == [4, 2]
    assert done == [(1, 2), (2, 2)]
    assert plan.widths == {"stem.0": 4, "first.0": 2}


def test_no_images_are_one_line() -> None:
    with pytest.raises(DataError, match="the data gave no images"):
        choose_by_layers(traced(trained_like(Residual())), {"first.0": 2}, [], first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gets_the_readers_that_the_cpu_gets() -> None:
    found: dict[str, list[Reader]] = {"cpu": [], "cuda": []}
    for device, seen in found.items():
        prunable = traced(trained_like(Residual()))
        prunable.model.to(device)
        choose_by_layers(prunable, {"stem.0": 4, "first.0": 2}, [images()], noting(seen), positions=ALL)
    for one, other in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(one.moment, other.moment, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(one.target, other.target, rtol=1e-6, atol=1e-8)
