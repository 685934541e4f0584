"""The objectives of a search: the score alone, or a Pareto front of the score and one or several costs.

Example:
    objective_costs(config.search)        # ("macs", "latency_ms") for ["score", "flops", "latency"]
"""

from __future__ import annotations

from autoprune.config.settings import SearchSettings
from autoprune.cost import COSTS, budget_keys
from autoprune.errors import ConfigError, unknown
from autoprune.study import SCORE


def objective_costs(search: SearchSettings) -> tuple[str, ...]:
    """Return the costs that are minimised in addition to the score, in their order.

    Raises:
        ConfigError: the score is not first, a name is unknown (the message suggests the nearest), or a cost
            is named twice.
    """
    known = {key.name: key.cost for key in budget_keys().values() if COSTS[key.cost].is_objective}
    names = list(search.objectives)
    if names[:1] != [SCORE]:
        raise ConfigError(f'search.objectives: got {names}, expected "{SCORE}" first, then costs.')
    named: dict[str, str] = {}
    for name in names[1:]:
        if name not in known:
            raise ConfigError(unknown("search.objectives", name, known))
        if known[name] in named:
            raise ConfigError(
                f'search.objectives: "{named[known[name]]}" and "{name}" are the same cost. Leave one out.'
            )
        named[known[name]] = name
    return tuple(named)
