"""Own the table LAYER_RULES: operator -> the rule that says which channels it ties.

`propagate` looks operators up here. A layer of one's own joins by one function and one row:

    from autoprune.graph.rules import LAYER_RULES

    def my_conv(op: OpContext) -> Value: ...
    LAYER_RULES["mylib::my_conv"] = my_conv

Names are those of torch's operators without namespace ("conv2d") or with it where it is not ATen's;
an in-place operator ("relu_") follows the rule of its plain twin.
"""

from __future__ import annotations

from autoprune.graph.context import LayerRule
from autoprune.graph.rules.contraction import CONTRACTION_RULES
from autoprune.graph.rules.elementwise import ELEMENTWISE_RULES, elementwise
from autoprune.graph.rules.layout import LAYOUT_RULES
from autoprune.graph.rules.normalisation import NORMALISATION_RULES
from autoprune.graph.rules.reduction import REDUCTION_RULES

LAYER_RULES: dict[str, LayerRule] = {
    **CONTRACTION_RULES,
    **ELEMENTWISE_RULES,
    **LAYOUT_RULES,
    **NORMALISATION_RULES,
    **REDUCTION_RULES,
}

__all__ = ["LAYER_RULES", "LayerRule", "elementwise"]
