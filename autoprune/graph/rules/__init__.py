"""Own the table LAYER_RULES: operator -> the rule that says which channels it ties.

`propagate` looks operators up here. A layer of one's own joins by one function and one row:

    from autoprune.graph.context import OpContext, Value
    from autoprune.graph.patches import PATCH_RULES
    from autoprune.graph.rules import LAYER_RULES

    # mylib::gain(x, weight) -> x * weight, made with torch.library.custom_op
    def gain_rule(op: OpContext) -> Value:
        x, weight = op.tensor("x"), op.tensor("weight")     # by the names of the operator's signature
        op.tie(x.labels[-1], weight.labels[0], x)           # channel i of both stays or goes
        return op.output(x.labels)                          # which channels come out

    LAYER_RULES["mylib::gain"] = gain_rule
    PATCH_RULES[Gain, "width"] = lambda module, shapes: shapes["weight"][0]   # a number that the module keeps

A module that ties channels of its own parameters (heads that must stay alike) has a row in
`autoprune.graph.modules.MODULE_TIES` besides. A layer made of torch's operators alone needs none of this.

Names are those of torch's operators without namespace ("conv2d") or with it where it is not ATen's;
an in-place operator ("relu_") follows the rule of its plain twin.
"""

from __future__ import annotations

from autoprune.graph.context import LayerRule
from autoprune.graph.rules.contraction import CONTRACTION_RULES
from autoprune.graph.rules.elementwise import ELEMENTWISE_RULES, elementwise
from autoprune.graph.rules.fourier import FOURIER_RULES
from autoprune.graph.rules.indexing import INDEXING_RULES
from autoprune.graph.rules.layout import LAYOUT_RULES
from autoprune.graph.rules.matrix import MATRIX_RULES
from autoprune.graph.rules.normalisation import NORMALISATION_RULES
from autoprune.graph.rules.products import PRODUCT_RULES
from autoprune.graph.rules.recurrent import RECURRENT_RULES
from autoprune.graph.rules.reduction import REDUCTION_RULES
from autoprune.graph.rules.spatial import SPATIAL_RULES

LAYER_RULES: dict[str, LayerRule] = {
    **CONTRACTION_RULES,
    **ELEMENTWISE_RULES,
    **FOURIER_RULES,
    **INDEXING_RULES,
    **LAYOUT_RULES,
    **MATRIX_RULES,
    **NORMALISATION_RULES,
    **PRODUCT_RULES,
    **RECURRENT_RULES,
    **REDUCTION_RULES,
    **SPATIAL_RULES,
}

__all__ = ["LAYER_RULES", "LayerRule", "elementwise"]
