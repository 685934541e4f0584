"""Memory layouts of images and convolution weights, with unambiguous strides.

torch chooses kernels by strides. The memory of a one-channel image, or of a 1x1 kernel, is the same in both
layouts. `Tensor.contiguous` then keeps the strides, even if they belong to the other layout.

    images = torch.rand(8, 28, 28, 1).permute(0, 3, 1, 2)     # counts as contiguous, runs as channels-last
    laid_out(images, torch.contiguous_format).stride()        # (784, 784, 28, 1)
"""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return a tensor [n, C, H, W] in a layout, with the strides of a new tensor in that layout.

    Nothing is copied if the memory already has that layout.
    """
    dense = tensor.contiguous(memory_format=memory_format)
    _, channels, height, width = dense.shape
    strides = (channels * height * width, height * width, width, 1)
    if memory_format is torch.channels_last:
        strides = (channels * height * width, 1, width * channels, channels)
    return dense if dense.stride() == strides else dense.as_strided(dense.shape, strides)


def plain_if_both(images: Tensor) -> Tensor:
    """Return images that count as contiguous with contiguous strides, and all others unchanged."""
    ambiguous = images.ndim == 4 and images.is_contiguous()
    return laid_out(images, torch.contiguous_format) if ambiguous else images
