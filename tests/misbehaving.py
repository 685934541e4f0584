"""User code that misbehaves, named as "tests.misbehaving:name" in a config, and a small net with its data."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
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


def net(classes: int = 3, in_channels: int = 1) -> nn.Sequential:
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


class Net(nn.Module):
    """The small net, whose forward pass does something before or after."""

    def __init__(
        self,
        before: Callable[[nn.Module, Tensor], Any] | None = None,
        after: Callable[[Tensor], Any] | None = None,
    ) -> None:
        super().__init__()
        self.body = net()
        self.before, self.after = before, after

    def forward(self, inputs: Tensor) -> Any:
        if self.before is not None:
            self.before(self, inputs)
        outputs = self.body(inputs)
        return outputs if self.after is None else self.after(outputs)


def _if_training(module: nn.Module, inputs: Tensor) -> None:
    if module.training:
        sys.exit(0)


def _if_evaluated(module: nn.Module, inputs: Tensor) -> None:
    if not module.training:
        raise RuntimeError("made for training only")


def leaves_in_forward() -> nn.Module:
    return Net(before=leaves)


def leaves_in_training() -> nn.Module:
    return Net(before=_if_training)


def only_trains() -> nn.Module:
    return Net(before=_if_evaluated)


def waits_in_forward() -> nn.Module:
    return Net(after=waits)


def gives_nan() -> nn.Module:
    return Net(after=lambda outputs: outputs * float("nan"))


def gives_integers() -> nn.Module:
    return Net(after=lambda outputs: outputs.long())


def gives_complex() -> nn.Module:
    return Net(after=lambda outputs: outputs.to(torch.complex64))


def gives_an_empty_tuple() -> nn.Module:
    return Net(after=lambda outputs: ())


def gives_no_batch() -> nn.Module:
    return Net(after=lambda outputs: outputs.mean())


def without_gradient() -> nn.Module:
    return Net(after=lambda outputs: outputs.detach())


def without_parameters() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def wholly_frozen() -> nn.Module:
    return net().requires_grad_(False)


def of_integers() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    made[1].weight = nn.Parameter(torch.ones(3, 64, dtype=torch.int64), requires_grad=False)
    return made


def in_double() -> nn.Module:
    return net().double()


def lazy() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )


def on_meta() -> nn.Module:
    return net().to("meta")


def with_nan_weights() -> nn.Module:
    made = net()
    nn.init.constant_(next(made.parameters()), float("nan"))
    return made


def with_a_hook_that_leaves() -> nn.Module:
    made = net()
    made[0].register_forward_hook(leaves)
    return made


def with_a_backward_hook_that_leaves() -> nn.Module:
    made = net()
    made[0].register_full_backward_hook(leaves)
    return made


def with_a_state_dict_that_leaves() -> nn.Module:
    made = Net()
    made.state_dict = leaves  # type: ignore[method-assign]  # it misbehaves
    return made


class CannotBeCopied(Net):
    """A module that ends the process when it is copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        sys.exit(0)


def cannot_be_copied() -> nn.Module:
    return CannotBeCopied()


def the_class_itself() -> Any:
    return Net


MODELS = {
    "leaves_in_forward": "model: its forward pass failed on inputs (1, 1, 8, 8): SystemExit: 0",
    "leaves_in_training": "model: its forward pass failed in training mode on inputs (4, 1, 8, 8): Syst",
    "only_trains": "RuntimeError: made for training only",
    "waits_in_forward": "coroutine",
    "gives_nan": 'task.loss: "autoprune.task:cross_entropy" is nan on the first validation batch',
    "gives_integers": "model: its output for one image is (1, 3) of torch.int64, expected logits",
    "gives_complex": "model: its output for one image is (1, 3) of torch.complex64, expected logits",
    "gives_an_empty_tuple": "model: its output is a tuple, expected a tensor of logits",
    "gives_no_batch": "model: its output for one image is () of torch.float32",
    "without_gradient": "model: no gradient of its outputs reaches its parameters",
    "without_parameters": "model: Sequential has no parameters, so there is nothing to prune",
    "wholly_frozen": "model: it has no parameter that a training changes",
    "of_integers": "model: its forward pass failed on inputs (1, 1, 8, 8): RuntimeError",
    "in_double": "model: its forward pass failed on inputs (1, 1, 8, 8): RuntimeError",
    "lazy": "model: 0.weight is lazy, it has no shape yet",
    "on_meta": "model: 0.weight is on the meta device, it has no values",
    "with_nan_weights": 'task.loss: "autoprune.task:cross_entropy" is nan on the first validation batch',
    "with_a_hook_that_leaves": "model: its forward pass failed on inputs (1, 1, 8, 8): SystemExit: 0",
    "with_a_backward_hook_that_leaves": "model: its backward pass failed on inputs (4, 1, 8, 8): System",
    "with_a_state_dict_that_leaves": "search: code of the model, the data or the task raised SystemExit: 0",
    "cannot_be_copied": "model: CannotBeCopied cannot be copied: SystemExit: 0",
    "the_class_itself": "returned a type, expected a torch.nn.Module",
}
"""Factories of models that misbehave, and words of the message that a search ends with."""
