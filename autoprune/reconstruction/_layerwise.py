"""Choose channels group after group, each from the inputs of the model as pruned and refitted so far.

The targets are the dense model's outputs, so errors do not add up.

Example:
    plan = choose_by_layers(prunable, {"layer1.0.conv1": 8}, images, choose)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import DataError
from autoprune.graph import ChannelGroup, Member, Plan, Prunable
from autoprune.graph.capture import unchanged
from autoprune.graph.patches import apply_patches
from autoprune.graph.positions import KeepPositions
from autoprune.graph.writers import writers
from autoprune.rebuilding import keep_positions, narrow
from autoprune.reconstruction._contractions import Contraction
from autoprune.reconstruction._elimination import Reader
from autoprune.reconstruction._intercepts import normalised_by
from autoprune.reconstruction._regression import Regression
from autoprune.reconstruction._second_moments import IMAGES
from autoprune.reconstruction._sequential import (
    POSITIONS,
    Fits,
    Layer,
    Targets,
    paired_branches,
    together,
    watched,
)
from autoprune.reconstruction._uses import cut_of
from autoprune.support.modes import set_training
from autoprune.support.usercode import guarded

Choose = Callable[[list[Reader], int, int], NDArray[np.int64]]
"""From (readers, width, number to keep) to the channels to keep. The list is empty if nothing reads them."""


def choose_by_layers(
    prunable: Prunable,
    widths: Mapping[str, int],
    data: Iterable[Any],
    choose: Choose,
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    ridge: float | None = None,
    seed: int = 0,
    done: Callable[[int, int], None] | None = None,
) -> Plan:
    """Choose the channels of each group, and refit the layers that read it before the next group's turn.

    The groups go in the order of execution. The refits serve the choices of later groups alone: repair the
    rebuilt model by `repair_sequential`, which refits all layers.

    Args:
        prunable: the traced dense model, which is not changed.
        widths: {group name: channels to keep}. Groups that are missing keep all channels.
        data: batches, each the inputs alone or a tuple that begins with them.
        choose: chooses the channels of a group.
        images: number of images to take.
        positions: number of output positions drawn from each image.
        ridge: strength of the pull towards the weights before a fit. See `refit`.
        seed: seed of the positions.
        done: called with (groups done, groups that are narrowed).

    Raises:
        PlanError: a width does not fit the model's groups.
        DataError: there is no image, or the model fails on one.

    Reference: He, Zhang, Sun, ICCV 2017, sections 3.1 to 3.3. They choose the inputs of one layer at a time.
    Here all layers that read a group choose together.
    """
    prunable.cost(widths)  # refuses widths that do not fit
    inputs = together(data, images)
    model, plan = narrow(prunable.model, {}), Plan({})
    with unchanged(prunable.model), torch.no_grad():
        set_training(prunable.model, False)
        set_training(model, False)
        with guarded("lasso: the model failed on the images", DataError, memory_passes=True):
            branches, _ = paired_branches(prunable.model, model, inputs)
            targets = Targets(branches, positions, torch.Generator().manual_seed(seed))
            watched(prunable.model, inputs, targets)
            step = _Step(prunable, targets, inputs, normalised_by(prunable), ridge)
            order = [prunable.group(name) for name in writers(prunable)]
            narrowed = [group for group in order if widths.get(group.name, group.width) < group.width]
            for number, group in enumerate(narrowed, start=1):
                model, plan = step.cut(model, plan, group, widths[group.name], choose)
                if done is not None:
                    done(number, len(narrowed))
    return plan


@dataclass(frozen=True, eq=False)
class _Step:
    """Cuts one group of a narrowed model and refits the layers that read it."""

    prunable: Prunable
    targets: Targets
    inputs: Any
    followers: Mapping[str, str]
    ridge: float | None

    def cut(
        self, model: nn.Module, plan: Plan, group: ChannelGroup, width: int, choose: Choose
    ) -> tuple[nn.Module, Plan]:
        """Return the model with the group narrowed, and the plan that leads to it."""
        before = keep_positions(self.prunable, plan)
        reads = self._run(model, before, group)
        places = {member.parameter: _places(member, before) for member in group.members if member.axis == 1}
        readers = [each for name, read in reads.items() for each in read.readers(places[name])]
        plan = Plan({**plan, group.name: choose(readers, group.width, width)})
        further = _further(before, keep_positions(self.prunable, plan))
        small = narrow(model, further)
        apply_patches(small, self.prunable.numbers(plan))
        for name, read in reads.items():
            cut = cut_of(read.shape, further.get(name, {}), read.groups, transposed=False)
            layer = replace(read.layer, model=small)
            layer.write(read.sums.cut(cut), len(cut.groups), self.ridge)
        return small, plan

    def _run(self, model: nn.Module, kept: KeepPositions, group: ChannelGroup) -> dict[str, _Read]:
        """Run the model on the images, and return the layers that read a group with their sums."""
        inputs = {member.parameter for member in group.members if member.axis == 1}
        branches = {name: each for name, each in self.targets.branches.items() if name in inputs}
        # The run takes the targets out of their table as it uses them, and later groups need them too.
        targets = replace(
            self.targets,
            values=dict(self.targets.values),
            contractions=dict(self.targets.contractions),
        )
        reads = _Reads(model, branches, targets, kept, self.followers, self.ridge)
        watched(model, self.inputs, reads)
        return reads.found


@dataclass(frozen=True, eq=False)
class _Read:
    """A layer that reads a group, with the sums over its actual inputs and the dense targets."""

    layer: Layer
    shape: torch.Size
    groups: int
    sums: Regression

    def readers(self, places: Tensor) -> list[Reader]:
        """Return the layer's part for a group's channels, one reader for each group of a convolution.

        Args:
            places: int64 [width, m], positions of each channel along the weight's axis 1.
        """
        gram, cross, *_ = self.sums.means(constant=self.layer.has_constant)
        kernel = math.prod(self.shape[2:])
        index = (places[..., None] * kernel + torch.arange(kernel)).reshape(len(places), -1)
        mine, others = index.flatten(), torch.ones(gram.shape[1], dtype=torch.bool)
        others[mine] = False
        weights = self.layer.matrices(self.groups).cpu()
        found = []
        for second, products, weight in zip(gram.cpu(), cross.cpu(), weights, strict=True):
            # Inputs of other groups keep their weights, so their part of the target is settled.
            rest = products[:, mine] - weight[:, others] @ second[others][:, mine]
            own = torch.arange(len(mine)).reshape(index.shape)
            found.append(Reader(second[mine[:, None], mine], weight[:, mine], own, target=rest))
        return found


@dataclass(eq=False)
class _Reads(Fits):
    """Collects the sums of contractions as they run, and refits none of them."""

    found: dict[str, _Read] = field(default_factory=dict)

    def fit(self, name: str, contraction: Contraction) -> None:
        """Collect the sums of a contraction."""
        if contraction.transposed:
            return
        layer = Layer(self.model, name, self.branches[name], False, self.followers)
        self.found[name] = _Read(
            layer, contraction.weight.shape, contraction.groups, self.sums(name, contraction)
        )


def _places(member: Member, kept: KeepPositions) -> Tensor:
    """Return the positions of a group's channels along an axis that was cut already."""
    left = kept.get(member.parameter, {}).get(member.axis)
    return torch.from_numpy(member.index if left is None else np.searchsorted(left, member.index))


def _further(before: KeepPositions, after: KeepPositions) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return the positions that a second cut keeps, among those that the first one left."""
    found: dict[str, dict[int, NDArray[np.int64]]] = {}
    for name, axes in after.items():
        for axis, kept in axes.items():
            left = before.get(name, {}).get(axis)
            if left is None or len(kept) < len(left):
                found.setdefault(name, {})[axis] = kept if left is None else np.searchsorted(left, kept)
    return found
