"""Export: pruned models as safetensors with a recipe, as ONNX and as .pt2.

Before: `rebuild` and `finetune`. After: `load_pruned`, onnxruntime, torch.export; nothing here runs a pickle.

    save_pruned(small, plan, "best/")
    export(load_pruned("best/", make_model), "best/model.onnx")
"""

from autoprune.export.recipe import Recipe
from autoprune.export.runtime import EXPORTERS, ExportReport, export
from autoprune.export.storage import load_pruned, read_recipe, save_pruned

__all__ = ["EXPORTERS", "ExportReport", "Recipe", "export", "load_pruned", "read_recipe", "save_pruned"]
