"""Watch a forward pass call by call, to see the weight and the input of each convolution and linear layer.

Parameters are recognised by identity. So a weight is found in a module, in a function call of the model's own
code, and with batches of any size.

Example:
    with ContractionWatch(model, seen):         # calls seen("layer1.0.conv1.weight", contraction, output)
        model(images)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.reconstruction._contractions import Contraction, as_contraction

Seen = Callable[[str, Contraction, Tensor], None]
"""Called with the weight's name, the call and its output, after each contraction."""


class CallMode(TorchFunctionMode):
    """A block in which every call of a torch function goes through `run`.

    `functional.multi_head_attention_forward` hides its projections. They become calls of their own: first
    those of the inputs, then that of the output.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one call."""
        if func is functional.multi_head_attention_forward:
            given = inspect.signature(func).bind(*args, **(kwargs or {})).arguments
            return self._attend(given)
        return self.run(func, args, kwargs or {})

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call. The calls that it makes itself are not seen."""
        return function(*args, **kwargs)

    def _attend(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Run attention, with its projections as linear layers."""
        for inputs, weight, bias in _input_projections(given):
            # torch's function below computes the projection again, since it accepts no projected inputs.
            self.run(functional.linear, (inputs, weight, bias), {})
        weight = given["out_proj_weight"]
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        unprojected = {**given, "out_proj_weight": identity, "out_proj_bias": None}
        context, weights = functional.multi_head_attention_forward(**unprojected)
        return self.run(functional.linear, (context, weight, given["out_proj_bias"]), {}), weights


def _input_projections(given: Mapping[str, Any]) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Return (inputs, weight, bias) of the projections of attention whose weight has one input."""
    query, key, value = given["query"], given["key"], given["value"]
    bias = given["in_proj_bias"]
    if given.get("use_separate_proj_weight"):
        weights = (given[f"{letter}_proj_weight"] for letter in "qkv")
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        return list(zip((query, key, value), weights, biases, strict=True))
    if query is key and key is value:
        return [(query, given["in_proj_weight"], bias)]
    return []


class ContractionWatch(CallMode):
    """A block in which `seen` is called after every contraction with one of a model's parameters.

    Args:
        model: the model whose parameters are recognised. A shared one has its first name.
        seen: called after each contraction.
    """

    def __init__(self, model: nn.Module, seen: Seen) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._seen = seen

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call, and pass it to `seen` if it is a contraction with a parameter."""
        result = function(*args, **kwargs)
        call = as_contraction(function, args, kwargs)
        if call is not None:
            name = self._names.get(id(call.weight))
            if name is not None:
                self._seen(name, call, result)
        return result
