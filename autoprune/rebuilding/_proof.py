"""Prove a rebuild: compare the small model with the dense one whose dropped channels are set to zero.

Example:
    proof = verify(prunable, plan, small)
    print(proof)              # exact: the largest relative difference is 1.2e-15
    assert proof.right        # a wrong cut differs by about 1
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import VerificationError
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import ExampleInputs, call, first_names, named_tensors, unchanged
from autoprune.graph.positions import KeepPositions
from autoprune.rebuilding._masked import InDouble, MaskedReference
from autoprune.rebuilding._rebuilder import clone_structure, keep_positions, rebuild
from autoprune.support.usercode import entry, guarded

TOLERANCE = 1e-9
"""Largest relative difference in float64 of a correct rebuild that crosses no normalisation."""

_NAMED = 3
"""Number of groups that a verdict names."""


class Proof(float):
    """The largest relative difference between a rebuilt model and its reference, printed with a verdict.

    Args:
        difference: max |small - reference| / max |reference|, over all outputs.
        crossing: names of the narrowed groups that cross a normalisation over channels. Narrowing such a
            group changes the function by design.
        kept_whole: the difference with these groups kept whole. It is not used if there are none.
    """

    difference: float
    crossing: tuple[str, ...]
    kept_whole: float

    def __new__(cls, difference: float, crossing: Sequence[str] = (), kept_whole: float = math.nan) -> Proof:
        """Make a proof from its numbers."""
        proof = super().__new__(cls, difference)
        proof.difference = float(difference)
        proof.crossing = tuple(crossing)
        proof.kept_whole = float(kept_whole) if proof.crossing else proof.difference
        return proof

    def __getnewargs__(self) -> tuple[float, tuple[str, ...], float]:  # type: ignore[override]  # more than float's
        """Return the arguments from which `copy` and `pickle` make the proof again."""
        return self.difference, self.crossing, self.kept_whole

    @property
    def right(self) -> bool:
        """Whether the rebuild is correct: exact, except for groups that cross a normalisation."""
        return self.kept_whole <= TOLERANCE

    @property
    def verdict(self) -> str:
        """Either "exact", "exact except for N groups that cross a normalisation", or "wrong"."""
        if not self.right:
            return "wrong"
        count = len(self.crossing)
        if not count:
            return "exact"
        groups = "1 group that crosses" if count == 1 else f"{count} groups that cross"
        return f"exact except for {groups} a normalisation"

    def __str__(self) -> str:
        """Return the verdict with its numbers in one line."""
        if not self.crossing:
            number = f"the largest relative difference is {self.difference:.1e}"
            return f"{self.verdict}: {number}" + ("" if self.right else f", expected at most {TOLERANCE:.0e}")
        more = len(self.crossing) - _NAMED
        names = ", ".join(self.crossing[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        whole = f"the largest relative difference is {self.kept_whole:.1e} with {names} kept whole"
        if not self.right:
            return f"{self.verdict}: {whole}, expected at most {TOLERANCE:.0e}"
        return f"{self.verdict}: {whole}, {self.difference:.1e} with all narrowed"

    def __repr__(self) -> str:
        """Return the verdict with its numbers in angle brackets."""
        return f"<{self}>"


@entry(VerificationError, prunable=Prunable, plan=Plan, small=nn.Module)
def verify(prunable: Prunable, plan: Plan, small: nn.Module, *, seed: int = 0) -> Proof:
    """Compare a rebuilt model with the dense one whose dropped channels and branches are set to zero.

    Both models run in float64 on a random input. Untrained heads and layers initialised to zero would hide
    errors. So the dense model gets random parameters and buffers in place of its own, and the small model the
    slices of them that the plan names. Running statistics are those of the random model's activations, so
    that neither outputs nor rounding errors grow from layer to layer.

    Narrowing a group that crosses a normalisation over channels changes the function by design. If the plan
    narrows such groups, the proof has two more parts. A rebuild that keeps these groups whole must equal its
    reference. And `small` must compute the same as a fresh rebuild of the plan.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model before any training. It is not changed.
        seed: seed of the random tensors and inputs.

    Returns:
        The largest |small - reference| / max |reference| over all outputs, as a float that prints with its
        verdict. `right` says for any plan whether the rebuild is correct. The float itself is at most
        TOLERANCE only if the plan narrows no group that crosses a normalisation.

    Raises:
        VerificationError: a tensor of `small` is missing, has the wrong shape, or is not the slice that the
            plan names, or an output is not finite or has the wrong shape, or a forward pass fails.

    Example:
        difference = autoprune.verify(prunable, plan, small)  # at most 1e-9
    """
    trial = _Trial(prunable, plan, seed)
    _check_slices(prunable, plan, trial.positions, small)
    actual = trial.outputs_of(small)
    difference = _largest_difference(actual, trial.reference)
    crossing = _crossing(prunable, plan)
    if not crossing:
        return Proof(difference)
    as_rebuilt = _largest_difference(actual, trial.outputs_of(rebuild(prunable, plan)))
    whole = Plan({name: index for name, index in plan.items() if name not in crossing})
    trial = _Trial(prunable, whole, seed)
    kept_whole = _largest_difference(trial.outputs_of(rebuild(prunable, whole)), trial.reference)
    return Proof(difference, crossing, max(as_rebuilt, kept_whole))


def _crossing(prunable: Prunable, plan: Plan) -> list[str]:
    """Return the names of the groups that the plan narrows and that cross a normalisation."""
    groups = [prunable.group(name) for name in prunable.of_groups(plan)]
    return [each.name for each in groups if each.crosses and len(plan[each.name]) < each.width]


class _Trial:
    """Runs of the masked dense model and of small models on the same input and the same random tensors.

    Attributes:
        positions: the slice of each tensor that the plan keeps.
        reference: the outputs of the masked dense model.
    """

    def __init__(self, prunable: Prunable, plan: Plan, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        masked = MaskedReference(prunable, plan, generator)
        self._model, self._target = prunable.model, prunable.target
        self._inputs = random_inputs(prunable, generator)
        self.positions = keep_positions(prunable, plan)
        with torch.no_grad(), _naming_pass("masked dense"):
            self.reference = masked.outputs(self._inputs)
        self._states = masked.states

    def outputs_of(self, small: nn.Module) -> list[Tensor]:
        """Run a copy of `small` that holds slices of the random tensors, and return its output tensors."""
        with torch.no_grad():
            copy = _with_tensors(small, self._model, self._states, self.positions)
            for module in copy.modules():
                module.training = False
            with unchanged(copy), _naming_pass("small"), InDouble():  # type: ignore[no-untyped-call]  # torch gives no hints
                outputs = call(copy, self._inputs, self._target)
        return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _naming_pass(which: str) -> contextlib.AbstractContextManager[None]:
    """Return a block that names the model in the error of a failed forward pass."""
    where = f"the {which} model's forward pass failed in float64 on the example inputs"
    return guarded(where, VerificationError, memory_passes=True)


def _check_slices(prunable: Prunable, plan: Plan, positions: KeepPositions, small: nn.Module) -> None:
    names = first_names(prunable.model)
    gone = {name for block in prunable.dropped_blocks(plan) for name in block.tensors}
    named = named_tensors(prunable.model, shared=True)
    dense = {name: tensor for name, tensor in named if names[name] not in gone}
    cut = dict(named_tensors(small, shared=True))
    if dense.keys() != cut.keys():
        odd = sorted(dense.keys() ^ cut.keys())
        raise VerificationError(
            f"{odd[0]}: is in only one of the two models. Pass the model that rebuild returned for this plan."
        )
    for name, tensor in cut.items():
        expected = _take(dense[name].detach(), positions.get(names[name], {}))
        if tensor.shape != expected.shape:
            raise VerificationError(
                f"{name}: got shape {list(tensor.shape)}, expected {list(expected.shape)}, which the plan "
                f"keeps of {list(dense[name].shape)}. Pass the plan that the model was rebuilt with."
            )
        if not torch.equal(tensor.detach(), expected):
            raise VerificationError(
                f"{name}: its values are not the slice that the plan names. Verify the model before training."
            )


def _take(tensor: Tensor, axes: dict[int, NDArray[np.int64]] | object) -> Tensor:
    for axis, kept in axes.items() if isinstance(axes, dict) else ():
        tensor = tensor.index_select(axis, torch.from_numpy(kept).to(tensor.device))
    return tensor


def random_inputs(prunable: Prunable, generator: torch.Generator) -> ExampleInputs:
    """Return inputs like the example's on the CPU, with random float64 numbers in place of all floats."""

    def drawn(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value.cpu() if isinstance(value, Tensor) else value

    inputs: ExampleInputs = pytree.tree_map(drawn, prunable.example_inputs)
    return inputs


def _with_tensors(
    small: nn.Module, model: nn.Module, random: dict[str, Tensor], positions: KeepPositions
) -> nn.Module:
    """Return a copy of `small` that holds the named slices of the random tensors."""
    names = first_names(model)
    memo: dict[int, object] = {}
    for name, tensor in named_tensors(small):
        values = _take(random[names[name]], positions.get(names[name], {}))
        memo[id(tensor)] = nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values
    return clone_structure(small, memo)


def _largest_difference(actual: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    if len(actual) != len(reference):
        raise VerificationError(f"small model: got {len(actual)} outputs, expected {len(reference)}.")
    largest = 0.0
    for number, (small, dense) in enumerate(zip(actual, reference, strict=True)):
        if small.shape != dense.shape:
            raise VerificationError(
                f"output {number}: got shape {list(small.shape)}, expected {list(dense.shape)}."
            )
        if not (torch.isfinite(small).all() and torch.isfinite(dense).all()):
            raise VerificationError(f"output {number}: holds values that are not finite.")
        scale = float(dense.abs().max()) if dense.numel() else 0.0
        difference = float((small - dense).abs().max()) if dense.numel() else 0.0
        largest = max(largest, difference / scale if scale else difference)
    return largest
