"""Watching a forward pass call by call: which weight each convolution and linear layer multiplies.

Parameters are known by identity, so the same weight is found in a module, in a function call of the model's
own code, and on batches of any size.

    with ContractionWatch(model, seen):         # calls seen("layer1.0.conv1.weight", contraction, output)
        model(images)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.reconstruction.contractions import Contraction, as_contraction

Seen = Callable[[str, Contraction, Tensor], None]
"""Called with the weight's name, the call and its output, after each contraction."""


class ContractionWatch(TorchFunctionMode):
    """A block in which every contraction with one of a model's parameters is shown to `seen`.

    Args:
        model: its parameters are told by identity; a shared one goes by its first name.
        seen: called after each contraction.
    """

    def __init__(self, model: nn.Module, seen: Seen) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._seen = seen

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one call and show it if it is a contraction with a parameter."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        call = as_contraction(func, args, kwargs)
        if call is not None:
            name = self._names.get(id(call.weight))
            if name is not None:
                self._seen(name, call, result)
        return result
