"""The Gaussian process while other processes write proposals, which it may read half-written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import optuna
import pytest
from optuna.samplers._gp.sampler import _RELATIVE_PARAMS_KEY

from tests.samplers.search import Search


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    optuna.logging.set_verbosity(before)


def proposed_next_to(attribute: str | None) -> dict[str, float]:
    """A proposal while another trial runs whose own is in the storage like this; None: not yet at all."""
    search = Search("gp", 4, 10)
    search.run()
    other = search.ask()
    if attribute is not None:
        other.storage.set_trial_system_attr(other._trial_id, f"{_RELATIVE_PARAMS_KEY}:0", attribute)
    trial = search.ask()
    search.suggest(trial)
    return dict(trial.params)


def test_the_half_written_proposal_of_another_process_is_passed_over() -> None:
    assert proposed_next_to('{"conv0": 0.5, "conv1": 0.') == proposed_next_to(None)


def test_a_whole_one_is_kept_away_from() -> None:
    """It lies at the point of which the process expects most."""
    corner = '{"conv0": 0.125, "conv1": 1.0, "conv2": 0.125, "conv3": 1.0}'
    assert proposed_next_to(corner) != proposed_next_to(None)
