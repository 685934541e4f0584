"""The checks of one model: tracing, proofs, costs and runs, each a function of a prunable.

`run` calls them for every entry of MODELS and writes a row, the tests for some:

    prove(prunable, 0, crossing=False)   # Proof(difference=2.2e-15, predicted=(900, 70), counted=(900, 70))
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from autoprune.criteria import make_plan
from autoprune.graph import ChannelGroup, Plan, Prunable
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import Proof as Verdict
from experiments.coverage.models import Entry

_LAYER = re.compile(r"[\w.]+(?= \()")
"""The name of a layer in a reason: the words before the operator in brackets."""

RATIO = 0.5
"""The keep ratio of every free group of the model that is trained and run at other sizes."""


class CheckError(AssertionError):
    """A model contradicts a claim of the experiment."""


@dataclass(frozen=True)
class Proof:
    """What one random plan gave.

    Attributes:
        difference: the result of `verify`, or None on the meta device, where nothing is computed.
        predicted: MACs and parameters by the formula.
        counted: MACs and parameters of the rebuilt model.
    """

    difference: Verdict | None
    predicted: tuple[object, object]
    counted: tuple[object, object]


def disturb(model: nn.Module) -> None:
    """Give the dense model a mixed mode, a hook and a frozen parameter, so that losing them would show."""
    model.train()
    modules = list(model.modules())
    modules[-1].eval()
    modules[-1].register_forward_hook(_no_change)
    next(model.parameters()).requires_grad_(False)


def age(model: nn.Module, seed: int) -> int:
    """Give running statistics and scales, in place, a trained spread. Return how many layers have some.

    Variances are log-normal over five orders of magnitude, means lie a deviation from 0, and a third of the
    scales are near 0.
    """
    generator = torch.Generator().manual_seed(seed)
    aged = 0
    for module in model.modules():
        tensors = dict(module.named_buffers(recurse=False))
        variance, mean = tensors.get("running_var"), tensors.get("running_mean")
        if variance is None or mean is None or variance.is_meta:
            continue
        aged += 1
        draws = torch.randn(4, *variance.shape, generator=generator)
        with torch.no_grad():
            variance.copy_(torch.exp(2.5 * draws[0] - 4))
            mean.copy_(draws[1] * variance.sqrt())
            if isinstance(module.weight, Tensor):
                module.weight.copy_(torch.where(draws[2] < -0.43, 1e-3 * draws[3], 1 + 0.3 * draws[3]))
    return aged


def _no_change(module: nn.Module, inputs: object, output: object) -> None:
    """Be a hook that does nothing."""


def snapshot(model: nn.Module) -> dict[str, object]:
    """Note all that tracing, rebuilding and proving must leave as it is, random states included."""
    noted: dict[str, object] = {"random state": torch.get_rng_state()}
    for path, module in model.named_modules():
        noted[f"{path}: mode"] = module.training
        noted[f"{path}: attributes"] = sorted(module.__dict__)
        noted[f"{path}: hooks"] = [list(module._forward_hooks), list(module._forward_pre_hooks)]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        noted[f"{name}: requires_grad"] = (parameter.requires_grad, parameter.grad is None)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        noted[f"{name}: identity"] = id(tensor)
        if not tensor.is_meta:
            noted[f"{name}: values"] = tensor.detach().clone()
    return noted


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the names of the values that differ between two snapshots."""
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(), second.nan_to_num())
    return first == second


def random_plan(prunable: Prunable, seed: int, *, crossing: bool) -> Plan:
    """Keep a random part of each free group, at least one channel.

    Groups that cross a normalisation are cut only if `crossing`.
    """
    rng = np.random.default_rng(seed)
    return Plan(
        {
            group.name: rng.permutation(group.width)[: rng.integers(1, group.width + 1)]
            for group in prunable.searchable
            if crossing or group.crosses is None
        }
    )


def prove(prunable: Prunable, seed: int, *, crossing: bool) -> Proof:
    """Rebuild a random plan, compare it with the reference, and its costs with the counted ones."""
    plan = random_plan(prunable, seed, crossing=crossing)
    small = rebuild(prunable, plan)
    on_meta = any(parameter.is_meta for parameter in prunable.model.parameters())
    difference = None if on_meta else verify(prunable, plan, small, seed=seed)
    cost = prunable.cost(plan.widths)
    return Proof(difference, (cost.macs, cost.params), counted(small, prunable))


def counted(model: nn.Module, prunable: Prunable) -> tuple[int, int]:
    """Return (MACs, parameters) of a model at batch 1, counted by torch on the meta device. It ends there."""
    params = sum(parameter.numel() for parameter in model.parameters())
    # Without gradients: the counter hangs hooks on parameters that are passed between modules.
    model.to("meta").eval().requires_grad_(False)
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), prunable.example_inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model(*inputs)
    return counter.get_total_flops() // 2, params


def half(prunable: Prunable) -> nn.Module:
    """Rebuild the model with half of every free group."""
    return rebuild(prunable, make_plan(prunable, RATIO, criterion="random", seed=0))


def check_training(entry: Entry, dense: nn.Module, small: nn.Module) -> str:
    """Run forward and backward in train mode at batch 2, and return "ok".

    Raises:
        CheckError: a value is not finite, or a parameter has no gradient that has one in the dense model.
    """
    reached = _with_gradient(entry, dense)
    lost = sorted(reached - _with_gradient(entry, small))
    if lost:
        raise CheckError(f"{len(lost)} parameters get no gradient that get one in the dense model: {lost[0]}")
    for name, parameter in small.named_parameters():
        if parameter.grad is not None and not parameter.is_meta and not parameter.grad.isfinite().all():
            raise CheckError(f"{name}: its gradient is not finite")
    return "ok"


def _with_gradient(entry: Entry, model: nn.Module) -> set[str]:
    model.train()
    with torch.device("meta" if entry.meta else "cpu"):
        loss = torch.stack([leaf.square().mean() for leaf in _leaves(model(entry.inputs(2)))]).sum()
        torch.autograd.backward(loss)
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_evaluation(entry: Entry, dense: nn.Module, small: nn.Module) -> str:
    """Run in eval mode at batch 3, and return "ok".

    Raises:
        CheckError: an output is not finite, or has another shape than the dense model's.
    """
    _compare(dense, small, entry, entry.shape)
    return "ok"


def check_other_size(entry: Entry, dense: nn.Module, small: nn.Module) -> str:
    """Run in eval mode on a larger image, and return "ok", or that the dense model refuses it.

    Raises:
        CheckError: an output is not finite, or has another shape than the dense model's.
    """
    try:
        _shapes(dense, entry, entry.other)
    except Exception:  # whatever a model raises at a size that it is not made for
        return "refused by the dense model"
    _compare(dense, small, entry, entry.other)
    return "ok"


def _compare(dense: nn.Module, small: nn.Module, entry: Entry, shape: tuple[int, ...]) -> None:
    expected, got = _shapes(dense, entry, shape), _shapes(small, entry, shape)
    if got != expected:
        raise CheckError(f"at {list(shape)} its outputs have shapes {got}, the dense model's {expected}")


def _shapes(model: nn.Module, entry: Entry, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    model.eval()
    with torch.no_grad(), torch.device("meta" if entry.meta else "cpu"):
        outputs = _leaves(model(entry.inputs(3, shape)))
    if not all(leaf.is_meta or leaf.isfinite().all() for leaf in outputs):
        raise CheckError(f"at {list(shape)} {type(model).__name__} gives outputs that are not finite")
    return [tuple(leaf.shape) for leaf in outputs]


def _leaves(outputs: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def channels(groups: Iterable[ChannelGroup]) -> int:
    """Return how many channels the groups hold."""
    return sum(group.width for group in groups)


def frozen_reasons(prunable: Prunable) -> list[str]:
    """Return "CHANNELS: LAYER (OPERATOR): WHY [+N alike]", joining reasons that differ only in the layers."""
    counts: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for group in prunable.groups:
        reason = _reason(group)
        if reason is not None:
            kind = _LAYER.sub("", reason)
            counts[kind] = counts.get(kind, 0) + group.width
            if reason not in reasons.setdefault(kind, []):
                reasons[kind].append(reason)
    lines = []
    for kind in sorted(counts, key=lambda kind: -counts[kind]):
        first, *more = reasons[kind]
        lines.append(f"{counts[kind]}: {first}" + (f" [+{len(more)} alike]" if more else ""))
    return lines


def _reason(group: ChannelGroup) -> str | None:
    if group.frozen is None and group.width == 1:
        return f"{group.name} (width 1): a group of one channel"
    return group.frozen


def touched_shares(prunable: Prunable) -> tuple[float, float]:
    """Return the shares of MACs and of parameters in operators that a free group touches."""
    free = [prunable.position[group.name] for group in prunable.searchable]
    macs, params = prunable.formula.carried(*free)
    dense = prunable.cost()
    return macs / int(dense.macs or 1), params / int(dense.params or 1)


def smallest_macs(prunable: Prunable) -> float:
    """Return the share of the MACs that is left with one channel of every free group."""
    smallest = prunable.cost(dict.fromkeys((group.name for group in prunable.searchable), 1))
    return _ratio(smallest.macs, prunable.cost().macs)


def _ratio(part: object, whole: object) -> float:
    return float(np.asarray(part) / np.asarray(whole)) if whole else 1.0


def largest(proofs: Sequence[Proof]) -> float | None:
    """Return the largest difference among proofs, or None if none was computed."""
    return max((proof.difference for proof in proofs if proof.difference is not None), default=None)


class _Collector(logging.Handler):
    """Put the messages of warnings into a list."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Put one message in."""
        self._heard.append(record.getMessage())


@contextmanager
def warnings_of(logger: str) -> Iterator[list[str]]:
    """Collect the warnings that a logger and those below it give."""
    heard: list[str] = []
    handler = _Collector(heard)
    logging.getLogger(logger).addHandler(handler)
    try:
        yield heard
    finally:
        logging.getLogger(logger).removeHandler(handler)
