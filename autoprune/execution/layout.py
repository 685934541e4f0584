"""Memory layouts of images and of convolution weights, with strides that name one layout.

torch chooses its kernels by strides. A tensor of one channel, or a weight of 1x1 kernels, may lie in memory
as both layouts would have it: `Tensor.contiguous` then changes nothing, whichever of them its strides name.

    images = torch.rand(8, 28, 28, 1).permute(0, 3, 1, 2)     # counts as contiguous, runs as channels-last
    laid_out(images, torch.contiguous_format).stride()        # (784, 784, 28, 1)
"""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return a tensor [n, C, H, W] in a layout, with the strides that a fresh tensor of that layout has.

    Nothing is copied if it lies in memory like that already.
    """
    dense = tensor.contiguous(memory_format=memory_format)
    _, channels, height, width = dense.shape
    strides = (channels * height * width, height * width, width, 1)
    if memory_format is torch.channels_last:
        strides = (channels * height * width, 1, width * channels, channels)
    return dense if dense.stride() == strides else dense.as_strided(dense.shape, strides)


def plain_if_both(images: Tensor) -> Tensor:
    """Return images with contiguous strides if they count as contiguous, and all others as they are."""
    ambiguous = images.ndim == 4 and images.is_contiguous()
    return laid_out(images, torch.contiguous_format) if ambiguous else images
