"""Estimates the memory that a search needs at its peak.

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
"""Dense model, candidate, gradients, momentum, and the candidate's weights as they are handed on."""


def estimate_memory(dense: Dense, spec: RunSpec) -> int:
    """Estimate the bytes of data, weights, moments and what a training step keeps for its backward pass."""
    weights = sum(leaf.numel() * leaf.element_size() for leaf in dense.model.state_dict().values())
    parts = (dense.data.train, dense.data.val, dense.data.test)
    # What streams is read a batch at a time; whether a user's own data set lies in memory, it does not say.
    samples = sum(part.samples for part in parts if isinstance(part, DeviceLoader))
    images = samples * dense.example_inputs.numel()
    inputs, _ = first_batch(dense.data.train)  # a loader of the user's own has a batch size of its own
    step = len(inputs) * _activation_bytes(dense.model, dense.example_inputs)
    workers = spec.search.workers if spec.is_parallel else 1
    moments = _moments_bytes(dense.model) if reads(spec, "score.moment_images") else 0
    total: int = workers * (images + _PARAMETER_COPIES * weights + step + moments)
    return total


def _activation_bytes(model: nn.Module, example: Tensor) -> int:
    """Count the bytes a sample that a forward pass keeps for the backward pass, parameters left out."""
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
    """Return the memory that the moments of a model's convolutions and linear layers take."""
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            total += 8 * module.in_features**2
        elif isinstance(module, _ConvNd):
            patch = module.in_channels // module.groups * math.prod(module.kernel_size)
            total += 8 * module.groups * patch**2
    return min(total, LIMIT_BYTES)
