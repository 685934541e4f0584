"""The ways to refit the layers of a smaller model, one function and one row of REPAIRS each.

Masked weights of the refitted model are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoprune.flow._state import FlowState
from autoprune.flow._workbench import Workbench
from autoprune.reconstruction import Repaired, repair_closed, repair_sequential
from autoprune.score import calibrate
from autoprune.support.rows import Row, find_row

Repair = Callable[[Workbench, FlowState], Repaired]
"""Refits a copy of the smaller model of a state, and holds its masks."""


def closed(bench: Workbench, state: FlowState) -> Repaired:
    """Refit each layer by itself from moments, and measure BatchNorm again."""
    assert state.cut is not None
    assert state.small is not None
    moments = bench.moments(state.prunable)
    found = repair_closed(state.prunable, state.cut, state.small, moments)
    state.masks.apply(found.model)  # first, since the statistics of BatchNorm follow the weights
    batches, seed = bench.config.score.calibration_batches, bench.config.search.seed
    calibrate(found.model, bench.data, batches, bench.setting, seed=seed)
    return found


def sequential(bench: Workbench, state: FlowState) -> Repaired:
    """Refit layer after layer, from the outputs of the repaired layers before it."""
    assert state.cut is not None
    assert state.small is not None
    found = repair_sequential(
        state.prunable,
        state.cut,
        state.small,
        bench.images(),
        images=bench.config.repair.images,
        seed=bench.config.search.seed,
        masks=state.masks,
    )
    state.masks.apply(found.model)  # the layers that it left as they were
    return found


@dataclass(frozen=True)
class RepairSpec(Row):
    """A row of REPAIRS.

    Attributes:
        repair: refits a copy of the smaller model.
    """

    repair: Repair


REPAIRS: dict[str, RepairSpec] = {
    "closed": RepairSpec(closed, about="each layer by itself, from the moments of the dense model's layers"),
    "sequential": RepairSpec(
        sequential, about="layer after layer, from the outputs of the repaired layers before it"
    ),
}
"""{name in repair.mode: repair}."""


def find_repair(name: str) -> RepairSpec:
    """Return a row of REPAIRS, or a user's own from "package.module:function".

    Raises:
        ConfigError: the row or the function does not exist. The message suggests the nearest row.
    """
    return find_row(name, REPAIRS, "repair.mode", RepairSpec)
