"""Criteria that read the feature maps of images: activation, apoz, hrank, chip.

Each criterion ranks a group by its maps on the first images of the data, in eval mode. These maps are the
tensors that `feature_maps.places_of` finds. Targets are not read. A group that no tensor holds is ranked by
the l2 norm of its filters.

Example:
    hrank(given)["layer1.0.conv1"]      # float64 [width]
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoprune.criteria._base import CriterionInput, Importance
from autoprune.criteria.feature_maps import FeatureMaps, Measure, Place
from autoprune.criteria.weights import with_norms

IMAGES = 64
"""Number of images of "activation" and "apoz": the first of the data, or all if there are fewer."""

HRANK_IMAGES = 32
"""Number of images of "hrank". Decompositions are slow, and the mean rank hardly depends on the images."""

CHIP_IMAGES = 16
"""Number of images of "chip", which takes one decomposition for each channel and image."""

CHIP_POSITIONS = 64
"""Positions that are drawn from each image for groups of more channels than this."""


def activation(given: CriterionInput) -> Importance:
    """Average the absolute activations of a channel over images, positions and places.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR
    2017, section 2.2 ("activation").
    """
    return with_norms(given, FeatureMaps.of(given, "activation", IMAGES).means(_mean_size))


def apoz(given: CriterionInput) -> Importance:
    """Return one minus the average share of zeros in a channel's maps.

    If shares are equal, the channel with the larger mean absolute activation is more important. So
    activations alone rank a group whose maps hold no zeros, for example after GELU or without an activation.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
    Architectures, arXiv 1607.03250, 2016, the definition of APoZ.
    """

    def share(maps: Tensor) -> Tensor:
        return (maps != 0).double().flatten(1).mean(dim=1)

    return _over_maps(given, "apoz", IMAGES, share)


def hrank(given: CriterionInput) -> Importance:
    """Average the rank of a channel's maps over images and places.

    If ranks are equal, the channel with the larger mean absolute activation is more important. So activations
    alone rank a group whose maps are no matrices (tokens, features of a linear layer). A map of more than two
    axes is flattened to a matrix with the last axis as columns.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, section 3.
    A group that several layers write gets the average over all its places.
    """

    def rank(maps: Tensor) -> Tensor:
        if maps.ndim < 3:
            return maps.new_zeros(len(maps))
        ranks: Tensor = torch.linalg.matrix_rank(maps.flatten(1, -2))
        return ranks.double()

    return _over_maps(given, "hrank", HRANK_IMAGES, rank)


def chip(given: CriterionInput) -> Importance:
    """Average the fall of the nuclear norm of a group's maps if a channel's map is set to zero.

    The maps of one image are the rows of a matrix [channels, positions]. If a map is one number (features of
    a linear layer), all images together give the matrix [channels, images]. If a group has more than
    CHIP_POSITIONS channels, that many positions are drawn, so that the decompositions stay small.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no images that the model takes.

    Reference: Sui et al., CHIP: CHannel Independence-based Pruning for Compact Neural Networks, NeurIPS 2021,
    section 3.
    """
    maps = FeatureMaps.of(given, "chip", CHIP_IMAGES)
    generator = torch.Generator().manual_seed(given.seed)
    found = {group: torch.zeros(len(places[0].index)).double() for group, places in maps.places.items()}
    numbers: dict[Place, list[Tensor]] = {}

    def see(place: Place, image: Tensor) -> None:
        rows = image.flatten(1).cpu()
        if rows.shape[1] == 1:
            numbers.setdefault(place, []).append(rows)
            return
        if min(rows.shape) > CHIP_POSITIONS:
            rows = rows[:, torch.randperm(rows.shape[1], generator=generator)[:CHIP_POSITIONS]]
        found[place.group] += nuclear_losses(rows) / len(maps.samples)

    maps.visit(see)
    for place, columns in numbers.items():
        found[place.group] += nuclear_losses(torch.cat(columns, dim=1))
    return with_norms(given, {name: total / len(maps.places[name]) for name, total in found.items()})


def nuclear_losses(matrix: Tensor) -> Tensor:
    """Return the fall [n] of the nuclear norm of a matrix [n, m] if each row alone is set to zero."""
    # Singular values are the roots of a Gram matrix's eigenvalues. The smaller Gram matrix without row i
    # follows from the whole one by a simple formula, so that all n are decomposed in one batch.
    if len(matrix) <= matrix.shape[1]:
        whole = matrix @ matrix.T
        left = 1 - torch.eye(len(matrix), dtype=matrix.dtype)
        grams = whole * left[:, :, None] * left[:, None, :]
    else:
        whole = matrix.T @ matrix
        grams = whole - matrix[:, :, None] * matrix[:, None, :]
    return _nuclear(whole) - _nuclear(grams)


def _nuclear(grams: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(grams)
    return values.clamp(min=0).sqrt().sum(dim=-1)


def _over_maps(given: CriterionInput, name: str, images: int, measure: Measure) -> Importance:
    """Average a measure over the maps. Larger activations break ties between channels."""
    found = FeatureMaps.of(given, name, images).means(
        lambda maps: torch.stack([measure(maps), _mean_size(maps)])
    )
    return with_norms(given, {group: _without_ties(*both) for group, both in found.items()})


def _without_ties(values: Tensor, sizes: Tensor) -> Tensor:
    """Add a share of the sizes that is smaller than any difference between the values."""
    # Rounding removes differences that are rounding errors of equal measures.
    steps = values.round(decimals=9).sort().values.diff()
    steps = steps[steps > 0]
    gap = float(steps.min()) if len(steps) else 1.0
    return values + gap / 2 * sizes / sizes.max().clamp(min=torch.finfo(sizes.dtype).tiny)


def _mean_size(maps: Tensor) -> Tensor:
    return maps.flatten(1).abs().mean(dim=1)
