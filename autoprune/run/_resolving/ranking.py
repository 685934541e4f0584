"""Ranks the channels of each group by importance, and encodes the ranking for the study.

It is measured once. Every plan of a study is made from the stored ranking, in any process and after any
resume. So the finetuned winner keeps exactly the channels that were scored.

Example:
    text = encode_ranking(rank_channels(run, run.spec.search.criterion))
    plan = plan_from_importance(prunable, widths, decode_ranking(text))
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from autoprune.criteria import Importance
from autoprune.reconstruction import Moments
from autoprune.run._resolving.run import Run
from autoprune.score import rank

_MOST_BYTES = 2**24
"""Largest decompressed size that is read, since a short damaged text may decompress to a huge one."""


def rank_channels(run: Run, criterion: str, moments: Callable[[], Moments] | None = None) -> Importance:
    """Measure the importance of all channels.

    Args:
        run: the resolved run. A criterion draws as many of its training batches as it needs.
        criterion: name of the criterion.
        moments: returns the moments of the dense model, for criteria that read them.
    """
    dense, seed = run.dense, run.spec.search.seed
    return rank(run.prunable, dense.data, dense.task, criterion, seed=seed, moments=moments)


def encode_ranking(measured: Importance) -> dict[str, str]:
    """Encode the order of each group's channels, the most important first, as a short text.

    Of two equally important channels the one with the lower index comes first.
    """
    texts = {}
    for name, values in measured.items():
        order = np.argsort(-np.asarray(values), kind="stable").astype("<u4")
        texts[name] = base64.b64encode(zlib.compress(order.tobytes(), 9)).decode("ascii")
    return texts


def decode_ranking(texts: Mapping[str, str]) -> Importance:
    """Decode a ranking into importances float64 [width] of each group, from `width` down to 1.

    Raises:
        ValueError: a text does not encode an order of channels.
    """
    decoded: Importance = {}
    for name, text in texts.items():
        try:
            content = zlib.decompressobj().decompress(base64.b64decode(text), _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"{name}: {error}") from error
        order = np.frombuffer(content, "<u4").astype(np.int64)
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            raise ValueError(f"{name}: no order of channels")
        values = np.empty(len(order), dtype=np.float64)
        values[order] = np.arange(len(order), 0, -1)
        decoded[name] = values
    return decoded
