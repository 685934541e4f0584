"""A part of a model that is traced alone: its names, costs and proof, and the whole model around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import TraceError
from autoprune.exporting import read_recipe


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"maps": self.last(self.norm(self.first(images)).relu())}


class Detector(nn.Module):
    """Takes a list of images and returns a list, with a number of items that depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"backbone": Backbone()})
        self.head = nn.Conv2d(6, 5, 1)
        self.spare = nn.Linear(2, 2)

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        maps = self.parts["backbone"](torch.stack(images))["maps"]
        return [each[each > 0] for each in self.head(maps)]


class Peeking(Detector):
    """Calls a layer of the backbone outside of it."""

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        backbone: Any = self.parts["backbone"]
        backbone.first(torch.stack(images))
        return super().forward(images)


class Sharing(Detector):
    """Uses a weight of the backbone outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Conv2d(3, 8, 3)
        backbone: Any = self.parts["backbone"]
        self.extra.weight = backbone.first.weight


IMAGES = ([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)],)
TARGET = "parts.backbone"


def test_a_part_is_traced_proved_saved_and_exported_inside_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector().eval()
    with pytest.raises(TraceError, match="Detector cannot be traced"):
        autoprune.trace(model, IMAGES)
    prunable = autoprune.trace(model, IMAGES, target=TARGET)
    alone = autoprune.trace(model.parts["backbone"], torch.zeros(1, 3, 8, 8))
    assert prunable.cost().known() == alone.cost().known()
    reasons = {group.name: group.frozen for group in prunable.groups}
    assert reasons[f"{TARGET}.first"] is None
    assert reasons[f"{TARGET}.last"] == "the model's output"
    assert reasons["head"] == f"it lies outside of {TARGET}"
    plan = autoprune.make_plan(prunable, 0.5)
    assert plan.widths == {f"{TARGET}.first": 4}
    small = autoprune.rebuild(prunable, plan)
    assert float(autoprune.verify(prunable, plan, small)) < 1e-9
    assert prunable.cost(plan.widths).params == sum(
        each.numel() for each in small.get_submodule(TARGET).parameters()
    )
    autoprune.save_pruned(small, plan, tmp_path / "small")
    assert read_recipe(tmp_path / "small").target == TARGET
    loaded = autoprune.load_pruned(tmp_path / "small", Detector)
    with torch.no_grad():
        for got, expected in zip(loaded(*IMAGES), small(*IMAGES), strict=True):
            assert torch.equal(got, expected)
    written = autoprune.export(loaded, tmp_path / "part.pt2", "pt2")
    assert written.part == TARGET
    with pytest.raises(
        autoprune.AutopruneError, match=r"Leave example_inputs out to export its part parts\."
    ):
        autoprune.export(loaded, tmp_path / "whole.pt2", "pt2", example_inputs=IMAGES)


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Labelled(nn.Module):
    """Returns a dataclass that torch does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, rows: Tensor) -> Output:
        return Output(self.layers(rows))


def test_a_model_that_returns_a_dataclass_is_traced_and_proved() -> None:
    prunable = autoprune.trace(Labelled(), torch.zeros(2, 4))
    plan = autoprune.make_plan(prunable, 0.5)
    assert plan.widths == {"layers.0": 4}
    assert float(autoprune.verify(prunable, plan, autoprune.rebuild(prunable, plan))) < 1e-9


def test_a_part_that_cannot_be_narrowed_alone_is_refused_or_frozen() -> None:
    with pytest.raises(TraceError, match=r'"parts.backbon" is no module of Detector. Did you mean'):
        autoprune.trace(Detector(), IMAGES, target="parts.backbon")
    with pytest.raises(TraceError, match=r"parts.backbone.first is called outside of parts.backbone too"):
        autoprune.trace(Peeking(), IMAGES, target=TARGET)
    with pytest.raises(TraceError, match=r"the forward pass never calls spare\."):
        autoprune.trace(Detector(), IMAGES, target="spare")
    prunable = autoprune.trace(Sharing(), IMAGES, target=TARGET)
    shared = next(group for group in prunable.groups if group.name == f"{TARGET}.first")
    assert shared.frozen == f"extra.weight: shares the tensor, outside of {TARGET}"
