"""Closed-form costs of small nets, so that spaces are tested without a model: groups, and widths -> Cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.graph import ChannelGroup, Cost, Member

Widths = NDArray[np.int64]
Net = tuple[tuple[ChannelGroup, ...], Callable[[Widths], Cost]]


def group(
    name: str, width: int, positions: Sequence[int] = (1, 1), frozen: str | None = None
) -> ChannelGroup:
    members = tuple(
        Member(f"{name}.weight", axis, np.arange(width * m, dtype=np.int64).reshape(width, m))
        for axis, m in enumerate(positions)
    )
    return ChannelGroup(name, width, members, frozen)


def chain(widths: Sequence[int], maps: Sequence[int] | None = None, positions: Sequence[int] = (1, 1)) -> Net:
    """3 x 3 convolutions in a row from 3 channels to 10 classes; layer i has maps[i] pixels."""
    groups = tuple(group(f"conv{i}", width, positions) for i, width in enumerate(widths))
    pixels = maps or [64] * len(widths)

    def cost(candidates: Widths) -> Cost:
        inputs = np.concatenate([np.full((len(candidates), 1), 3), candidates], axis=1)
        weights = 9 * inputs[:, :-1] * candidates
        last = 10 * candidates[:, -1]
        return Cost(weights @ np.array(pixels) + last, weights.sum(axis=1) + last)

    return groups, cost


def resnet(blocks: int, stem: int = 16) -> Net:
    """A CIFAR ResNet: one group a stage (its residual stream) and one inside each block."""
    groups, layers = [group("conv1", stem)], []
    stream = 0
    layers.append((-1, 0, 1024, 9))
    for stage, pixels in enumerate((1024, 256, 64)):
        width = stem * 2**stage
        for block in range(blocks):
            inner = len(groups)
            groups.append(group(f"layer{stage + 1}.{block}.conv1", width))
            source = stream
            layers.append((source, inner, pixels, 9))
            if stage and not block:
                stream = len(groups)
                groups.append(group(f"layer{stage + 1}.0.conv2", width))
                layers.append((source, stream, pixels, 1))
            layers.append((inner, stream, pixels, 9))
    sources, targets, pixels_of, taps = np.array(layers).T

    def cost(candidates: Widths) -> Cost:
        padded = np.concatenate([candidates, np.full((len(candidates), 1), 3)], axis=1)
        weights = padded[:, sources] * padded[:, targets] * taps
        last = 10 * candidates[:, stream]
        return Cost(weights @ pixels_of + last, weights.sum(axis=1) + last)

    return tuple(groups), cost


def dense_macs(net: Net) -> int:
    groups, cost = net
    return int(np.asarray(cost(np.array([[group.width for group in groups]])).macs)[0])
