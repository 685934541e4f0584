"""Searches on tasks beyond classification: structured batches, losses by the model, and hooks of a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.data import DataLoader

import autoprune
from autoprune import run
from autoprune.errors import ConfigError, DataError
from autoprune.run._results.tables import inspection_notes

Boxes = list[dict[str, Tensor]]
CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "60%"},
    "search": {"trials": 2, "study": "own", "setting": "float32 contiguous", "sampler": "random"},
    "score": {"rungs": ["repair", "2 steps"], "moment_images": 8, "calibration_batches": 1},
    "race": {"entrants": 1},
    "finetune": {"epochs": 1, "teacher": "none"},
}


class Detector(nn.Module):
    """Finds one bright square in each image. In training mode it returns a dict of losses."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
        )
        self.box = nn.Linear(4 * 64, 4)
        self.score = nn.Linear(4 * 64, 1)

    def forward(self, images: list[Tensor], targets: Boxes | None = None) -> dict[str, Tensor] | Boxes:
        maps = self.backbone(torch.stack(images)).flatten(1)
        boxes, scores = self.box(maps), self.score(maps).sigmoid()
        if targets is not None:
            wanted = torch.stack([each["boxes"][0] for each in targets])
            return {"box": functional.mse_loss(boxes, wanted), "score": (1 - scores).mean()}
        return [{"boxes": box[None][score > 0.1]} for box, score in zip(boxes, scores, strict=True)]


class Near:
    """The share of boxes within half a pixel, in the form of torchmetrics."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def update(self, outputs: Boxes, targets: Boxes) -> None:
        for output, target in zip(outputs, targets, strict=True):
            distance = (output["boxes"] - target["boxes"]).abs().sum() if len(output["boxes"]) else 9.0
            self.found.append(float(-distance))

    def compute(self) -> float:
        return sum(self.found) / len(self.found)


def squares(count: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    made = []
    for number in range(count):
        image, place = torch.zeros(1, 8, 8), number % 5
        image[:, place : place + 3, place : place + 3] = 1
        made.append((image, {"boxes": torch.tensor([[place, place, place + 3, place + 3]]) / 8}))
    return made


def as_lists(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Any]:
    return {"images": [image for image, _ in samples], "boxes": [target for _, target in samples]}


def prepare(batch: dict[str, Any]) -> tuple[Any, Boxes]:
    return (batch["images"],), batch["boxes"]


def detection_loaders() -> tuple[Any, Any]:
    parts: list[Any] = [squares(16), squares(8)]
    train, val = (DataLoader(part, 4, collate_fn=as_lists) for part in parts)
    return train, val


def test_a_detector_is_searched_in_its_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, data = Detector(), detection_loaders()
    task = {"loss": "model", "metric": Near, "prepare": prepare}
    config = {**CONFIG, "model": {"target": "backbone"}, "task": task}
    with pytest.raises(ConfigError, match=r"teacher: .* without outputs to distill"):
        autoprune.search(model, data, {**config, "finetune": {"epochs": 1}}, watch=None)
    inspection = run.inspect(config, model=model, data=data)
    assert inspection.outside_params == sum(
        each.numel() for layer in (model.box, model.score) for each in layer.parameters()
    )
    assert "outside of it stay" in "\n".join(inspection_notes(inspection))
    result = autoprune.search(model, data, config, watch=None)
    records = result.summary.records
    assert {record.state for record in records} == {"complete"}
    assert {record.error for record in records} == {None}  # the metric is no mean over images
    tuned = autoprune.finetune("own", model=model, data=data, watch=None)
    small = autoprune.load_pruned(tuned.folder, Detector)
    assert tuned.cost.params == sum(each.numel() for each in small.get_submodule("backbone").parameters())
    assert len(small([torch.rand(1, 8, 8)] * 3)) == 3  # the whole model, with its list of outputs


class Pair(nn.Module):
    """A model of two inputs with an output like those of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(3, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, wide: Tensor, narrow: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.last((self.first(wide) + self.second(narrow)).relu())
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def keyword_batches(count: int) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(count)
    wides = [torch.randn(8, 6, generator=rng) for _ in range(count)]
    return [{"wide": wide, "narrow": wide[:, :3], "labels": wide[:, :3].argmax(1)} for wide in wides]


def split(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return {key: batch[key] for key in ("wide", "narrow")}, {"labels": batch["labels"]}


def test_keyword_inputs_and_the_loss_of_an_output_are_searched_and_distilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    data = keyword_batches(4), keyword_batches(2)
    config = {**CONFIG, "task": {"loss": "model"}, "finetune": {"epochs": 1}}
    with pytest.raises(DataError, match=r"a loader yielded a dict, expected \(inputs, targets\)"):
        autoprune.search(Pair(), data, config, watch=None)
    result = autoprune.search(Pair(), data, config, prepare=split, watch=None)
    best = result.summary.records[0]
    assert best.state == "complete"
    assert best.error is not None  # accuracy is a mean over samples
    assert 0 <= (best.score or 0) <= 1


def own_step(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return functional.mse_loss(model(*inputs)["logits"], targets)


def own_evaluation(model: nn.Module, loader: Any) -> dict[str, Any]:
    assert not model.training
    assert not torch.is_grad_enabled()
    errors = torch.cat([(model(*inputs)["logits"] - targets).abs().mean(1) for inputs, targets in loader])
    return {"mae": -errors.mean(), "samples": -errors}


def test_a_train_step_and_an_evaluation_of_ones_own_score_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    part = [((wide, wide[:, :3]), wide[:, 3:]) for wide in torch.randn(3, 8, 6, generator=rng)]
    config = {**CONFIG, "task": {"metric": "mae", "train_step": f"{__name__}:own_step"}}
    wrong = {**config, "task": {**config["task"], "metric": "rmse"}}
    with pytest.raises(ConfigError, match=r'returned mae, samples, expected "rmse" among these'):
        autoprune.search(Pair(), (part, part), wrong, evaluate=own_evaluation, watch=None)
    result = autoprune.search(Pair(), (part, part), config, evaluate=own_evaluation, watch=None)
    record = result.summary.records[0]
    assert record.error is not None
    assert (record.score or 0) < 0
