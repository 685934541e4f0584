"""Check the names, types and ranges of the values in a latency table's JSON.

Example:
    check_table(json.loads(text))       # LatencyError that names the first wrong value
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from autoprune.errors import LatencyError
from autoprune.support.schema import Strict, read_as

_MOST_GROUPS = 100_000
_ADVICE = "Measure it again by leaving the file out."

_Step = Annotated[int, Field(ge=1, le=2**31)]
_Free = Annotated[int, Field(ge=0, le=2**31)]
_Count = Annotated[int, Field(ge=-(2**62), le=2**62)]
_Error = Annotated[float, Field(allow_inf_nan=True)]


class _Alignment(Strict):
    align: _Step
    step: _Step
    free: _Free


class _Surface(Strict):
    grains: Annotated[list[_Alignment], Field(min_length=2, max_length=2)]
    knots: Annotated[list[Annotated[list[float], Field(min_length=1)]], Field(min_length=2, max_length=2)]
    ms: list[list[list[list[float]]]]
    observed: list[list[bool]]


class _Size(Strict):
    constant: _Count
    times: dict[str, _Count]


class _Operator(Strict):
    name: str
    signature: str
    sizes: Annotated[list[_Size], Field(max_length=2)]


class _Calibration(Strict):
    constant_ms: float
    error: _Error
    candidates: int
    seconds: float


class _Table(Strict):
    format: int
    setting: dict[str, Any]
    device: dict[str, str]
    model: str
    groups: Annotated[int, Field(ge=0, le=_MOST_GROUPS)]
    dense_ms: Annotated[float, Field(gt=0)]
    calibration: _Calibration
    operators: list[_Operator]
    surfaces: dict[str, _Surface]


def check_table(values: Any) -> None:
    """Check that values from JSON are a latency table.

    Raises:
        LatencyError: a value is missing, has the wrong type, or does not fit the others.
    """
    where = "latency table: not one that autoprune wrote"
    table = read_as(_Table, values, where=where, error=LatencyError, advice=_ADVICE)
    for name, surface in table.surfaces.items():
        if not _fits(surface):
            raise LatencyError(
                f"{where}: the grid of surface {name[:80]!r} does not fit its knots. {_ADVICE}"
            )
    for operator in table.operators:
        if operator.signature not in table.surfaces:
            raise LatencyError(f"{where}: operator {operator.name[:80]!r} has no surface. {_ADVICE}")
        places = [place for size in operator.sizes for place in size.times]
        if not all(place.isdecimal() and len(place) < 7 and int(place) < table.groups for place in places):
            raise LatencyError(f"{where}: a size of {operator.name[:80]!r} names no group. {_ADVICE}")


def _fits(surface: _Surface) -> bool:
    """Return whether the knots ascend from 0 and the grids have a value for each pair of knots."""
    try:
        shape, observed = np.shape(surface.ms), np.shape(surface.observed)
    except ValueError:  # lists of several lengths
        return False
    ascending = all(knots[0] == 0 and bool((np.diff(knots) > 0).all()) for knots in surface.knots)
    return ascending and shape == (2, 2, *map(len, surface.knots)) and observed == (2, 2)
