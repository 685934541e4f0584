"""The environment of the DDPG agent: a walk through the variables that chooses one keep ratio a step.

Example:
    walk = Walk(context)
    levels, states = walk.go(lambda state: 0.4)      # int64 [k], float64 [k, STATE]
    actions, states = walk.replay(ratios)            # of a plan that was scored
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._past_trials import levels_of, places, ratios_at
from autoprune.space import WINDOW_LOW, SearchSpace, Variable
from autoprune.support.arrays import FloatArray, IntArray

STATE = 8
"""Size of a state: index, channels, input channels, kernel, cost, cost reduced, cost left, last action."""

EVEN = 0.5
"""The action that puts a variable, and all later ones, at the one place at which the budget is just met."""

GRID = 33
MARGIN = 0.02
"""Smallest distance of the even place from both ends of the range. So both halves of the actions differ."""


class Walk:
    """A walk through the variables of one search space.

    An action below `EVEN` keeps less of a variable than its even share of the remaining budget, and an action
    above `EVEN` keeps more. So all later variables share the rest of the budget. If actions were places in
    the range, the last variables alone would have to compensate for the noise of all others.

    Costs are shares of the tightest budget: MACs under a budget of MACs, parameters under one of parameters.
    States hold them divided by the cost of the space's largest plan.
    """

    def __init__(self, context: SamplerContext) -> None:
        self._context = context
        self._ladder = context.space.ladder
        self._dense = float(self._ladder.usage(self._ladder.top[None])[0])
        self._grid = np.linspace(0.0, 1.0, GRID)
        self._grid_levels = self._ladder.of_ratios(ratios_at(context, self._grid[:, None]))
        self._facts = self._fixed_facts(context)

    def go(self, act: Callable[[FloatArray], float]) -> tuple[IntArray, FloatArray]:
        """Choose one level after the other. Levels are bounded so that the budget stays reachable.

        Args:
            act: from a state to an action, from 0 (the lowest keep ratio) over `EVEN` to 1 (the highest).

        Returns:
            The levels [k], and the states [k, STATE] in which they were chosen.
        """
        ladder, top = self._ladder, self._ladder.top
        chosen = np.zeros_like(top)
        states = np.empty((len(top), STATE))
        last, most, least = EVEN, self._dense, float(ladder.usage(chosen[None])[0])
        for step, row in enumerate(ladder.rows):
            states[step] = self._state(step, most, least, last)
            even = float(self._even_places(chosen[None], np.array([step]))[0])
            low, span = row.ratios[0], row.ratios[-1] - row.ratios[0]
            wanted = low + span * _place(act(states[step]), even)
            rest_least, rest_most = self._costs_of_levels(chosen, step)
            level = int(row.of_ratio(np.array([wanted]))[0])
            if len(row.columns):  # a choice of criterion costs nothing
                level = _bounded(level, rest_least, rest_most)
            chosen[step] = level
            most, least = rest_most[level], rest_least[level]
            last = _action((row.ratios[level] - low) / span, even)
        return chosen, states

    def replay(self, ratios: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the actions [k] and states [k, STATE] of a walk that ended in a plan's ratios [k]."""
        levels = levels_of(self._context, ratios)
        where = places(self._context, self._ladder.ratios(levels[None])[0])
        steps = np.arange(len(levels))
        evens = self._even_places(np.repeat(levels[None], len(levels), axis=0), steps)
        actions = np.array([_action(place, even) for place, even in zip(where, evens, strict=True)])
        # Before step i, only the levels of earlier variables are known. The open ones can still be at the top
        # or at the bottom, which gives the costs between which the plan can end.
        settled = steps[None] < steps[:, None]
        most = self._ladder.usage(np.where(settled, levels, self._ladder.top))
        least = self._ladder.usage(np.where(settled, levels, 0))
        last = np.concatenate([[EVEN], actions[:-1]])
        states = [self._state(step, most[step], least[step], last[step]) for step in range(len(levels))]
        return actions, np.stack(states)

    def _state(self, step: int, most: float, least: float, last: float) -> FloatArray:
        """Return the state before a step, if the plans that are still open cost from `least` to `most`."""
        costs = [1 - most / self._dense, (most - least) / self._dense]
        return np.concatenate([self._facts[step], costs, [last]])

    def _even_places(self, levels: IntArray, steps: IntArray) -> FloatArray:
        """Return the place [n] at which all variables from steps [n] on fill the budget of plans [n, k]."""
        # Usage rises with the place, so it is computed on a grid of places, and the place of usage 1 is
        # interpolated.
        is_open = np.arange(levels.shape[1]) >= steps[:, None]
        plans = np.where(is_open[:, None], self._grid_levels, levels[:, None])
        usage = self._ladder.usage(plans.reshape(-1, levels.shape[1])).reshape(len(levels), GRID)
        found = np.array([np.interp(1.0, each, self._grid) for each in usage])
        kept_inside: FloatArray = np.clip(found, MARGIN, 1 - MARGIN)
        return kept_inside

    def _costs_of_levels(self, chosen: IntArray, step: int) -> tuple[FloatArray, FloatArray]:
        """Return the cost of each level of a step, with later variables at their lowest and highest."""
        levels = int(self._ladder.top[step]) + 1
        plans = np.repeat(chosen[None], 2 * levels, axis=0)
        plans[:levels, step + 1 :] = 0
        plans[levels:, step + 1 :] = self._ladder.top[step + 1 :]
        plans[:, step] = np.tile(np.arange(levels), 2)
        usage = self._ladder.usage(plans)
        return usage[:levels], usage[levels:]

    def _fixed_facts(self, context: SamplerContext) -> FloatArray:
        """Return the constant part of states: index, channels, inputs, kernel and cost, each in [0, 1]."""
        ladder = self._ladder
        without = np.repeat(ladder.top[None], len(ladder.top), axis=0)
        np.fill_diagonal(without, 0)
        saves = self._dense - ladder.usage(without)
        shapes = [_shape_of(variable, context.space, context.shapes) for variable in context.space.variables]
        columns = np.column_stack([np.arange(len(saves)), np.array(shapes), saves])
        largest: FloatArray = columns / np.maximum(columns.max(axis=0), 1e-12)
        return largest


def _place(action: float, even: float) -> float:
    """Return the place, from 0 to 1 in a variable's range, that an action selects."""
    return float(np.interp(action, [0.0, EVEN, 1.0], [0.0, even, 1.0]))


def _action(place: float, even: float) -> float:
    """Return the action that selects a place."""
    return float(np.interp(place, [0.0, even, 1.0], [0.0, EVEN, 1.0]))


def _bounded(level: int, rest_least: FloatArray, rest_most: FloatArray) -> int:
    """Return the nearest level from which later variables can still fill the budget without exceeding it."""
    # Both costs rise with the level, so counting gives the highest level that can still fit the budget, and
    # the lowest one from which the window can still be reached.
    highest = int(np.count_nonzero(rest_least <= 1.0)) - 1
    lowest = int(np.count_nonzero(rest_most < WINDOW_LOW))
    return max(0, min(max(level, lowest), highest))


def _shape_of(
    variable: Variable, space: SearchSpace, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, int, int]:
    """Return channels, most input channels and largest kernel of the layers writing a variable's groups."""
    channels, inputs, kernel = 0, 0, 0
    for group in space.channel_groups:
        if group.name not in variable.groups:
            continue
        channels += group.width
        for member in group.members:
            shape = shapes.get(member.parameter, ())
            if member.axis == 0 and len(shape) > 1:
                inputs, kernel = max(inputs, shape[1]), max(kernel, math.prod(shape[2:]))
    return channels, inputs, kernel
