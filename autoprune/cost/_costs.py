"""The table COSTS, one row a cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from autoprune.cost._units import BYTES, MILLISECONDS, Unit, counts

if TYPE_CHECKING:
    from autoprune.graph import Prunable
    from autoprune.support.arrays import FloatArray, IntArray

    CostMeasure: TypeAlias = Callable[[IntArray], IntArray | FloatArray]
    """From widths int64 [n, groups] to one cost [n]. It never falls if a width grows."""


@dataclass(frozen=True)
class CostKey:
    """A key of [budget], which also names an objective and an option of `autoprune best`.

    Attributes:
        name: of the key.
        unit: of its amounts.
        help: the meaning of the key, for the config reference.
        per_cost: how many of that unit one unit of the cost is, such as 2 FLOPs for each MAC.
        cost: the name in COSTS of the cost that it limits. `budget_keys` fills it in.
    """

    name: str
    unit: Unit
    help: str = ""
    per_cost: int = 1
    cost: str = ""

    @property
    def option(self) -> str:
        """The option of `autoprune best`: "--peak-memory"."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class CostSpec:
    """A cost.

    Attributes:
        label: its heading in tables and plots.
        keys: of [budget]. The last one counts in the unit of the cost itself.
        measure: returns a function from widths to the cost, given a traced model. None if `prunable.cost`
            counts it, or if it is measured on the device.
        is_objective: whether a search can minimise it.
    """

    label: str
    keys: tuple[CostKey, ...]
    measure: Callable[[Prunable], CostMeasure] | None = None
    is_objective: bool = True

    @property
    def unit(self) -> Unit:
        """The unit that the cost is stored in."""
        return self.keys[-1].unit


def _size(prunable: Prunable) -> CostMeasure:
    from autoprune.cost.memory import size_bytes

    return size_bytes(prunable)


def _peak_memory(prunable: Prunable) -> CostMeasure:
    from autoprune.cost.memory import peak_memory_bytes

    return peak_memory_bytes(prunable)


LATENCY = "latency_ms"
"""The cost that is measured on a device."""

COSTS: dict[str, CostSpec] = {
    "macs": CostSpec(
        "MACs",
        (
            CostKey(
                "flops",
                counts("FLOPs"),
                "FLOPs of one forward pass of one image, which are twice the MACs.",
                per_cost=2,
            ),
            CostKey("macs", counts("MACs"), "multiply-adds of one forward pass of one image."),
        ),
    ),
    "params": CostSpec("params", (CostKey("params", counts("parameters"), "parameters."),)),
    LATENCY: CostSpec(
        "latency",
        (
            CostKey(
                "latency",
                MILLISECONDS,
                "time of one forward pass under [latency], in us, ms or s.",
            ),
        ),
    ),
    "size_bytes": CostSpec(
        "size",
        (CostKey("size", BYTES, "bytes of the saved model: its parameters and buffers."),),
        _size,
    ),
    "peak_memory_bytes": CostSpec(
        "memory",
        (
            CostKey(
                "peak_memory",
                BYTES,
                "bytes that weights and activations take at the fullest moment of a forward pass at batch 1.",
            ),
        ),
        _peak_memory,
    ),
}


def budget_keys() -> dict[str, CostKey]:
    """Return all keys of [budget] by name, each with the cost that it bounds."""
    return {key.name: replace(key, cost=cost) for cost, spec in COSTS.items() for key in spec.keys}
