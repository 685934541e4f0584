"""The costs of a model: one table of them, and exact counts from the widths of a candidate.

A cost is a row of COSTS. A key of [budget] and an option of `autoprune best` limit it, a search can minimise
it, and trials, tables and plots show it. A new one is a function and a row:

    from autoprune.cost import COSTS, CostKey, CostSpec, counts

    def channels(prunable):
        return lambda widths: widths.sum(axis=1)      # int64 [candidates, groups] -> [candidates]

    COSTS["channels"] = CostSpec("channels", (CostKey("channels", counts("channels")),), channels)

`formula` counts MACs and parameters, `memory` the bytes, both by sums of `polynomial`. These modules load
torch or NumPy. The table does not.
"""

from __future__ import annotations

from autoprune.cost._costs import COSTS, LATENCY, CostKey, CostSpec, budget_keys
from autoprune.cost._units import BYTES, MILLISECONDS, Unit, amount, counts, three_digits

__all__ = [
    "BYTES",
    "COSTS",
    "LATENCY",
    "MILLISECONDS",
    "CostKey",
    "CostSpec",
    "Unit",
    "amount",
    "budget_keys",
    "counts",
    "three_digits",
]
