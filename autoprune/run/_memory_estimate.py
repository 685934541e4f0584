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

from autoprune.data import DeviceLoader, first_batch
from autoprune.reconstruction import LIMIT_BYTES
from autoprune.run._choices import reads
from autoprune.run._dense import Dense
from autoprune.run._spec import RunSpec
from autoprune.support.usercode import forward

_PARAMETER_COPIES = 5
"""Dense model, candidate, gradients, momentum, and the candidate's weights for the next rung."""


def estimate_memory(dense: Dense, spec: RunSpec) -> int:
    """Return the estimated bytes of data, weights, moments, and the activations of a training step."""
    weights = sum(leaf.numel() * leaf.element_size() for leaf in dense.model.state_dict().values())
    parts = (dense.data.train, dense.data.val, dense.data.test)
    # Only these parts are known to lie in memory. Others are streamed, or belong to a user's own loader.
    samples = sum(part.samples for part in parts if isinstance(part, DeviceLoader))
    images = samples * dense.example_inputs.numel()
    inputs, _ = first_batch(dense.data.train)  # a user's own loader need not use data.batch_size
    step = len(inputs) * _activation_bytes(dense.model, dense.example_inputs)
    workers = spec.search.workers if spec.is_parallel else 1
    moments = _moments_bytes(dense.model) if reads(spec, "score.moment_images") else 0
    total: int = workers * (images + _PARAMETER_COPIES * weights + step + moments)
    return total


def _activation_bytes(model: nn.Module, example: Tensor) -> int:
    """Return the bytes per sample that a forward pass saves for the backward pass, without parameters."""
    trained = copy.deepcopy(model).train()
    own = {leaf.untyped_storage().data_ptr() for leaf in trained.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = torch.zeros(2, *example.shape[1:])
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with torch.random.fork_rng(), hooks:
        outputs = forward(trained, batch)
    del outputs
    return sum(kept.values()) // 2


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
