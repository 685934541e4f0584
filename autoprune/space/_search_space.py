"""The search space: named keep ratios, and their exact translation into widths within the budget.

space = build_space(prunable.groups, prunable.cost, Budget(macs=20_000_000), SpaceSpec(divisor=4))
widths = space.decode(np.full(len(space.variables), 0.5))       # int64 [groups]
ratios = space.encode(widths)                                   # space.decode(ratios) gives widths again
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import BudgetError, ConfigError, PlanError, suggest
from autoprune.graph.blocks import Block
from autoprune.graph.groups import ChannelGroup
from autoprune.space._budget import Budget
from autoprune.space._fill import Filler
from autoprune.space._ladder import CostFunction, Ladder
from autoprune.space._levels import Levels, allowed_widths, make_levels, relaxed_step, unit_step
from autoprune.space._spec import SpaceSpec, matches
from autoprune.support.arrays import FloatArray, IntArray

if TYPE_CHECKING:
    from autoprune.graph import Cost

COUNTED = 1_024
"""Plans that `SearchSpace.plans` lists at most, and beginnings of plans that it keeps on the way to them."""


@dataclass(frozen=True)
class Variable:
    """One keep ratio that a sampler proposes, and the groups that follow it."""

    name: str
    groups: tuple[str, ...]
    low: float
    high: float


class Candidate(dict[str, int]):
    """The widths of a candidate, {group name: width}.

    Attributes:
        criteria: {group name: the criterion that ranks it} of the groups that are narrowed, if the search
            chooses criteria.
    """

    def __init__(self, widths: Iterable[tuple[str, int]], criteria: Mapping[str, str] | None = None) -> None:
        super().__init__(widths)
        self.criteria = dict(criteria or {})


@dataclass(frozen=True, eq=False)
class Reach:
    """The range of costs of a space.

    Attributes:
        smallest: cost of the plan with every variable at its lowest.
        largest: cost of the plan with every variable at its highest.
        in_window: whether a plan lies in [0.98, 1.00] of the tightest budget.
    """

    smallest: Cost
    largest: Cost
    in_window: bool


class SearchSpace:
    """Keep ratios on one side, widths that meet divisor, floor, ties and budget on the other.

    Attributes:
        variables: the ratios that a sampler proposes, in the order of `decode`'s columns.
        groups: names of all the model's groups and of the blocks, in the order of widths' columns.
        relaxed: {group name: step} of the groups too small for the divisor, with the step that they got.
        budget: the limits that every decoded proposal meets.
        ladder: the levels that each variable may take, and the cost of any combination of them.
        channel_groups: all the model's channel groups.
        blocks: the blocks that may be dropped, whose columns follow those of the channel groups.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        ladder: Ladder,
        budget: Budget,
        relaxed: dict[str, int],
        blocks: Sequence[Block] = (),
    ) -> None:
        self.channel_groups = tuple(groups)
        self.blocks = tuple(blocks)
        self.groups = (*(group.name for group in groups), *(block.name for block in blocks))
        self.budget = budget
        self.relaxed = relaxed
        self.variables = tuple(
            Variable(
                row.name,
                tuple(self.groups[column] for column in row.columns),
                float(row.ratios[0]),
                float(row.ratios[-1]),
            )
            for row in ladder.rows
        )
        full = [*(group.width for group in groups), *(1 for _ in blocks)]
        self._full: IntArray = np.array(full, dtype=np.int64)
        self.ladder = ladder
        self._require_reachable()

    @property
    def keep_ratios(self) -> SearchSpace:
        """The space of the keep ratios alone, under the whole budget."""
        return self

    @property
    def shares(self) -> FloatArray:
        """The levels of the searched share of the budget, ascending. A space without a share has one."""
        return np.ones(1)

    def at(self, level: int) -> SearchSpace:
        """Return the space without the share of the budget, under one level of it."""
        return self

    def under(self, budget: Budget) -> SearchSpace:
        """Return the same space under another budget."""
        return SearchSpace(self.channel_groups, self.ladder.under(budget), budget, self.relaxed)

    def spread(
        self, count: int, *, by_ratio: bool = False, dropping: bool = False
    ) -> list[tuple[float | None, SearchSpace]]:
        """Return the spaces that heuristics fill: (share of the budget that is searched or None, space).

        They have keep ratios alone, unless the heuristic is `dropping` blocks too.
        If the share is searched, there are up to `count` spaces, at equal distances or at equal ratios.
        """
        return [(None, self)]

    def fit(self, ratios: FloatArray) -> IntArray:
        """Return the levels [n, k] that meet the budget and that proposed ratios [n, k] stand for."""
        levels, _ = self._filler.fill(ratios)
        return levels

    def decode(self, ratios: FloatArray) -> IntArray:
        """Translate proposed keep ratios into widths that meet the budget.

        A proposal whose nearest widths lie in [0.98, 1.00] of the tightest budget is taken as it is. Any
        other is scaled by a common factor and filled up to the window, if any plan reaches it.

        Args:
            ratios: [k] or [n, k], in the order of `variables`. Values outside their ranges are clipped.

        Returns:
            int64 widths of all groups, [groups] or [n, groups].

        Raises:
            PlanError: the last axis has another length than `variables`, or a ratio is not finite.
        """
        proposals = np.asarray(ratios, dtype=np.float64)
        if proposals.ndim not in (1, 2) or proposals.shape[-1] != len(self.variables):
            raise PlanError(
                f"decode: got ratios of shape {proposals.shape}, expected {len(self.variables)} columns."
            )
        if not np.isfinite(proposals).all():
            raise PlanError("decode: a proposed ratio is not finite, expected numbers in (0, 1].")
        widths = self.ladder.widths(self.fit(proposals.reshape(-1, len(self.variables))))
        return widths if proposals.ndim == 2 else widths[0]

    def settle(self, ratios: FloatArray) -> FloatArray:
        """Return the ratios [..., k] of the plans that proposals stand for. They are fixed points."""
        return self.encode(self.decode(ratios))

    def complete(self, ratios: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return a proposal [k] from the ratios of `keep_ratios`, with other choices drawn at random."""
        return ratios

    def candidate(self, ratios: FloatArray) -> Candidate:
        """Return the widths that meet the budget and that a proposal [k] stands for."""
        return Candidate(zip(self.groups, self.decode(ratios).tolist(), strict=True))

    def snap(self, ratios: FloatArray) -> IntArray:
        """Translate keep ratios [k] or [n, k] into the nearest widths, whether the budget is met or not.

        Divisor, floor and ties hold. The `low` of every variable gives the smallest plan of the space.
        """
        proposals = np.asarray(ratios, dtype=np.float64)
        levels = self.ladder.of_ratios(proposals.reshape(-1, len(self.variables)))
        widths = self.ladder.widths(levels)
        return widths if proposals.ndim == 2 else widths[0]

    def encode(self, widths: IntArray) -> FloatArray:
        """Translate widths [groups] or [n, groups] into the ratios [k] or [n, k] that decode to them.

        Widths off the divisor or the ties get the ratio of the channels that they keep. Decoding snaps it.
        """
        wanted = np.asarray(widths, dtype=np.int64).reshape(-1, len(self.groups))
        columns = []
        for row in self.ladder.rows:
            mine = wanted[:, row.columns]
            # Tied groups share a ratio: that of all their channels together.
            kept = mine.sum(axis=1) / self._full[row.columns].sum()
            ratios = np.clip(kept, row.ratios[0], row.ratios[-1])
            # Widths of this space get the very ratio of their level, so that decoding gives them back.
            for level, exact in enumerate(row.widths):
                ratios[(mine == exact).all(axis=1)] = row.ratios[level]
            columns.append(ratios)
        encoded = np.stack(columns, axis=1)
        return encoded if np.ndim(widths) == 2 else encoded[0]

    def cost(self, widths: IntArray) -> Cost:
        """Return the cost of widths [groups] or [n, groups], as arrays [1] or [n]."""
        return self.ladder.cost(np.asarray(widths, dtype=np.int64).reshape(-1, len(self.groups)))

    def usage(self, widths: IntArray) -> FloatArray:
        """Return the share of the tightest budget that widths use, shaped as in `cost`."""
        return self.budget.usage(self.cost(widths))

    def reach(self) -> Reach:
        """Return the smallest and largest cost of the space, and whether the budget's window can be met."""
        middle = np.array([[(variable.low + variable.high) / 2 for variable in self.variables]])
        _, inside = self._filler.fill(middle)
        smallest, largest = (
            self.cost(self.ladder.widths(levels[None])[0])
            for levels in (np.zeros_like(self.ladder.top), self.ladder.top)
        )
        return Reach(smallest, largest, bool(inside[0]) and not self._filler.known_to_miss)

    @cached_property
    def plans(self) -> IntArray | None:
        """The widths [n, groups] of all plans that proposals decode to, or None if they are too many.

        Most spaces have far more plans than a search has trials, so no more than a few are listed.
        """
        listed = self.list_levels()
        return None if listed is None else self.ladder.widths(listed)

    def list_levels(self) -> IntArray | None:
        """Return the levels [n, k] of `plans`."""
        return self._filler.plans(COUNTED)

    @cached_property
    def _filler(self) -> Filler:
        return Filler(self.ladder)

    def _require_reachable(self) -> None:
        widths = self.ladder.widths(np.zeros((1, len(self.variables)), dtype=np.int64))
        cost = self.cost(widths)
        for name, limit in self.budget.limits.items():
            smallest = np.asarray(getattr(cost, name))[0].item()
            if smallest > limit:
                raise BudgetError(
                    f"{self.budget.out_of_reach(name, smallest)}, or lower the space's low, divisor or floor."
                )


def build_space(
    groups: Sequence[ChannelGroup], cost: CostFunction, budget: Budget, spec: SpaceSpec | None = None
) -> SearchSpace:
    """Build the search space of a model's groups.

    Args:
        groups: all groups of the model, also the frozen ones. Frozen and skipped groups stay full.
        cost: widths [n, groups] -> Cost of arrays [n]. It must never fall if a width grows.
        budget: the limits that every proposal will meet.
        spec: ratios, divisor, floor and ties. By default every group has a ratio of its own.

    Raises:
        BudgetError: even the smallest plan exceeds the budget. The message names the smallest reachable cost.
        ConfigError: a tie or override matches no group, a group lies in two ties, a tie has the name of
            another tie or of a group outside it, or overrides leave a group no ratio.
        PlanError: no group is left to search.
    """
    ladder, relaxed = build_ladder(groups, cost, budget, spec or SpaceSpec())
    return SearchSpace(groups, ladder, budget, relaxed)


def build_ladder(
    groups: Sequence[ChannelGroup],
    cost: CostFunction,
    budget: Budget,
    spec: SpaceSpec,
    blocks: Sequence[Block] = (),
) -> tuple[Ladder, dict[str, int]]:
    """Return the levels of all keep ratios, and {group name: step} of the groups too small for the divisor.

    Args:
        groups: all groups of the model.
        cost: of widths [n, groups + blocks].
        budget: the limits.
        spec: ratios, divisor, floor and ties.
        blocks: the blocks that may be dropped. Here they are kept.

    Raises:
        ConfigError: as from `build_space`.
        PlanError: as from `build_space`.
    """
    searched = {
        position: group
        for position, group in enumerate(groups)
        if group.frozen is None and not matches(group.name, spec.skip)
    }
    _require_matches(groups, spec)
    relaxed: dict[str, int] = {}
    rows: list[Levels] = []
    full = np.array([*(group.width for group in groups), *(1 for _ in blocks)], dtype=np.int64)
    for name, columns in _tied(searched, spec).items():
        allowed = [_allowed(searched[column], spec, relaxed) for column in columns]
        row = make_levels(name, columns, [searched[column].width for column in columns], allowed)
        if len(row.ratios) > 1:
            rows.append(row)
        else:
            full[row.columns] = row.widths[0]
    if not rows:
        raise PlanError(
            "space: no group is left to search: every group is frozen, skipped or has a single width."
        )
    return Ladder(rows, full, cost, budget), relaxed


def _allowed(group: ChannelGroup, spec: SpaceSpec, relaxed: dict[str, int]) -> NDArray[np.int64]:
    bounds = spec.resolved(group.name)
    step = relaxed_step(group, bounds.divisor)
    if step != unit_step(group, bounds.divisor):
        relaxed[group.name] = step
    return allowed_widths(group.width, step=step, low=bounds.low, high=bounds.high, floor=bounds.floor)


def _tied(searched: dict[int, ChannelGroup], spec: SpaceSpec) -> dict[str, list[int]]:
    """Return {variable name: columns}: one for each tie, in its first group's place, and each free group."""
    tied: dict[str, list[int]] = {}
    for column, group in searched.items():
        names = [tie.name for tie in spec.ties if matches(group.name, tie.groups)]
        if len(names) > 1:
            raise ConfigError(
                f"space.tie: {group.name} lies in {' and '.join(names)}, expected one tie a group."
            )
        tied.setdefault(names[0] if names else group.name, []).append(column)
    return tied


def _require_matches(groups: Sequence[ChannelGroup], spec: SpaceSpec) -> None:
    names = [group.name for group in groups]
    for position, tie in enumerate(spec.ties):
        if tie.name in [other.name for other in spec.ties[:position]]:
            raise ConfigError(f"space.tie: {tie.name} names two ties: give each a name of its own.")
        if tie.name in names and not matches(tie.name, tie.groups):
            raise ConfigError(
                f"space.tie: {tie.name} is a group outside that tie. Give the tie another name."
            )
    for key, patterns in (
        ("skip", spec.skip),
        *((f"tie {tie.name}", tie.groups) for tie in spec.ties),
        *(("override", override.groups) for override in spec.overrides),
    ):
        for pattern in patterns:
            if not any(matches(name, [pattern]) for name in names):
                hint = suggest(pattern, names) or f" Groups: {', '.join(names[:6])}, ..."
                raise ConfigError(f"space.{key}: {pattern} matches no group.{hint}")
