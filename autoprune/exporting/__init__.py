"""Save pruned models as safetensors with a recipe, and export models as ONNX or .pt2. No pickle is used.

Example:
    save_pruned(small, plan, "best/")
    export(load_pruned("best/", make_model), "best/model.onnx")

A new format is a row in EXPORTERS and a function (model in eval mode, inputs at batch 2, path) that writes
the file and returns a function which runs it. `export` compares the outputs of the file with the model's.

A format of your own needs no row. `export` and `autoprune export --format` accept the name of its function or
its spec, such as "mypkg.formats:script":

    import torch
    from autoprune.exporting import ExporterSpec

    def write_script(model, inputs, path):
        arguments = tuple(inputs.values()) if isinstance(inputs, dict) else inputs
        torch.jit.save(torch.jit.trace(model, arguments), path)
        loaded = torch.jit.load(path)
        return lambda inputs: [loaded(*inputs)]

    script = ExporterSpec(write_script, suffix=".pt")
"""

from autoprune.exporting._card import (
    CARD,
    INT8,
    ONNX,
    PAGE,
    CardCost,
    CardFacts,
    CardPreprocessing,
    CardScore,
    Int8Facts,
    is_own_card,
    read_facts,
    write_card,
)
from autoprune.exporting._int8 import CALIBRATIONS, may_saturate, quantise
from autoprune.exporting._onnx import (
    OnnxSignature,
    OnnxTensor,
    onnx_feed,
    read_signature,
    run_onnx,
    write_onnx,
)
from autoprune.exporting._recipe import Recipe
from autoprune.exporting._recipe_schema import Architecture, read_architecture
from autoprune.exporting._runtimes import (
    EXPORTERS,
    FOLDER,
    ExporterSpec,
    ExportReport,
    export,
    find_exporter,
)
from autoprune.exporting._saved_model import (
    RECIPE,
    WEIGHTS,
    load_pruned,
    read_recipe,
    save_pruned,
    update_extra,
)

__all__ = [
    "CALIBRATIONS",
    "CARD",
    "EXPORTERS",
    "FOLDER",
    "INT8",
    "ONNX",
    "PAGE",
    "RECIPE",
    "WEIGHTS",
    "Architecture",
    "CardCost",
    "CardFacts",
    "CardPreprocessing",
    "CardScore",
    "ExportReport",
    "ExporterSpec",
    "Int8Facts",
    "OnnxSignature",
    "OnnxTensor",
    "Recipe",
    "export",
    "find_exporter",
    "is_own_card",
    "load_pruned",
    "may_saturate",
    "onnx_feed",
    "quantise",
    "read_architecture",
    "read_facts",
    "read_recipe",
    "read_signature",
    "run_onnx",
    "save_pruned",
    "update_extra",
    "write_card",
    "write_onnx",
]
