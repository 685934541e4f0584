"""The docstrings of the settings, which are the reference of a config, name all that a key may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from autoprune.config import settings
from autoprune.criteria import CRITERIA
from autoprune.data import DATASETS
from autoprune.engines import PRUNERS
from autoprune.latency.probes import PROBES
from autoprune.run._budget_amounts import KEYS
from autoprune.samplers import SAMPLERS
from autoprune.support.dtypes import DTYPES
from autoprune.train import OPTIMIZERS, SHAPES
from autoprune.train._metrics import METRICS
from autoprune.train.task import LOSSES
from autoprune.zoo import MODELS

TIMES = next(key.suffixes for key in KEYS if key.name == "latency")
BYTES = next(key.suffixes for key in KEYS if key.name == "size")


@pytest.mark.parametrize(
    ("section", "table"),
    [
        (settings.ModelSettings, settings.ModelSettings.__dataclass_fields__),
        (settings.ModelSettings, MODELS),
        (settings.DataSettings, settings.DataSettings.__dataclass_fields__),
        (settings.DataSettings, DATASETS),
        (settings.TaskSettings, LOSSES),
        (settings.TaskSettings, METRICS),
        (settings.BudgetSettings, TIMES),
        (settings.BudgetSettings, [suffix for suffix in BYTES if len(suffix) > 1]),
        (settings.LatencySettings, PROBES),
        (settings.EvolutionSettings, settings.EvolutionSettings.__dataclass_fields__),
        (settings.SearchSettings, SAMPLERS),
        (settings.SearchSettings, CRITERIA),
        (settings.SearchSettings, PRUNERS),
        (settings.SearchSettings, DTYPES),
        (settings.SearchSettings, [key.name for key in KEYS]),
        (settings.ScheduleSettings, OPTIMIZERS),
        (settings.ScheduleSettings, SHAPES),
    ],
)
def test_every_name_of_a_table_is_in_the_docstring_of_its_section(
    section: type, table: Iterable[str]
) -> None:
    words = re.findall(r"[\w-]+", str(section.__doc__).lower())
    assert [name for name in table if name and name not in words and "µ" not in name] == []


def test_every_limit_is_a_key_of_the_budget() -> None:
    assert {key.name for key in KEYS} == set(settings.BudgetSettings.__dataclass_fields__)
