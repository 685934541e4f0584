"""The plan: the channels that a smaller model keeps in each channel group.

Example:
    plan = Plan({"layer1.0.conv1": np.array([0, 3, 5])})
    plan.widths  # {"layer1.0.conv1": 3}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from autoprune.errors import PlanError
from autoprune.support.notebook import as_html

_SHOWN = 4
"""Number of groups whose widths the printed plan shows."""


@dataclass(frozen=True, eq=False)
class Plan(Mapping[str, NDArray[np.int64]]):
    """A mapping {group name: keep index}. Groups that it does not name keep all channels.

    A droppable block is a group of width 1 that may be empty. Blocks that the plan does not name stay.

    Attributes:
        keep: {group name: sorted int64 indices, in [0, width), of the channels kept}.
        ranking: {group name: all its channels, the most important first} of groups whose keep index is the
            beginning of a ranking. It makes repairs of several plans faster. Comparisons ignore it.

    Raises:
        PlanError: if a keep index is a mask, is not an integer vector, or names a channel twice, or a ranking
            does not begin with the kept channels.
    """

    keep: Mapping[str, NDArray[np.int64]]
    ranking: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert each keep index to a sorted, read-only int64 array."""
        canonical = {}
        for name, index in self.keep.items():
            array = _sorted_index(name, index)
            array.flags.writeable = False
            canonical[name] = array
        object.__setattr__(self, "keep", canonical)
        for name, order in self.ranking.items():
            kept = canonical.get(name, np.empty(0, np.int64))
            complete = np.array_equal(np.sort(order), np.arange(len(order)))
            if not complete or not np.array_equal(np.sort(order[: len(kept)]), kept):
                raise PlanError(
                    f"{name}: got a ranking that is no order of all channels with the {len(kept)} kept ones "
                    "first. Leave it out, or make the keep index from its beginning."
                )

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        """Return the keep index of the group `name`."""
        return self.keep[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the groups in the plan."""
        return iter(self.keep)

    def __len__(self) -> int:
        """Return the number of groups in the plan."""
        return len(self.keep)

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        if not isinstance(other, Plan):
            return NotImplemented
        return self.keep.keys() == other.keep.keys() and all(
            np.array_equal(index, other.keep[name]) for name, index in self.keep.items()
        )

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(tuple((name, self.keep[name].tobytes()) for name in sorted(self.keep)))

    def __repr__(self) -> str:
        """Return the number of groups and the widths of the first ones, in one line."""
        shown = [f"{name}: {width}" for name, width in list(self.widths.items())[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        groups = "1 group" if len(self) == 1 else f"{len(self)} groups"
        return f"<Plan of {groups}{': ' if shown else ''}{', '.join([*shown, *more])}>"

    def _repr_html_(self) -> str:
        """Return the widths that are kept as HTML, for notebooks."""
        table = Table(title="Channels kept")
        table.add_column("group")
        table.add_column("width kept", justify="right")
        for name, width in self.widths.items():
            table.add_row(name, str(width))
        return as_html(
            f"Plan of {len(self)} groups, which keeps {sum(self.widths.values()):,} channels", [table]
        )

    @property
    def widths(self) -> dict[str, int]:
        """The number of channels kept, {group name: width}."""
        return {name: len(index) for name, index in self.keep.items()}

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names of the blocks that are dropped."""
        return tuple(name for name, index in self.keep.items() if not len(index))

    def then(self, later: Plan) -> Plan:
        """Return the plan that cuts the dense model in one step as this plan and then `later` do.

        Args:
            later: the plan of a second pass, made for the model that this plan leaves.

        Raises:
            PlanError: `later` names a channel that this plan does not leave.
        """
        composed = dict(self.keep)
        for name, index in later.items():
            kept = self.keep.get(name)
            if kept is not None and len(index) and not 0 <= index[0] <= index[-1] < len(kept):
                raise PlanError(
                    f"{name}: got keep index {index.tolist()} in a second pass, expected some of "
                    f"0..{len(kept) - 1}: the first pass leaves {len(kept)} channels. Make the second plan "
                    "from the rebuilt model."
                )
            composed[name] = index if kept is None else kept[index]
        return Plan(composed)


def _sorted_index(name: str, index: object) -> NDArray[np.int64]:
    """Return a keep index as a new sorted array. Refuse input that NumPy would cast or merge silently."""
    given = np.asarray(index)
    if given.dtype == np.bool_:
        raise PlanError(
            f"{name}: got a bool mask. Pass np.flatnonzero(mask), the indices of the kept channels."
        )
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise PlanError(
            f"{name}: got a keep index of {given.dtype} {list(given.shape)}, expected integers [channels]."
        )
    kept, times = np.unique(given.astype(np.int64), return_counts=True)
    if len(kept) < len(given):
        raise PlanError(
            f"{name}: got a keep index that names channel {int(kept[times > 1][0])} more than once, expected "
            "each channel kept once."
        )
    return kept
