"""Optuna's lines are silent, unless the logger of the package shows INFO."""

from __future__ import annotations

import logging

import optuna
import pytest

from autoprune.run._trials.optuna_log import quiet_optuna


@pytest.mark.parametrize(("level", "is_shown"), [(logging.WARNING, False), (logging.INFO, True)])
def test_progress_of_optuna_is_shown_on_request(level: int, is_shown: bool) -> None:
    logger, before = logging.getLogger("autoprune"), optuna.logging.get_verbosity()
    known = logger.level
    logger.setLevel(level)
    optuna.logging.set_verbosity(logging.INFO)
    try:
        with quiet_optuna():
            assert (optuna.logging.get_verbosity() <= logging.INFO) is is_shown
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        logger.setLevel(known)
        optuna.logging.set_verbosity(before)
