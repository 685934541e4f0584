"""Layer rules: LAYER_RULES maps each operator to the function that ties its channels.

To add an operator, write one function and one row:

    from autoprune.graph.context import OpContext, Value
    from autoprune.graph.patches import PATCH_RULES
    from autoprune.graph.rules import LAYER_RULES

    # mylib::gain(x, weight) -> x * weight, made with torch.library.custom_op
    def gain_rule(op: OpContext) -> Value:
        x, weight = op.tensor("x"), op.tensor("weight")     # by the names of the operator's signature
        op.tie(x.labels[-1], weight.labels[0], x)           # channel i of both is kept or dropped
        return op.output(x.labels)                          # the output has the channels of x

    LAYER_RULES["mylib::gain"] = gain_rule
    PATCH_RULES[Gain, "width"] = lambda module, shapes: shapes["weight"][0]   # a number of the module

If a module ties channels of its own parameters (heads that must stay equal), add a row to
`autoprune.graph.modules.MODULE_TIES` too. A layer that consists of torch's operators needs no row.

The names are those of torch's operators. The namespace is left out if it is ATen ("conv2d"). An in-place
operator ("relu_") uses the rule of the plain one.
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
