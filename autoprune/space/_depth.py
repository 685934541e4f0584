"""The searched depth: one more variable for each droppable block, which keeps its branch or drops it.

    space = build_depth_space(prunable.groups, prunable.blocks, prunable.cost, budget)
    space.variables[0].name                    # "layer1.0:branch", with a range from 1/3 to 1
    space.decode(ratios)                       # int64 [groups + blocks]: 0 for a dropped block

A ratio below 1/2 drops a block. The keep ratios fill the budget, with the blocks as proposed. Only if no
widths fill it are other blocks dropped or kept, those with a ratio near 1/2 first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from autoprune.graph.blocks import Block
from autoprune.graph.groups import ChannelGroup
from autoprune.space._budget import WINDOW_LOW, Budget
from autoprune.space._ladder import CostFunction, Ladder
from autoprune.space._levels import Levels
from autoprune.space._search_space import COUNTED, Reach, SearchSpace, build_ladder
from autoprune.space._spec import SpaceSpec
from autoprune.support.arrays import BoolArray, FloatArray, IntArray

EDGE = 0.5
LOWEST = 1 / 3
"""The lowest ratio of a block. A quarter of the range, and so of random proposals, drops it."""

MOST_LISTED = 8
"""Number of blocks up to which all of their combinations may be tried or listed."""

TRIED = 255
"""Most combinations of blocks that are tried until one fills the budget."""

KEPT = 64
"""Spaces of single combinations that are kept for the next proposal."""


class DepthSpace(SearchSpace):
    """A search space whose first variables are the blocks, and the others the keep ratios.

    Keep ratios whose groups all live inside dropped blocks have no effect. They are at their highest level,
    so that equal models are one plan.

    Args:
        groups: all the model's groups.
        blocks: the blocks that may be dropped.
        ladder: of the keep ratios alone, over the widths of the groups and the blocks.
        budget: the limits that every decoded proposal meets.
        relaxed: see `SearchSpace`.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        blocks: Sequence[Block],
        ladder: Ladder,
        budget: Budget,
        relaxed: dict[str, int],
    ) -> None:
        switches = [_switch(block, len(groups) + place) for place, block in enumerate(blocks)]
        self._widths_only = ladder
        self._inside = _inside(groups, blocks, ladder)
        self._spaces: dict[bytes, SearchSpace | None] = {}
        joined = Ladder([*switches, *ladder.rows], ladder.full, ladder.cost, budget)
        super().__init__(groups, joined, budget, relaxed, blocks)

    def under(self, budget: Budget) -> DepthSpace:
        """Return the same space under another budget."""
        ladder = self._widths_only.under(budget)
        return DepthSpace(self.channel_groups, self.blocks, ladder, budget, self.relaxed)

    @property
    def keep_ratios(self) -> SearchSpace:
        """The space of the keep ratios alone, with as many blocks as the budget allows."""
        return self._keep_ratios

    @cached_property
    def _keep_ratios(self) -> SearchSpace:
        kept = np.ones(len(self.blocks), dtype=np.bool_)
        for block in self._by_cost():
            if self._ends(kept)[0] <= 1:
                break
            kept[block] = False
        return self.with_blocks(kept)

    def with_blocks(self, kept: BoolArray) -> SearchSpace:
        """Return the space of all keep ratios with some blocks kept.

        Raises:
            BudgetError: no widths meet the budget.
        """
        return self._narrowed(kept, range(len(self._widths_only.rows)))

    def spread(
        self, count: int, *, by_ratio: bool = False, dropping: bool = False
    ) -> list[tuple[float | None, SearchSpace]]:
        """Return the spaces that heuristics fill: the keep ratios alone, or the whole space if `dropping`."""
        return [(None, self if dropping else self.keep_ratios)]

    def complete(self, ratios: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Add blocks that are drawn at random to keep ratios."""
        drawn: FloatArray = np.concatenate([rng.uniform(LOWEST, 1.0, len(self.blocks)), ratios])
        return drawn

    def fit(self, ratios: FloatArray) -> IntArray:
        """Return the levels [n, k] that meet the budget and that proposed ratios [n, k] stand for."""
        levels = self.ladder.of_ratios(ratios)
        count = len(self.blocks)
        kept = levels[:, :count] > 0
        for pattern in np.unique(kept, axis=0):
            rows = np.flatnonzero((kept == pattern).all(axis=1))
            levels[rows], inside = self._filled(pattern, ratios[rows])
            for row in rows[~inside].tolist():
                levels[row] = self._elsewhere(pattern, ratios[row], levels[row])
        return levels

    def _filled(self, kept: BoolArray, ratios: FloatArray) -> tuple[IntArray, BoolArray]:
        """Return the levels [n, k] with some blocks kept, and which of them lie in the window [n].

        If the blocks alone exceed the budget, all levels are the lowest.
        """
        count = len(self.blocks)
        levels = np.zeros(ratios.shape, dtype=np.int64)
        levels[:, :count] = kept
        space = self._at(kept)
        if space is None:
            return levels, np.zeros(len(ratios), dtype=np.bool_)
        levels[:, count:] = self._widths_only.top
        live = self._live(kept)
        if live:
            columns = [count + row for row in live]
            levels[:, columns] = space.fit(ratios[:, columns])
        usage = self.ladder.usage(levels)
        return levels, (usage <= 1) & (usage >= WINDOW_LOW)

    def _elsewhere(self, pattern: BoolArray, ratios: FloatArray, levels: IntArray) -> IntArray:
        """Return the levels [k] with other blocks that fill the window, or else fill the budget best."""
        best = levels
        for kept in self._others(pattern, ratios[: len(pattern)]):
            low, high = self._ends(kept)
            # Either no widths fit, or the widest plan fills no more than the best one so far.
            if low > 1 or high <= self._usage(best):
                continue
            found, inside = self._filled(kept, ratios[None])
            if inside[0]:
                best = found[0]
                break
            if self._usage(found[0]) > self._usage(best):
                best = found[0]
        return best

    def _others(self, pattern: BoolArray, ratios: FloatArray) -> Iterator[BoolArray]:
        """Iterate over other combinations of blocks, those first whose blocks are nearest to changing."""
        blocks = len(pattern)
        far = np.abs(ratios - EDGE)
        most = blocks if blocks <= MOST_LISTED else 2
        flips = [flip for size in range(1, most + 1) for flip in itertools.combinations(range(blocks), size)]
        chains = [] if blocks <= MOST_LISTED else list(_chains(pattern, far))
        flips.sort(key=lambda flip: (float(far[list(flip)].sum()), flip))
        for flip in [*chains, *flips][:TRIED]:
            kept = pattern.copy()
            kept[list(flip)] ^= True
            yield kept

    def _usage(self, levels: IntArray) -> float:
        """Return the usage of levels [k], or a negative number if they exceed the budget."""
        usage = float(self.ladder.usage(levels[None])[0])
        return usage if usage <= 1 else -usage

    def _ends(self, kept: BoolArray) -> tuple[float, float]:
        """Return the usage of the narrowest and of the widest plan with some blocks kept."""
        levels = np.concatenate([np.zeros((1, len(self.ladder.top)), np.int64), self.ladder.top[None]])
        levels[:, : len(kept)] = kept
        low, high = self.ladder.usage(levels).tolist()
        return low, high

    def _at(self, kept: BoolArray) -> SearchSpace | None:
        """Return the space of the keep ratios that have an effect with some blocks kept, if it fits."""
        key = kept.tobytes()
        if key not in self._spaces:
            if len(self._spaces) == KEPT:
                del self._spaces[next(iter(self._spaces))]
            live = self._live(kept)
            fits = live and self._ends(kept)[0] <= 1
            self._spaces[key] = self._narrowed(kept, live) if fits else None
        return self._spaces[key]

    def _narrowed(self, kept: BoolArray, live: Sequence[int]) -> SearchSpace:
        """Return the space of some keep ratios with some blocks kept. Other keep ratios are the highest."""
        ladder, full = self._widths_only, self._widths_only.full.copy()
        for row in ladder.rows:
            full[row.columns] = row.widths[-1]
        full[len(self.channel_groups) :] = kept
        part = Ladder([ladder.rows[row] for row in live], full, ladder.cost, self.budget)
        return SearchSpace(self.channel_groups, part, self.budget, self.relaxed, self.blocks)

    def _live(self, kept: BoolArray) -> list[int]:
        """Return the positions of the keep ratios that have an effect with some blocks kept."""
        gone = set(np.flatnonzero(~kept).tolist())
        return [row for row, inside in enumerate(self._inside) if not all(each in gone for each in inside)]

    def _by_cost(self) -> list[int]:
        """Return the positions of the blocks, those first that save most of the budget."""
        levels = np.repeat(self.ladder.top[None], len(self.blocks), axis=0)
        np.fill_diagonal(levels, 0)
        order: list[int] = np.argsort(self.ladder.usage(levels), kind="stable").tolist()
        return order

    def snap(self, ratios: FloatArray) -> IntArray:
        """Translate ratios into the nearest widths, whether the budget is met or not."""
        levels = self.ladder.of_ratios(np.asarray(ratios, dtype=np.float64).reshape(-1, len(self.variables)))
        count = len(self.blocks)
        for row in levels:
            dead = np.setdiff1d(np.arange(len(self._inside)), self._live(row[:count] > 0))
            row[count + dead] = self._widths_only.top[dead]
        widths = self.ladder.widths(levels)
        return widths if np.ndim(ratios) == 2 else widths[0]

    def list_levels(self) -> IntArray | None:
        """Return the levels [n, k] of all plans, or None if they are too many."""
        count = len(self.blocks)
        if count > MOST_LISTED:
            return None
        found: list[IntArray] = []
        for kept in itertools.product([True, False], repeat=count):
            levels = self._plans_of(np.array(kept))
            if levels is None:
                return None
            found.append(levels)
            if sum(map(len, found)) > COUNTED:
                return None
        plans = np.concatenate(found)
        usage = self.ladder.usage(plans)
        fullest = min(WINDOW_LOW, float(usage.max(initial=0.0)))
        return plans[usage >= fullest]

    def _plans_of(self, kept: BoolArray) -> IntArray | None:
        """Return the levels of all plans with some blocks kept that fill the budget as far as any of them."""
        live, space = self._live(kept), self._at(kept)
        if live and space is not None:
            listed = space.list_levels()
        else:
            # Without keep ratios there is one plan, if it fits. With them, none fits.
            listed = np.zeros((int(self._ends(kept)[0] <= 1 and not live), len(live)), np.int64)
        if listed is None:
            return None
        levels = np.repeat(self.ladder.top[None], len(listed), axis=0)
        levels[:, : len(kept)] = kept
        levels[:, [len(kept) + row for row in live]] = listed
        return levels

    def reach(self) -> Reach:
        """Return the smallest and largest cost of the space, and whether the budget's window can be met."""
        middle = self.fit(np.array([[(each.low + each.high) / 2 for each in self.variables]]))
        smallest, largest = (
            self.cost(self.ladder.widths(levels[None])[0])
            for levels in (np.zeros_like(self.ladder.top), self.ladder.top)
        )
        return Reach(smallest, largest, bool(self.ladder.usage(middle)[0] >= WINDOW_LOW))


def build_depth_space(
    groups: Sequence[ChannelGroup],
    blocks: Sequence[Block],
    cost: CostFunction,
    budget: Budget,
    spec: SpaceSpec | None = None,
) -> DepthSpace:
    """Build the search space of a model's groups and blocks.

    The arguments and errors are those of `build_space`, and the blocks that may be dropped. The cost takes
    widths [n, groups + blocks].
    """
    ladder, relaxed = build_ladder(groups, cost, budget, spec or SpaceSpec(), blocks)
    return DepthSpace(groups, blocks, ladder, budget, relaxed)


def _switch(block: Block, column: int) -> Levels:
    """Return the two levels of a block: dropped and kept."""
    columns, widths = np.array([column], dtype=np.int64), np.array([[0], [1]], dtype=np.int64)
    return Levels(block.name, columns, widths, np.array([LOWEST, 1.0]), np.array([EDGE]))


def _inside(groups: Sequence[ChannelGroup], blocks: Sequence[Block], ladder: Ladder) -> list[list[int]]:
    """Return for each keep ratio, and each of its groups, the position of the block around it, or -1."""
    holder = {name: place for place, block in enumerate(blocks) for name in block.groups}
    return [[holder.get(groups[column].name, -1) for column in row.columns] for row in ladder.rows]


def _chains(pattern: BoolArray, far: FloatArray) -> Iterator[tuple[int, ...]]:
    """Iterate over sets of blocks to change: one kept block, two, and so on. Then dropped ones likewise."""
    order = np.argsort(far, kind="stable")
    for state in (True, False):
        blocks = order[pattern[order] == state].tolist()
        yield from (tuple(blocks[:size]) for size in range(1, len(blocks) + 1))
