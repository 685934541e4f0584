"""The prunable: a traced model with its channel groups and its costs.

Example:
    prunable.groups                                # tuple[ChannelGroup, ...]
    prunable.cost({"layer1.0.conv1": 8})           # Cost(macs=..., params=...)
"""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from autoprune.errors import PlanError, shown_value, suggest
from autoprune.graph.blocks import Block, StandIn
from autoprune.graph.capture import Captured, ExampleInputs, named_tensors
from autoprune.graph.followers import Follower, followed
from autoprune.graph.grouping import Grouping
from autoprune.graph.groups import ChannelGroup
from autoprune.graph.labels import LabelVector
from autoprune.graph.patches import Patch
from autoprune.graph.plan import Plan
from autoprune.graph.positions import PositionTable
from autoprune.graph.propagate import NodeValue
from autoprune.support.notebook import as_html

Counts = int | NDArray[np.int64]
Milliseconds = float | NDArray[np.float64]


@dataclass(frozen=True, init=False)
class Cost:
    """The cost of a model at batch 1: numbers for one model, arrays [candidates] for many.

    Costs that are neither limited nor minimised may be left out.

    Attributes:
        macs: multiply-adds of convolutions, linear layers, matrix products and attention.
        params: elements of all parameters.
        others: {name: cost} of the others that are known, such as "latency_ms", the milliseconds that a table
            predicts. Each is an attribute, too.
    """

    macs: Counts
    params: Counts
    others: Mapping[str, Counts | Milliseconds]

    def __init__(self, macs: Counts, params: Counts, **others: Counts | Milliseconds) -> None:
        """Take each cost by its name in `autoprune.cost.COSTS`."""
        self.__dict__.update(macs=macs, params=params, others=others)

    def __getattr__(self, name: str) -> Counts | Milliseconds:
        """Return one of the other costs.

        Raises:
            AttributeError: it is not known of this model.
        """
        others: Mapping[str, Counts | Milliseconds] = self.__dict__.get("others", {})
        if name not in others:
            raise AttributeError(f"{name}: not among the costs that are known here.{suggest(name, others)}")
        return others[name]

    @property
    def flops(self) -> Counts:
        """Floating point operations: two for each multiply-add."""
        return 2 * self.macs

    def known(self) -> dict[str, Counts | Milliseconds]:
        """Return {name: cost} of all that are known."""
        return {"macs": self.macs, "params": self.params, **self.others}

    def plus(self, **others: Counts | Milliseconds) -> Cost:
        """Return the cost with further ones, which replace those of the same names."""
        known: dict[str, Any] = {**self.known(), **others}
        return Cost(**known)

    def one(self) -> Cost:
        """Return the cost of the first candidate as plain numbers."""
        return Cost(**{name: np.ravel(value)[0].item() for name, value in self.known().items()})


class CostFormula(Protocol):
    """Exact costs of candidates from their widths. The columns of blocks may follow those of the groups."""

    def __call__(self, widths: NDArray[np.int64]) -> Cost:
        """Return costs [candidates] of widths [candidates, groups] or [candidates, groups + blocks]."""

    def carried(self, *groups: int) -> tuple[int, int]:
        """Return the MACs and parameters of the dense model's operators that any of the columns touches."""


@dataclass(frozen=True, eq=False)
class Prunable:
    """A traced model: its channel groups, its graph and its costs. `autoprune.trace` returns one.

    Attributes:
        model: the dense model, which is never changed.
        example_inputs: positional (tuple) or keyword (dict) inputs, at batch 1.
        groups: every channel group in model order, including frozen ones.
        formula: computes exact costs from widths.
        grouping: the group and the channel of each label.
        captured: the graph in eval mode.
        values: {node name: labelled value} of that graph.
        followers: numbers of the user's own modules that follow a width.
        blocks: the residual branches that a plan may drop, in model order.
        target: path of the submodule that was traced, or "" for the model. The example inputs and the costs
            are those of the submodule. Names are those of the model, and a plan rebuilds the model.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    groups: tuple[ChannelGroup, ...]
    formula: CostFormula
    grouping: Grouping
    captured: Captured
    values: Mapping[str, NodeValue]
    followers: tuple[Follower, ...] = ()
    blocks: tuple[Block, ...] = ()
    target: str = ""

    @property
    def part(self) -> nn.Module:
        """The module that was traced."""
        return self.part_of(self.model)

    def part_of(self, model: nn.Module) -> nn.Module:
        """Return the module that was traced, in another model of this architecture."""
        return model.get_submodule(self.target)

    def __repr__(self) -> str:
        """Return the model's class, the number of groups and the dense cost in one line."""
        frozen = sum(group.frozen is not None for group in self.groups)
        cost = self.cost()
        return (
            f"<Prunable {type(self.model).__name__}: {len(self.groups)} channel groups, {frozen} of them "
            f"frozen; dense cost {cost.macs:,} MACs, {cost.params:,} params>"
        )

    def _repr_html_(self) -> str:
        """Return the groups and their costs as HTML, for notebooks."""
        table = Table(title="Channel groups, with the MACs and parameters of the layers that each touches")
        for column in ("group", "width", "MACs", "params", "frozen because of"):
            table.add_column(column, justify="right" if column in ("width", "MACs", "params") else "left")
        for position, group in enumerate(self.groups):
            macs, params = self.formula.carried(position)
            table.add_row(group.name, str(group.width), f"{macs:,}", f"{params:,}", group.frozen or "")
        return as_html(repr(self).strip("<>"), [table])

    @cached_property
    def position(self) -> dict[str, int]:
        """{group name: its position in `groups`}."""
        return {group.name: position for position, group in enumerate(self.groups)}

    @cached_property
    def block_of(self) -> dict[str, Block]:
        """{block name: the block}."""
        return {block.name: block for block in self.blocks}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{parameter or buffer: its dense shape}. A shared tensor has its first name."""
        return {name: tuple(tensor.shape) for name, tensor in named_tensors(self.model)}

    @cached_property
    def positions(self) -> PositionTable:
        """The table of the channel at each position of each axis."""
        return PositionTable.of(self.groups, self.shapes)

    @property
    def searchable(self) -> tuple[ChannelGroup, ...]:
        """The groups that a plan can narrow: those that are not frozen and wider than 1."""
        return tuple(group for group in self.groups if group.frozen is None and group.width > 1)

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of all groups and followers, equal for equal architectures."""
        digest = hashlib.sha256()
        for group in self.groups:
            digest.update(f"{group.name}|{group.width}|{group.frozen}|{group.crosses}".encode())
            for member in group.members:
                digest.update(f"{member.parameter}|{member.axis}".encode() + member.index.tobytes())
        for each in self.followers:
            place = f"{each.module}|{each.attribute}|{each.item}"
            digest.update(place.encode() + each.labels.tobytes())
        return digest.hexdigest()

    def group(self, name: str) -> ChannelGroup:
        """Return the group `name`.

        Raises:
            PlanError: if no group has that name.
        """
        if name not in self.position:
            known = [*self.position, *self.block_of]
            raise PlanError(
                f"{name}: no such channel group.{suggest(name, known)} See prunable.groups and "
                "prunable.blocks."
            )
        return self.groups[self.position[name]]

    def cost(self, widths: Mapping[str, int] | NDArray[np.int64] | None = None) -> Cost:
        """Return exact costs at batch 1, without building a model.

        Args:
            widths: {group name: width}, in which missing groups keep their width, or an integer array
                [candidates, groups] in the order of `groups`, or None for the dense model. The width of a
                block is 0 or 1. The columns of all blocks may follow those of the groups.

        Returns:
            A `Cost` of plain numbers for a mapping or None, or of arrays [candidates] for an array.

        Raises:
            PlanError: if a group is unknown, a width is not an integer in its range, a frozen group is
                narrowed, or the array has the wrong shape.
        """
        if isinstance(widths, np.ndarray):
            return self.formula(self._check(np.atleast_2d(widths)))
        if not isinstance(widths, Mapping | None):
            raise PlanError(
                f"widths: got {shown_value(widths)}, expected {{group name: width}} or an integer array."
            )
        return self.formula(self._check(self.row(widths or {}))).one()

    def row(self, widths: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the widths of all groups, then of all blocks, int64 [1, groups + blocks].

        Args:
            widths: {group or block name: width}. Those that are missing keep their width.

        Raises:
            PlanError: a name is unknown, or a width is not an integer.
        """
        full, names = self._columns()
        row, place = full[None].copy(), {name: column for column, name in enumerate(names)}
        for name, width in widths.items():
            most = 1 if name in self.block_of else self.group(name).width
            if isinstance(width, bool) or not isinstance(width, numbers.Integral):
                raise PlanError(
                    f"{name}: got width {width!r}, expected an integer in {_least(name in self.block_of)}.."
                    f"{most}. Keep ratios go to make_plan, and its plan has .widths."
                )
            row[0, place[name]] = width
        return row

    def _columns(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return the dense widths [groups + blocks], and the names."""
        full = [*(group.width for group in self.groups), *(1 for _ in self.blocks)]
        return np.array(full, dtype=np.int64), [*self.position, *self.block_of]

    def _check(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        full, names = self._columns()
        groups = len(self.groups)
        columns = widths.shape[1] if widths.ndim == 2 else -1
        if columns not in (groups, len(full)) or not np.issubdtype(widths.dtype, np.integer):
            blocks = f", or [candidates, {len(full)}] with those of prunable.blocks" if self.blocks else ""
            raise PlanError(
                f"widths: got {widths.dtype} {list(widths.shape)}, expected integers "
                f"[candidates, {groups}] in the order of prunable.groups{blocks}."
            )
        # The least width of a frozen group is its full width.
        least = np.zeros_like(full)
        least[:groups] = [1 if group.frozen is None else group.width for group in self.groups]
        wrong = (widths < least[:columns]) | (widths > full[:columns])
        places = np.flatnonzero(wrong.any(axis=0)).tolist()
        if places:
            place = places[0]
            got, reason = widths[:, place], self.groups[place].frozen if place < groups else None
            if reason is not None:
                width = int(got[wrong[:, place]][0])
                raise PlanError(
                    f"{names[place]}: got width {width}, expected {full[place]}: the group is frozen "
                    f"({reason})."
                )
            raise PlanError(
                f"{names[place]}: got width {int(got.min())}..{int(got.max())}, expected "
                f"{_least(place >= groups)}..{full[place]}."
            )
        return widths

    def check(self, plan: Plan) -> None:
        """Raise an error unless `plan` fits the groups.

        Raises:
            PlanError: if the plan names an unknown group or a channel that the group does not have, narrows
                a frozen group, or leaves a group empty.
        """
        for name, index in plan.items():
            if name in self.block_of:
                if index.tolist() not in ([], [0]):
                    raise PlanError(
                        f"{name}: got keep index {index.tolist()}, expected [] to drop the block, or [0]."
                    )
                continue
            group = self.group(name)
            if len(index) == 0 or index[0] < 0 or index[-1] >= group.width:
                raise PlanError(
                    f"{name}: got keep index {index.tolist()}, expected at least one of 0..{group.width - 1} "
                    "and no others."
                )
            if group.frozen is not None and len(index) < group.width:
                raise PlanError(
                    f"{name}: got {len(index)} channels, expected {group.width}: the group is frozen "
                    f"({group.frozen})."
                )

    def of_groups(self, plan: Plan) -> dict[str, NDArray[np.int64]]:
        """Return the keep indices of a plan without those of blocks."""
        return {name: index for name, index in plan.items() if name not in self.block_of}

    def dropped_blocks(self, plan: Plan) -> tuple[Block, ...]:
        """Return the blocks that a plan drops."""
        return tuple(self.block_of[name] for name in plan.dropped if name in self.block_of)

    def stand_ins(self, plan: Plan) -> tuple[StandIn, ...]:
        """Return the stand-ins of all modules that a plan drops."""
        return tuple(each for block in self.dropped_blocks(plan) for each in block.stand_ins)

    def dropped(self, plan: Plan) -> NDArray[np.bool_]:
        """Return a bool array [components], True for the channels that `plan` drops.

        Raises:
            PlanError: if the plan does not fit the groups.
        """
        self.check(plan)
        grouping = self.grouping
        keep = np.ones((len(self.groups), max((g.width for g in self.groups), default=1)), bool)
        for name, index in self.of_groups(plan).items():
            row = keep[self.position[name]]
            row[:] = False
            row[index] = True
        dropped = np.zeros(len(grouping.group_of), bool)
        grouped = grouping.group_of >= 0
        dropped[grouped] = ~keep[grouping.group_of[grouped], grouping.channel_of[grouped]]
        return dropped

    def numbers(self, plan: Plan) -> list[Patch]:
        """Return the patches of the followers under `plan`.

        Raises:
            PlanError: if the plan does not fit the groups.
        """
        if not self.followers:
            return []
        dropped = self.dropped(plan)
        gone = tuple(f"{each.path}." for each in self.stand_ins(plan))
        staying = [each for each in self.followers if not f"{each.module}.".startswith(gone)]

        def size(labels: LabelVector) -> int:
            return int(self.grouping.kept(labels, dropped).sum())

        return list(followed(self.model, staying, size))


def _least(is_block: bool) -> int:
    """Return the smallest width of a block or of a group."""
    return 0 if is_block else 1
