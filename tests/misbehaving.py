"""User code that misbehaves, named as "tests.misbehaving:name" in a config, and a small net with its data."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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


def _if_narrowed_and_training(module: nn.Module, inputs: Tensor) -> None:
    is_narrowed = module.get_submodule("body.0").out_channels != 8
    if module.training and is_narrowed and not inputs.is_meta:  # the check of shapes runs on the meta device
        sys.exit(0)


def leaves_once_it_is_narrowed() -> nn.Module:
    return Net(before=_if_narrowed_and_training)


def is_interrupted() -> nn.Module:
    raise KeyboardInterrupt


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
    "gives_nan": 'task.loss: "cross_entropy" is nan on the first validation batch',
    "gives_integers": "model: its output for one image is (1, 3) of torch.int64, expected logits",
    "gives_complex": "model: its output for one image is (1, 3) of torch.complex64, expected logits",
    "gives_an_empty_tuple": "model: its output is a tuple, expected a tensor of logits",
    "gives_no_batch": "model: its output for one image is () of torch.float32",
    "without_gradient": "model: no gradient of its outputs reaches its parameters",
    "without_parameters": "model: Sequential has no parameters, so there is nothing to prune",
    "wholly_frozen": "model: no parameter of it requires a gradient",
    "of_integers": "model: its forward pass failed on inputs (1, 1, 8, 8): RuntimeError",
    "in_double": "model: its forward pass failed on inputs (1, 1, 8, 8): RuntimeError",
    "lazy": "model: 0.weight is lazy and has no shape yet",
    "on_meta": "model: 0.weight is on the meta device and has no values",
    "with_nan_weights": 'task.loss: "cross_entropy" is nan on the first validation batch',
    "with_a_hook_that_leaves": "model: its forward pass failed on inputs (1, 1, 8, 8): SystemExit: 0",
    "with_a_backward_hook_that_leaves": "model: its backward pass failed on inputs (4, 1, 8, 8): System",
    "with_a_state_dict_that_leaves": "search: code of the model, the data or the task raised SystemExit: 0",
    "cannot_be_copied": "model: CannotBeCopied cannot be copied: SystemExit: 0",
    "the_class_itself": "returned a type, expected a torch.nn.Module",
}
"""Factories of models that misbehave, and words of the message that a search ends with."""


class Once:
    """A loader that can be read only once although it has a length."""

    def __init__(self, source: Batches) -> None:
        self.left = iter(source)
        self.length = len(source)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return self.left


class Endless:
    """A loader without an end, with or without a length."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.cycle(batches())


class EndlessWithLength(Endless):
    """One that says how long it is, wrongly."""

    def __len__(self) -> int:
        return 2


class Short(list[Any]):
    """A loader that says that it is longer than it is."""

    def __len__(self) -> int:
        return 9


class LeavesInLength(list[Any]):
    """A loader that ends the process when its length is read."""

    def __len__(self) -> int:
        sys.exit(0)


class BreaksOff:
    """A loader that works when it is looked through, and ends the process later."""

    def __init__(self, readings: int) -> None:
        self.readings = readings

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        self.readings -= 1
        yield batches()[0]
        if self.readings <= 0:
            sys.exit(0)
        yield from batches()[1:]


def read_once() -> Any:
    return Once(batches()), batches(2)


def validation_read_once() -> Any:
    return batches(), Once(batches(2))


def endless_validation() -> Any:
    return batches(), Endless()


def endless_validation_with_length() -> Any:
    return batches(), EndlessWithLength()


def endless_test() -> Any:
    return batches(), batches(2), EndlessWithLength()


def endless_training() -> Any:
    return Endless(), batches(2)


def shorter_than_said() -> Any:
    return Short(batches()), batches(2)


def leaves_in_length() -> Any:
    return LeavesInLength(batches()), batches(2)


def empty_training() -> Any:
    return [], batches(2)


def breaks_off() -> Any:
    return BreaksOff(4), batches(2)


def sizes_differ() -> Any:
    odd = [(torch.zeros(2, 1, 9, 9), torch.zeros(2, dtype=torch.int64))]
    return batches() + odd, batches(2)


def too_few_targets() -> Any:
    return [*batches(), (images(4), torch.zeros(3, dtype=torch.int64))], batches(2)


def bytes_for_images() -> Any:
    return [((inputs * 255).byte(), targets) for inputs, targets in batches()], batches(2)


def doubles_for_images() -> Any:
    return [(inputs.double(), targets) for inputs, targets in batches()], batches(2)


def nan_in_images() -> Any:
    return batches(), [(inputs / 0 * 0, targets) for inputs, targets in batches(2)]


def sparse_images() -> Any:
    return [(inputs.to_sparse(), targets) for inputs, targets in batches()], batches(2)


def meta_images() -> Any:
    return [(inputs.to("meta"), targets) for inputs, targets in batches()], batches(2)


def complex_targets() -> Any:
    return [(inputs, targets.to(torch.complex64)) for inputs, targets in batches()], batches(2)


def float_targets() -> Any:
    return [[(inputs, targets.float()) for inputs, targets in batches()]] * 2


def bool_targets() -> Any:
    return [[(inputs, targets > 0) for inputs, targets in batches()]] * 2


def huge_labels() -> Any:
    return [(inputs, targets * 10**12) for inputs, targets in batches()], batches(2)


def labels_out_of_range() -> Any:
    return {
        "train": [(inputs, targets + 1) for inputs, targets in batches()],
        "val": batches(2),
        "classes": 3,
    }


def wrong_names() -> Any:
    return {"train": batches(), "valid": batches(2)}


def names_that_are_no_words() -> Any:
    return {0: batches(), UnprintableValue(): batches(2)}


def a_data_set_for_a_loader() -> Any:
    return TensorDataset(images(4), torch.zeros(4)), batches(2)


def a_string_for_a_loader() -> Any:
    return "train", "val"


class Dies(TensorDataset):
    """A data set whose worker process dies."""

    def __getitem__(self, index: int) -> Any:
        os._exit(3)


class Leaves(TensorDataset):
    """A data set that calls sys.exit in its worker process."""

    def __getitem__(self, index: int) -> Any:
        sys.exit(0)


class Raises(TensorDataset):
    """A data set that raises an exception of several lines in its worker process."""

    def __getitem__(self, index: int) -> Any:
        raise ValueError("first line\n  second line\nthird line")


def of_workers(kind: type[TensorDataset]) -> Any:
    return batches(), DataLoader(kind(images(4), torch.zeros(4)), batch_size=2, num_workers=1)


def worker_dies() -> Any:
    return of_workers(Dies)


def worker_leaves() -> Any:
    return of_workers(Leaves)


def worker_raises() -> Any:
    return of_workers(Raises)


def only_seed(seed: int) -> Any:
    assert seed == 0
    return parts()


def by_position(batch_size: int, /) -> Any:
    assert batch_size > 0
    return parts()


def needs_more(path: str) -> Any:
    return parts()


DATA = {
    "read_once": "train: a Once can be read only once: it yielded no batch when it was read again",
    "validation_read_once": "val: a Once can be read only once",
    "endless_validation": "val: an Endless without a length. Give it a __len__",
    "endless_validation_with_length": "val: expected 2 batches by its length, got more",
    "endless_training": "train: an Endless without a length",
    "shorter_than_said": "train: got 3 batches, expected 9 by its length. Correct its __len__",
    "leaves_in_length": "train: its length cannot be read: SystemExit: 0",
    "empty_training": "train: the part is empty",
    "breaks_off": "train: reading a batch failed: SystemExit: 0",
    "sizes_differ": "train: images of batch 3 are (1, 9, 9), expected (1, 8, 8) as in earlier batches",
    "too_few_targets": "train: got a batch of inputs (4, 1, 8, 8) and targets (3,)",
    "bytes_for_images": "train: inputs are torch.uint8, expected normalised torch.float32 images",
    "doubles_for_images": "train: inputs are torch.float64",
    "nan_in_images": "val: the inputs have NaN or infinite values",
    "sparse_images": "train: inputs have the layout torch.sparse_coo",
    "meta_images": "train: a batch cannot be moved to cpu: NotImplementedError",
    "complex_targets": "train: targets are torch.complex64",
    "float_targets": 'task.loss: "cross_entropy" failed on outputs (4, 1) and targets (4,)',
    "bool_targets": 'task.loss: "cross_entropy" failed on outputs (4, 2) and targets (4,)',
    "huge_labels": "train: got label 2000000000000, expected class numbers below 10,000,000",
    "labels_out_of_range": "train: got label 3, expected 0 to 2",
    "wrong_names": "got a dict with the keys 'train', 'valid', expected (train, val)",
    "names_that_are_no_words": "got a dict with the keys 0, <UnprintableValue instance at",
    "a_data_set_for_a_loader": "train: got a TensorDataset, expected a DataLoader",
    "a_string_for_a_loader": "train: a loader yielded a str, expected (inputs, targets) with tensors",
    "needs_more": "TypeError: needs_more() missing 1 required positional argument",
}
"""Functions of loaders that misbehave, and words of the message that a training ends with."""

WORKERS = {
    "worker_dies": "val: reading a batch failed: RuntimeError: DataLoader worker (pid(s) ",
    "worker_leaves": "val: reading a batch failed: RuntimeError: DataLoader worker (pid(s) ",
    "worker_raises": "val: reading a batch failed: ValueError: first line second line third line",
}
"""Likewise, of loaders whose worker processes misbehave: torch waits 5 seconds for one that died."""
