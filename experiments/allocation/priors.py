"""A Gaussian process over plans with and without a structured prior, to compare with the samplers.

    python -m experiments.allocation.replay --samplers gp experiments.allocation.priors:library

All of them model the score over log widths, and propose the plan with the highest expected improvement among
all plans of the space. "library" models the difference to a line in the summed output error of the plan's
groups, "study" that to a line in a prediction from trials under the other budget, and "plain" has no prior.
The slope of the line is fitted to the scores so far, and is never negative. A score under another budget is
on another level, which the line's intercept takes up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from optuna._gp import gp
from optuna._gp.prior import DEFAULT_MINIMUM_NOISE_VAR, default_log_prior
from scipy.stats import norm

from autoprune.config.settings import RUNGS
from autoprune.run._measuring.heuristics import Proposer
from autoprune.samplers import PlanSampler, SamplerContext
from autoprune.samplers._past_trials import History
from autoprune.samplers._plan_sampler import random_ratios
from autoprune.support.arrays import FloatArray
from experiments.allocation.replay import measured
from experiments.allocation.setups import SETUPS, context_of
from experiments.allocation.table import path_of
from experiments.common import rows_of

EARLIER_TRIALS = 60
"""Trials of the earlier study, drawn from the other table."""

RIDGE = 1.0
"""Of the linear model of the earlier scores, in trials."""

Prior = Callable[[str, int], FloatArray]
"""From (setup, seed of the search) to a prediction for each plan [n], in any unit."""


def plain(context: SamplerContext) -> PlanSampler:
    """Model the scores without a prior."""
    return _sampler(context, lambda setup, seed: np.zeros(len(_features(setup))))


def library(context: SamplerContext) -> PlanSampler:
    """Model the difference to the error library."""
    return _sampler(context, lambda setup, seed: _library_scores(setup))


def study(context: SamplerContext) -> PlanSampler:
    """Model the difference to a linear model of the trials of an earlier study."""
    return _sampler(context, _earlier_scores)


def _sampler(context: SamplerContext, prior: Prior) -> PlanSampler:
    setup = next(name for name in SETUPS if context_of(name).run.space is context.space)

    def propose(
        context: SamplerContext, history: History, rng: np.random.Generator, attempt: int
    ) -> FloatArray:
        if len(history.outcomes) < context.startup_trials:
            return random_ratios(context, rng)
        tried = context.space.decode(np.array([each.ratios for each in history.outcomes]))
        places = [_place(setup)[widths.tobytes()] for widths in tried]
        scores = np.array([each.score for each in history.outcomes])
        gain = expected_improvement(_features(setup), places, scores, prior(setup, context.search_seed))
        gain[places] = -np.inf
        best = int(np.argsort(-gain, kind="stable")[attempt])
        ratios: FloatArray = context.space.encode(context_of(setup).plans[best])
        return ratios

    return PlanSampler(context, propose)


def expected_improvement(
    features: FloatArray, places: list[int], scores: FloatArray, prior: FloatArray
) -> FloatArray:
    """Return the expected improvement of each plan [n] over the best of some scores.

    Args:
        features: of all plans, in [0, 1], float64 [n, k].
        places: the plans that are scored.
        scores: their scores.
        prior: a prediction for each plan [n], in any unit.
    """
    known = prior[places]
    slope = max(0.0, float(np.cov(known, scores, bias=True)[0, 1]) / max(float(known.var()), 1e-12))
    rest = scores - slope * known
    middle, spread = float(rest.mean()), max(float(rest.std()), 1e-9)
    process = gp.fit_kernel_params(
        X=features[places],
        Y=(rest - middle) / spread,
        is_categorical=np.zeros(features.shape[1], dtype=bool),
        log_prior=default_log_prior,
        minimum_noise=DEFAULT_MINIMUM_NOISE_VAR,
        gpr_cache=None,
        deterministic_objective=False,
    )
    with torch.no_grad():
        mean, variance = (each.numpy() for each in process.posterior(torch.from_numpy(features)))
    above = mean * spread + middle + slope * prior - scores.max()
    deviation = np.sqrt(np.maximum(variance, 1e-12)) * spread
    gain: FloatArray = above * norm.cdf(above / deviation) + deviation * norm.pdf(above / deviation)
    return gain


@functools.cache
def _place(setup: str) -> dict[bytes, int]:
    return {plan.tobytes(): place for place, plan in enumerate(context_of(setup).plans)}


@functools.cache
def _columns(setup: str) -> list[int]:
    space = context_of(setup).run.space
    return [space.groups.index(variable.name) for variable in space.variables]


@functools.cache
def _features(setup: str) -> FloatArray:
    """Return the log widths of all plans, each from 0 to 1."""
    logs = np.log(context_of(setup).plans[:, _columns(setup)])
    low, high = logs.min(axis=0), logs.max(axis=0)
    return np.asarray((logs - low) / np.maximum(high - low, 1e-9))


@functools.cache
def _library_scores(setup: str) -> FloatArray:
    context = measured(setup)
    curves = Proposer(context, context.run.space).library().curves
    plans, names = context_of(setup).plans, context.run.space.groups
    errors = [curves[names[at]].errors[plans[:, at]] for at in _columns(setup)]
    return -np.asarray(np.sum(errors, axis=0))


@functools.cache
def _earlier_scores(setup: str, seed: int) -> FloatArray:
    (other,) = SETUPS.keys() - {setup}
    rows = rows_of(path_of(other))
    drawn = np.random.default_rng(seed).choice(len(rows), EARLIER_TRIALS, replace=False)
    logs = np.log([[int(width) for width in rows[at]["widths"].split()] for at in drawn])[:, _columns(setup)]
    scores = np.array([float(rows[at][RUNGS[-1]]) for at in drawn])
    middle = logs.mean(axis=0)
    inputs = logs - middle
    slopes = np.linalg.solve(
        inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1]), inputs.T @ (scores - scores.mean())
    )
    return np.asarray((np.log(context_of(setup).plans[:, _columns(setup)]) - middle) @ slopes)
