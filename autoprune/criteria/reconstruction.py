"""Criteria that measure how well the readers of a group do without a channel: obs, lasso.

Both rank by the second moments of the readers' inputs, measured on the first unlabelled images of the data.

Example:
    obs(given)["layer1.0.conv1"]        # float64 [width]; the last channel to be removed has the highest
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.criteria._base import CriterionInput, Importance
from autoprune.criteria.weights import with_norms
from autoprune.errors import PlanError
from autoprune.graph import Plan
from autoprune.reconstruction import (
    Moments,
    Reader,
    Readers,
    choose_by_layers,
    eliminate,
    exchange,
    measure_model,
)


def obs(given: CriterionInput) -> Importance:
    """Rank channels by backward elimination: a channel that is removed later is more important.

    If the width of a group is known, kept channels are then swapped for removed ones while the error at this
    width falls. The channels that stay are ranked above all others. A group that no measured layer reads is
    ranked by the l2 norm of its filters.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: see `reconstruction.elimination.eliminate` and `reconstruction.exchange.exchange`.
    """
    found_by = Readers(given.model, _moments(given, "obs"))
    found: dict[str, Tensor] = {}
    for group in given.groups:
        readers = found_by.of(group)
        if not readers:
            continue
        order = eliminate(readers, group.width).order
        width = (given.widths or {}).get(group.name, group.width)
        if width < group.width:
            kept = np.isin(order, exchange(readers, order[group.width - width :]))
            order = np.concatenate([order[~kept], order[kept]])
        importance = np.empty(group.width)
        importance[order] = np.arange(group.width)
        found[group.name] = torch.from_numpy(importance)
    return with_norms(given, found)


def lasso(given: CriterionInput) -> Importance:
    """Rank channels by their entry into the LASSO path that explains the readers' outputs.

    Channel c contributes beta_c Z_c to the outputs, with Z_c its inputs times its dense weights. The path
    goes from the highest penalty to none, and a channel that enters earlier is more important. If channels
    enter at the same step, or never, those with the larger coefficient at the end are more important. A group
    that no measured layer reads is ranked by the l2 norm of its filters.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: He, Zhang, Sun, ICCV 2017, section 3.1, step (i). It scales each channel's weights to norm 1
    and fits samples of the outputs. Here the scale stays, and the fit needs only second moments.
    """
    found_by = Readers(given.model, _moments(given, "lasso"))
    found = {
        group.name: torch.from_numpy(_path_order(readers, group.width))
        for group in given.groups
        if (readers := found_by.of(group))
    }
    return with_norms(given, found)


def lasso_by_layers(given: CriterionInput) -> Plan:
    """Choose channels by LASSO group after group, in the model as pruned and refitted so far.

    The inputs are those of the narrowed model, and the targets the outputs of the dense one. At the end of a
    residual branch the target also makes up for the error of the shortcut.

    Raises:
        PlanError: no data or no graph is given.
        DataError: the data holds no images that the model takes.

    Reference: He, Zhang, Sun, ICCV 2017, section 3. They raise the penalty until few enough channels are
    left. Here the path gives exactly as many as requested.
    """

    def choose(readers: list[Reader], width: int, kept: int) -> NDArray[np.int64]:
        order = np.argsort(-_path_order(readers, width), kind="stable") if readers else np.arange(width)
        return np.sort(order[:kept])

    if given.prunable is None:
        raise PlanError('criterion "lasso": needs the graph of the model. Give a result of autoprune.trace.')
    images = given.images("lasso")
    widths = given.widths or {}
    return choose_by_layers(given.prunable, widths, images, choose, seed=given.seed, done=given.done)


def _path_order(readers: list[Reader], width: int) -> NDArray[np.float64]:
    """Return the importance [width] of channels by their entry into the path."""
    from sklearn.linear_model import lars_path_gram  # type: ignore[import-untyped]  # it has no hints

    gram, aims = np.zeros((width, width)), np.zeros(width)
    for reader in readers:
        # The inner product of Z_a and Z_b over samples and outputs, from second moments alone.
        positions = reader.index.flatten()
        weight = reader.weight[:, positions]
        products = reader.moment[positions[:, None], positions] * (weight.T @ weight)
        size = reader.index.shape[1]
        of_channels = products.reshape(width, size, width, size).sum(dim=(1, 3)).numpy()
        # Each reader counts alike, whatever the scale of its outputs.
        scale = of_channels.sum() or 1.0
        gram += of_channels / scale
        if reader.target is None:
            # The target is the sum of all Z_c. So its products with Z_c are the sums of the rows.
            aims += of_channels.sum(axis=1) / scale
        else:
            aims += (reader.target[:, positions] * weight).reshape(-1, width, size).sum(
                (0, 2)
            ).numpy() / scale
    # n_samples only scales the penalties. The order along the path does not depend on it.
    _, _, coefficients = lars_path_gram(Xy=aims, Gram=gram, n_samples=1, method="lasso")
    steps = coefficients.shape[1]
    entered = np.where((coefficients != 0).any(axis=1), (coefficients != 0).argmax(axis=1), steps)
    last = np.abs(coefficients[:, -1])
    # From the least important channel on: the last to enter first, of equal ones the smaller coefficient.
    order = np.lexsort((last, -entered))
    importance = np.empty(width)
    importance[order] = np.arange(width)
    return importance


def _moments(given: CriterionInput, name: str) -> Moments:
    if given.moments is not None:
        return given.moments()
    return measure_model(given.model, given.images(name), seed=given.seed)
