"""Estimates the peak memory of a search.

Example:
    estimate_memory(load_dense(spec, trained=False), spec)     # bytes, of all workers together
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from autoprune.data import Batch, DeviceLoader, first_batch, head
from autoprune.reconstruction import LIMIT_BYTES
from autoprune.run._checks.choices import reads
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.modes import draws_kept
from autoprune.support.structures import moved, samples_in

_PARAMETER_COPIES = 5
"""Dense model, candidate, gradients, momentum, and the candidate's weights for the next rung."""


def estimate_memory(dense: Dense, spec: RunSpec) -> int:
    """Return the estimated bytes of data, weights, moments, and the activations of a training step."""
    weights = sum(leaf.numel() * leaf.element_size() for leaf in dense.model.state_dict().values())
    parts = (dense.data.train, dense.data.val, dense.data.test)
    # Only these parts are known to lie in memory. Others are streamed, or belong to a user's own loader.
    samples = sum(part.samples for part in parts if isinstance(part, DeviceLoader))
    batch = moved(first_batch(dense.data.train), "cpu")  # a user's loader need not use data.batch_size
    images = samples * math.prod(dense.data.input_shape)
    step = samples_in(batch[0]) * _activation_bytes(dense, head(batch, 2))
    workers = spec.search.workers if spec.is_parallel else 1
    moments = _moments_bytes(dense.model) if reads(spec, "score.moment_images") else 0
    total: int = workers * (images + _PARAMETER_COPIES * weights + step + moments)
    return total


def _activation_bytes(dense: Dense, batch: Batch) -> int:
    """Return the bytes per sample that a forward pass saves for the backward pass, without parameters."""
    trained = copy.deepcopy(dense.model).train()
    own = {leaf.untyped_storage().data_ptr() for leaf in trained.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with draws_kept(trained), hooks:
        step = dense.task.step(trained, batch)  # kept until the end, so that no memory is counted twice
    del step
    return sum(kept.values()) // samples_in(batch[0])


def _moments_bytes(model: nn.Module) -> int:
    """Return the bytes of the moments of a model's convolutions and linear layers, and of their factors."""
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            total += 8 * module.in_features**2
        elif isinstance(module, _ConvNd):
            patch = module.in_channels // module.groups * math.prod(module.kernel_size)
            total += 8 * module.groups * patch**2
    return min(total * 3 // 2, LIMIT_BYTES)  # factors are float32, moments float64
