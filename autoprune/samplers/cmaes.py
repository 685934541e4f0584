"""CMA-ES: a normal distribution over the ratios that moves towards the better half of each generation.

Example:
    sampler = make_cmaes(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.trial import FrozenTrial

from autoprune.errors import summary_of
from autoprune.samplers._attributes import QUEUED, set_attribute
from autoprune.samplers._context import SamplerContext
from autoprune.samplers._moving_budget import PLANNED
from autoprune.samplers._past_trials import read_history
from autoprune.samplers._study_view import view_study

SEPARABLE_FROM = 50
"""Number of variables from which only variances are learnt: a full covariance needs too many trials."""

SMALLEST = 4
"""The smallest population with more than one parent, without which the covariance update is undefined."""

START = "autoprune:cmaes_start"
"""The attribute of the first trial that CMA-ES drew: the first mean, or None for the centre."""

_LOADABLE = {
    *((module, name) for name in ("CMA", "SepCMA") for module in ("cmaes", f"cmaes._{name.lower()}")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}
"""(module, name) of the classes and functions in a pickled distribution."""

_log = logging.getLogger(__name__)


class _FromTheBest(CmaEsSampler):
    """CMA-ES whose first mean is the best trial that was queued before its own first proposal."""

    def __init__(self, context: SamplerContext, **options: Any) -> None:
        super().__init__(seed=context.seed, **options)
        self._context = context

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw from the distribution of the earlier generations. The first trial gets no proposal."""
        self._x0 = self._start(study, trial) if search_space else None
        return super().sample_relative(study, trial, search_space)

    def _start(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, float] | None:
        """Return the ratios of the first mean, or None for the centre.

        They are stored with the first trial that CMA-ES draws. So the whole first generation has the same
        mean, although warm starts on other workers may end in the meantime.
        """
        names = {variable.name for variable in self._context.space.variables}
        for other in study.get_trials(deepcopy=False):
            if START in other.system_attrs:
                stored: dict[str, float] | None = other.system_attrs[START]
                if stored is None or stored.keys() == names:
                    return stored
        start = self._best_queued(study, trial)
        set_attribute(study, trial, START, start)
        return start

    def _best_queued(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, float] | None:
        queued = view_study(
            study, lambda other: QUEUED in other.system_attrs or bool(other.system_attrs.get(PLANNED))
        )
        outcomes = read_history(self._context, queued, trial).outcomes
        if not outcomes:
            return None
        best = max(outcomes, key=lambda outcome: outcome.score)
        names = [variable.name for variable in self._context.space.variables]
        return dict(zip(names, best.ratios.tolist(), strict=True))

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """Return the distribution that the last trial with one stored, or None if no trial has one.

        Optuna stores a pickle, and a pickle can run any code. So only the classes of such a distribution are
        loaded. A trial whose pickle is damaged, or names anything else, counts as a trial without one.
        """
        prefix = self._attr_key_optimizer
        for trial in reversed(completed_trials):
            parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(prefix)}
            if not parts:
                continue
            try:
                pickled = bytes.fromhex(self._concat_optimizer_attrs(parts))
                optimizer = _Unpickler(io.BytesIO(pickled)).load()
            except Exception as error:  # a damaged pickle raises whatever its opcodes run into
                _log.warning("trial %d: its state of CMA-ES is left out: %s", trial.number, summary_of(error))
                continue
            if type(optimizer).__module__.partition(".")[0] == "cmaes":
                return optimizer
        return None


class _Unpickler(pickle.Unpickler):
    """Loads nothing but the distributions of the package cmaes, and the arrays in them."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that a pickle names."""
        # The whole path is compared, because the module is imported: some modules of numpy run a program.
        if (module, name) in _LOADABLE:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def make_cmaes(context: SamplerContext) -> BaseSampler:
    """Make Optuna's CMA-ES with the usual population, 4 + 3 ln k, but at most a fifth of the trials.

    The population is at least 4. The first mean is the best complete warm start, or the centre of the space
    if there is none. The first standard deviation is a sixth of each range. Optuna's sampler starts from the
    centre and ignores warm starts, because it did not draw them. Its option for them, `source_trials`, needs
    ten trials and cannot be combined with the separable form.

    Reference: Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, table 1. The separable form, from 50
    variables on, is that of Ros and Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space
    Complexity", 2008.
    """
    usual = 4 + math.floor(3 * math.log(context.variables))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _FromTheBest(
            context,
            popsize=max(SMALLEST, min(usual, context.trials // 5)),
            use_separable_cma=context.variables >= SEPARABLE_FROM,
            warn_independent_sampling=False,
        )
