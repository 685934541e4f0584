"""Faults of a first run: each is made on purpose, and must be named in one line that says how to mend it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data import wrap_loaders
from autoprune.errors import AutopruneError, ConfigError, DataError
from autoprune.run import RunSpec, search
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.input_faults import Suspicion, suspect
from autoprune.training import Task
from autoprune.zoo import checkpoint_hash

CLASSES = 6
CONFIG: dict[str, Any] = {"budget": {"flops": "50%"}, "search": {"trials": 1}}


def pictures(count: int = 240) -> tuple[Tensor, Tensor]:
    """Return grey-level images [n, 3, 8, 8] from 0 to 255 whose class is the place and colour of a bar."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(60, 120, (count, 3, 8, 8), generator=generator).float()
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label % 3, 2 if label < 3 else 5, :] = 250
    return images, labels


class Bump(nn.Module):
    """An activation that is flat for inputs that are much too large."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(x**2))


def normalised(images: Tensor) -> Tensor:
    return (images / 255 - 0.4) / 0.2


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A net that has learned the pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), Bump(), nn.Flatten(), nn.Linear(8 * 36, CLASSES))
        images, labels = pictures()
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(normalised(images)), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
    return net.eval()


def loaders(images: Tensor, labels: Tensor) -> tuple[DataLoader[Any], DataLoader[Any]]:
    part = TensorDataset(images, labels)
    return DataLoader(part, 60, shuffle=True), DataLoader(part, 60)


def dense_of(model: nn.Module, images: Tensor, labels: Tensor) -> Dense:
    return Dense(model, wrap_loaders(loaders(images, labels)), Task(), "cpu")


SPEC = RunSpec.of(CONFIG)
OTHER_ORDER = torch.tensor([3, 5, 0, 1, 2, 4])
FAULTS: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], str]] = {
    "pixels": (
        lambda x, y: (x, y),
        r"With images normalised as ImageNet's are it is 100.0%: normalise them with",
    ),
    "untrained on pixels": (
        lambda x, y: (x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]),
        "Pixels go from 60 to 250: divide the images by 255 and normalise",
    ),
    "times 255": (lambda x, y: (normalised(x) * 255, y), "With images divided by 255 it is 100.0%: divide"),
    "over 255": (lambda x, y: (normalised(x) / 255, y), "With images multiplied by 255 it is 100.0%"),
    "shifted": (lambda x, y: (normalised(x), y + 1), "With labels that are one lower.*subtract 1 from all"),
    "order": (
        lambda x, y: (normalised(x), OTHER_ORDER[y]),
        "in another order it would be 100",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_named_with_its_cure(fault: str, model: nn.Module) -> None:
    change, message = FAULTS[fault]
    found = suspect(dense_of(model, *change(*pictures())), SPEC)
    assert found is not None
    assert re.search(message, found.text)
    assert found.is_sure == (fault != "order")


def test_a_model_that_is_right_is_not_suspected_even_on_raw_pixels(model: nn.Module) -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(model)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(normalised(x))  # type: ignore[no-any-return]  # modules return Any

    images, labels = pictures()
    assert suspect(dense_of(model, normalised(images), labels), SPEC) is None
    assert suspect(dense_of(Normalising(), images, labels), SPEC) is None


def test_an_untrained_model_is_only_reported(model: nn.Module) -> None:
    images, labels = pictures()
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    found = suspect(dense_of(model, normalised(images), shuffled), SPEC)
    assert found is not None
    assert not found.is_sure
    assert "If it is trained: check the size, channels" in found.text


def test_a_note_that_says_more_is_proof(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "dense.pt"
    torch.save(model.state_dict(), path)
    note = {"sha256": checkpoint_hash(path), "val_score": 0.97}
    path.with_suffix(".json").write_text(json.dumps(note), "utf-8")
    images, labels = pictures()
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    spec = replace(SPEC, model=replace(SPEC.model, checkpoint=str(path)))
    found = suspect(dense_of(model, normalised(images), shuffled), spec)
    assert found == Suspicion(found.text if found else "", is_sure=True)
    assert "Its note says 97.0%: check the size" in found.text


def test_other_metrics_and_targets_are_not_judged(model: nn.Module) -> None:
    images, labels = pictures()
    spec = RunSpec.of({**CONFIG, "task": {"metric": "nll"}})
    assert suspect(dense_of(model, images, labels), spec) is None
    soft = nn.functional.one_hot(labels, CLASSES).float()
    assert suspect(dense_of(model, images, soft), SPEC) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x, y), DataError, "chance is 16.7%. With images normalised"),
        (
            lambda x, y: (normalised(x), y + 1),
            ConfigError,
            "data of 7 classes.*begin at 1. Subtract 1",
        ),
        (
            lambda x, y: (normalised(x)[:, :1], y),
            ConfigError,
            "takes 3 channels and the images have 1",
        ),
        (
            lambda x, y: (normalised(x)[:, :, :6, :6], y),
            ConfigError,
            r"It runs on images of 8 x 8\. Scale",
        ),
        (lambda x, y: (normalised(x).permute(0, 2, 3, 1), y), ConfigError, r"like \[n, H, W, C\]\. Give"),
    ],
)
def test_a_search_refuses_it_before_anything_is_written(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    error: type[AutopruneError],
    message: str,
    model: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as raised:
        search(model, loaders(*change(*pictures())), CONFIG)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
