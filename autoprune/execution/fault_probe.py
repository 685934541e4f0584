"""The child process that tries settings by training small convolutions. A faulty kernel may kill it.

It reads a JSON list of `Setting` arguments from standard input, and writes one line for each setting: a JSON
text with the fault, or "". If it dies, the first setting without a line is the one that killed it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.execution._setting import Setting
from autoprune.execution.detour import MOST_INPUTS
from autoprune.support.dtypes import DTYPES

OUTPUTS = 9
IMAGES = 32
PIXELS = 28
REPEATS = 3
"""Number of passes for each setting. With several threads, a faulty kernel is right most of the time."""

TOLERANCES = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest allowed difference, relative to the largest value.

A right kernel only rounds its outputs and differs by a tenth of this. The smallest fault observed was 0.2.
"""


def try_setting(setting: Setting) -> str:
    """Train strided 1x1 convolutions of few inputs and describe the first wrong result, or return ""."""
    for threads in sorted({1, setting.threads}):
        torch.set_num_threads(threads)
        for inputs in range(1, MOST_INPUTS + 1):
            for name, error in _errors(setting, inputs):
                if not error <= TOLERANCES[setting.dtype]:  # true for NaN too
                    return f"the {name} of a 1x1 convolution of {inputs} inputs is off by {error:.0%}"
    return ""


def _errors(setting: Setting, inputs: int) -> Iterator[tuple[str, float]]:
    """Yield (name, error) of each result. The error is relative to the largest value in float64."""
    generator = torch.Generator().manual_seed(inputs)

    def drawn(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator)
        return values.to(DTYPES[setting.dtype]).float()  # numbers that the format holds exactly

    images = drawn(IMAGES, PIXELS, PIXELS, inputs).permute(0, 3, 1, 2)
    convolution = nn.Conv2d(inputs, OUTPUTS, 1, stride=2, bias=False)
    convolution.weight.data = drawn(OUTPUTS, inputs, 1, 1)
    exact = images.double().requires_grad_()
    exact_weight = convolution.weight.detach().double().requires_grad_()
    expected = functional.conv2d(exact, exact_weight, stride=2)
    sent_back = drawn(*expected.shape)
    expected.backward(sent_back.double())  # type: ignore[no-untyped-call]  # torch leaves it untyped
    setting.place(convolution)
    for _ in range(REPEATS):
        given = setting.arrange(images).detach().requires_grad_()
        convolution.zero_grad()
        with setting.autocast():
            found = convolution(given)
        found.backward(setting.arrange(sent_back).to(found.dtype))
        yield "output", _difference(found, expected)
        yield "gradient of the weights", _difference(convolution.weight.grad, exact_weight.grad)
        yield "gradient of the inputs", _difference(given.grad, exact.grad)


def _difference(found: Tensor | None, expected: Tensor | None) -> float:
    if found is None or expected is None:
        return float("nan")
    return float((found.detach().double() - expected.detach()).abs().max() / expected.detach().abs().max())


def main() -> None:
    """Try the settings on standard input and write the results."""
    # A crash is expected here and must not leave a core file. Windows has neither the module nor core files.
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for arguments in json.load(sys.stdin):
        print(json.dumps(try_setting(Setting(**arguments))), flush=True)
