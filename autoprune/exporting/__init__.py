"""Export: pruned models as safetensors with a recipe, as ONNX and as .pt2.

Before: `rebuild` and `finetune`. After: `load_pruned`, onnxruntime, torch.export; nothing here runs a pickle.

    save_pruned(small, plan, "best/")
    export(load_pruned("best/", make_model), "best/model.onnx")
"""

from autoprune.exporting._recipe import Recipe
from autoprune.exporting._recipe_schema import Architecture, read_architecture
from autoprune.exporting._runtimes import EXPORTERS, FOLDER, ExportReport, export, onnx_feed, write_onnx
from autoprune.exporting._saved_model import RECIPE, WEIGHTS, load_pruned, read_recipe, save_pruned

__all__ = [
    "EXPORTERS",
    "FOLDER",
    "RECIPE",
    "WEIGHTS",
    "Architecture",
    "ExportReport",
    "Recipe",
    "export",
    "load_pruned",
    "onnx_feed",
    "read_architecture",
    "read_recipe",
    "save_pruned",
    "write_onnx",
]
