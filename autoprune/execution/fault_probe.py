"""The child process: it trains convolutions under one setting after the other, and may die of one.

It reads settings from standard input, as a JSON list of `Setting`'s arguments, and writes a line for each: a
JSON text, empty if all was right. The setting that it died of is the first one without a line.
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
"""With several threads a wrong kernel is right most times."""

TOLERANCES = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest difference over the largest value. A sound kernel rounds its outputs to the format and differs by a
tenth of that. Faults were seen to begin at 0.2."""


def try_setting(setting: Setting) -> str:
    """Train strided 1x1 convolutions of few inputs, and return how they go wrong, or an empty text."""
    for threads in sorted({1, setting.threads}):
        torch.set_num_threads(threads)
        for inputs in range(1, MOST_INPUTS + 1):
            for name, error in _errors(setting, inputs):
                if not error <= TOLERANCES[setting.dtype]:  # so that NaN is wrong, too
                    return f"the {name} of a 1x1 convolution of {inputs} inputs is off by {error:.0%}"
    return ""


def _errors(setting: Setting, inputs: int) -> Iterator[tuple[str, float]]:
    """Yield names of results, and how far each is from float64's over the largest value."""
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
    """Answer the parent."""
    with contextlib.suppress(ImportError):  # Windows has neither this module nor core files
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for arguments in json.load(sys.stdin):
        print(json.dumps(try_setting(Setting(**arguments))), flush=True)
