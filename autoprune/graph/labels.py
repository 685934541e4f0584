"""Labels: integers that name the channel at each position along an axis of a tensor.

Layer rules tie labels that must be the same channel, and freeze labels that no plan may drop. The connected
components of the ties are the channels.

    labels = LabelStore()
    a, b = labels.fresh(8), labels.fresh(8)
    labels.tie(a, b, "conv2 (conv2d)")   # channel i of a is channel i of b
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

LabelVector = NDArray[np.int64]

FIXED = -1
"""The label of a position that no plan may drop."""

OUTPUT = "the model's output"
"""The reason for the channels of the model's outputs."""

STRUCTURAL = ""
"""The reason for an axis that holds no channels, such as a kernel's height. No report lists it."""


@dataclass(frozen=True)
class Components:
    """The connected components of the ties.

    Attributes:
        of_label: int64 [labels], the component of each label.
        frozen: {component: the first reason that froze it}.
        crosses: {component: the first operator that normalises over it}.
    """

    of_label: LabelVector
    frozen: dict[int, str]
    crosses: dict[int, str]


@dataclass
class LabelStore:
    """Hands out labels and collects ties and freezes. `components` evaluates them at the end."""

    count: int = 0
    _ties: list[tuple[LabelVector, LabelVector]] = field(default_factory=list)
    _frozen: list[tuple[LabelVector, str]] = field(default_factory=list)
    _crosses: list[tuple[LabelVector, str]] = field(default_factory=list)

    def fresh(self, size: int) -> LabelVector:
        """Return `size` new labels."""
        start = self.count
        self.count += size
        return np.arange(start, self.count, dtype=np.int64)

    def tie(self, first: LabelVector | None, second: LabelVector | None, reason: str) -> None:
        """Tie two vectors of the same length position by position. A fixed position freezes its partner.

        Args:
            first: labels, or None if every position is fixed.
            second: labels, or None if every position is fixed.
            reason: the reason to record for a partner that is frozen.
        """
        if first is None or second is None:
            for vector in (first, second):
                if vector is not None:
                    self.freeze(vector, reason)
            return
        fixed = (first == FIXED) != (second == FIXED)
        if fixed.any():
            # FIXED is -1, so the maximum is the label of the partner.
            self.freeze(np.maximum(first, second)[fixed], reason)
        both = (first != FIXED) & (second != FIXED) & (first != second)
        if both.any():
            self._ties.append((first[both], second[both]))

    def freeze(self, vector: LabelVector | None, reason: str) -> None:
        """Record that every plan must keep the labels of `vector`, for `reason`."""
        if vector is not None and vector.size:
            self._frozen.append((vector[vector != FIXED], reason))

    def cross(self, vector: LabelVector | None, norm: str) -> None:
        """Record that the operator `norm` normalises over the labels of `vector`."""
        if vector is not None and vector.size:
            self._crosses.append((vector[vector != FIXED], norm))

    def copy(self) -> LabelStore:
        """Return an independent copy, on which further ties can be tried."""
        return LabelStore(self.count, list(self._ties), list(self._frozen), list(self._crosses))

    def components(self) -> Components:
        """Return the connected components of all ties so far."""
        rows = np.concatenate([first for first, _ in self._ties] or [np.empty(0, np.int64)])
        columns = np.concatenate([second for _, second in self._ties] or [np.empty(0, np.int64)])
        graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(self.count, self.count))
        of_label = connected_components(graph, directed=False)[1].astype(np.int64)
        return Components(
            of_label=of_label,
            frozen=_first_reasons(self._frozen, of_label),
            crosses=_first_reasons(self._crosses, of_label),
        )


def _first_reasons(events: list[tuple[LabelVector, str]], of_label: LabelVector) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for vector, reason in events:
        for component in np.unique(of_label[vector]).tolist():
            # STRUCTURAL is the weakest reason: any other one helps the user more.
            if component not in reasons or reasons[component] == STRUCTURAL:
                reasons[component] = reason
    return reasons
