"""Moves proposals into the budget window: scaled by a common factor, filled step by step, then by exchanges.

    levels, inside = Filler(ladder).fill(ratios)      # int64 [n, k], and bool [n]: whether in the window

The cost never falls if a width grows, so the plans along one factor are ordered by cost, and bisection finds
the last one that fits. The rest of the budget is filled in the order of largest remainders. The few proposals
that are still below the window try exchanges (one variable up, one down). Small spaces are listed once
instead, and the nearest plan inside is taken. All of it is deterministic, and vectorised over the proposals.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import KDTree

from autoprune.space._budget import WINDOW_LOW
from autoprune.space._exhaustive import ROUNDING, fullest_plans, list_plans, nearest_plan
from autoprune.space._ladder import CHUNK, Ladder
from autoprune.support.arrays import BoolArray, FloatArray, IntArray

BISECTIONS = 30
LISTED = 16_384
BEAM = 512
EXCHANGES = 4
PAIRS = 1_600


class Filler:
    """Fits proposals into the window of one ladder's budget.

    Attributes:
        lowest: the window's lower end: 0.98, or the largest usage that any plan reaches if that is less.
        known_to_miss: whether listing all plans has shown that none lies in [0.98, 1].
    """

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self.lowest = WINDOW_LOW
        self.known_to_miss = False
        self._listed: IntArray | None = None
        self._tree: KDTree | None = None
        self._tried_listing = False
        middle = (ladder.low + ladder.high)[None] / 2
        _, inside, _ = self._climb(middle)
        if not inside[0]:
            self._list()

    def fill(self, ratios: FloatArray) -> tuple[IntArray, BoolArray]:
        """Return levels [n, k] for proposed ratios [n, k], and which of them lie in the window [n].

        A proposal that lies in the window already is taken as it is.
        """
        levels = self.ladder.of_ratios(ratios)
        usage = self.ladder.usage(levels)
        inside = self._is_inside(usage)
        todo = np.flatnonzero(~inside)
        if len(todo):
            climbed, hit, scaled = self._climb(ratios[todo])
            if not hit.all():
                climbed[~hit], hit[~hit] = self._repair(climbed[~hit], scaled[~hit])
            levels[todo], inside[todo] = climbed, hit
        return levels, inside

    def plans(self, limit: int) -> IntArray | None:
        """Return the levels [n, k] of all plans that `fill` gives, or None if there are too many to list.

        They are counted up to `limit`, or up to `LISTED` if they have been listed already.
        """
        return self._listed if self._tried_listing else list_plans(self.ladder, WINDOW_LOW, limit)

    def _is_inside(self, usage: FloatArray) -> BoolArray:
        inside: BoolArray = (usage <= 1.0) & (usage >= self.lowest - (ROUNDING if self.known_to_miss else 0))
        return inside

    def _climb(self, ratios: FloatArray) -> tuple[IntArray, BoolArray, FloatArray]:
        """Scale by the largest common factor that fits, then raise single variables by largest remainder."""
        levels, scaled = self._scale(ratios)
        remainders = self._remainders(levels, scaled)
        order = np.argsort(-remainders, axis=1, kind="stable")
        usage = self.ladder.usage(levels)
        risen = True
        # In rounds, so that no variable rises twice before all others have been tried.
        while risen:
            risen = False
            for rank in range(levels.shape[1]):
                variable = order[:, rank]
                rows = np.arange(len(levels))
                can = (usage < self.lowest) & (levels[rows, variable] < self.ladder.top[variable])
                rows = rows[can]
                if not len(rows):
                    continue
                trial = levels[rows]
                trial[np.arange(len(rows)), variable[rows]] += 1
                trial_usage = self.ladder.usage(trial)
                fits = trial_usage <= 1.0
                levels[rows[fits]], usage[rows[fits]] = trial[fits], trial_usage[fits]
                risen = risen or bool(fits.any())
        return levels, self._is_inside(usage), scaled

    def _scale(self, ratios: FloatArray) -> tuple[IntArray, FloatArray]:
        """Bisect the common factor, and return the last levels that fit and their ratios, both [n, k]."""
        ratios = np.clip(ratios, self.ladder.low, self.ladder.high)
        # At -1 all variables are at their lowest levels. A space whose smallest plan does not fit is refused.
        fits, over = np.full(len(ratios), -1.0), np.full(len(ratios), 1.0)
        for _ in range(BISECTIONS):
            middle = (fits + over) / 2
            # Each proposal has its own factor, and all are bisected in one evaluation of the cost.
            below = self.ladder.usage(self.ladder.of_ratios(self._scaled(ratios, middle))) <= 1.0
            fits, over = np.where(below, middle, fits), np.where(below, over, middle)
        scaled = self._scaled(ratios, fits)
        return self.ladder.of_ratios(scaled), scaled

    def _scaled(self, ratios: FloatArray, place: FloatArray) -> FloatArray:
        """Return the ratios [n, k] at places [n]: -1 is all lowest, 0 as proposed, 1 all highest.

        Below 0 the ratios shrink by a common factor. Above 0 the shares that are cut shrink by one, so that
        no variable reaches its highest ratio before the others.
        """
        low, high = self.ladder.low, self.ladder.high
        span = float(np.log(high.max() / low.min())) + 1e-6
        place = place[:, None]
        down = np.clip(ratios * np.exp(np.minimum(place, 0) * span), low, high)
        up = high - (high - ratios) * (1 - place)
        return np.where(place < 0, down, up)

    def _remainders(self, levels: IntArray, scaled: FloatArray) -> FloatArray:
        """Return how near each scaled ratio is to its next level, 0 (just reached) to 1, [n, k]."""
        parts = []
        for v, row in enumerate(self.ladder.rows):
            # The last bound only has to be above the highest ratio: the highest level is never raised.
            bounds = np.concatenate([[row.ratios[0]], row.edges, [row.ratios[-1] + 1.0]])
            lower, upper = bounds[levels[:, v]], bounds[levels[:, v] + 1]
            parts.append((scaled[:, v] - lower) / np.maximum(upper - lower, 1e-12))
        return np.stack(parts, axis=1)

    def _repair(self, levels: IntArray, scaled: FloatArray) -> tuple[IntArray, BoolArray]:
        """Move the plans [n, k] that stayed below the window into it, near their scaled ratios [n, k]."""
        listed = self._list()
        if listed is not None and self._tree is not None:
            _, nearest = self._tree.query(scaled, p=1)
            return listed[nearest], np.full(len(levels), not self.known_to_miss)
        levels, inside = self._exchange(levels)
        for row in np.flatnonzero(~inside):
            found = nearest_plan(self.ladder, self.lowest, BEAM, scaled[row])
            if found is not None:
                levels[row], inside[row] = found, True
        return levels, inside

    def _list(self) -> IntArray | None:
        """List the plans of a small space once: those in the window, else the fullest below."""
        if not self._tried_listing:
            self._tried_listing = True
            plans = list_plans(self.ladder, WINDOW_LOW, LISTED)
            if plans is not None and not len(plans):
                self.known_to_miss = True
                plans = fullest_plans(self.ladder, LISTED)
                if plans is not None:
                    self.lowest = float(self.ladder.usage(plans).max())
            self._listed = plans
            self._tree = KDTree(self.ladder.ratios(plans)) if plans is not None else None
        return self._listed

    def _exchange(self, levels: IntArray) -> tuple[IntArray, BoolArray]:
        """Raise one variable and lower another until the window is met, or nothing comes nearer."""
        moves = exchanges(levels.shape[1])
        levels = levels.copy()
        usage = self.ladder.usage(levels)
        for _ in range(EXCHANGES):
            rows = np.flatnonzero(~self._is_inside(usage))
            per_chunk = max(1, CHUNK // len(moves))
            for start in range(0, len(rows), per_chunk):
                chunk = rows[start : start + per_chunk]
                levels[chunk], usage[chunk] = self._best_move(levels[chunk], usage[chunk], moves)
        return levels, self._is_inside(usage)

    def _best_move(self, levels: IntArray, usage: FloatArray, moves: IntArray) -> tuple[IntArray, FloatArray]:
        """Return each row's smallest move into the window, else the move that fills most, else itself."""
        trial = levels[:, None, :] + moves[None]
        allowed: BoolArray = np.all((trial >= 0) & (trial <= self.ladder.top), axis=2)
        trial = np.where(allowed[..., None], trial, levels[:, None, :])
        flat = trial.reshape(-1, levels.shape[1])
        trial_usage = self.ladder.usage(flat).reshape(allowed.shape)
        distance = np.abs(
            self.ladder.ratios(flat).reshape(trial.shape) - self.ladder.ratios(levels)[:, None]
        ).sum(axis=2)
        # A move into the window ranks in (1, 2], nearest first, and any other by its usage, which is below 1.
        rank = np.where(self._is_inside(trial_usage), 2.0 - distance / (1 + distance), trial_usage)
        rank = np.where(trial_usage <= 1.0, rank, -1.0)
        best = np.argmax(rank, axis=1)
        rows = np.arange(len(levels))
        better = rank[rows, best] > usage
        chosen = np.where(better[:, None], trial[rows, best], levels)
        return chosen, np.where(better, trial_usage[rows, best], usage)


def exchanges(variables: int) -> IntArray:
    """Return exchanges [moves, k]: one variable up by 1 to 3 levels, another down by 1 to 3.

    Up to about 40 variables every pair takes part. Beyond, each variable is paired with its next few, which
    bounds the memory.
    """
    first = np.arange(variables)
    offsets = range(1, min(variables, 2 + PAIRS // variables))
    blocks = [np.zeros((0, variables), dtype=np.int64)]
    for offset, up, down in itertools.product(offsets, (1, 2, 3), (1, 2, 3)):
        block = np.zeros((variables, variables), dtype=np.int64)
        block[first, first] = up
        block[first, (first + offset) % variables] = -down
        blocks.append(block)
    return np.concatenate(blocks)
