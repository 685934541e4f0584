"""A checkpoint for other classes: its training with a new last layer, and searches before and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autoprune.config import load_config
from autoprune.errors import ConfigError, DataError
from autoprune.run import finetune, inspect, load_saved, search, train
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.paths import settle
from autoprune.zoo import make_model

OLD_CLASSES = 7
TINY = f"{__name__}:tiny"
TRAINED = f"runs/{__name__}-tiny-digits-seven.safetensors"


class Fixed(nn.Module):
    """A net for a fixed number of classes, unless it is given another one."""

    def __init__(self, classes: int = OLD_CLASSES) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.last = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def fixed() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Fixed()


def tiny(classes: int) -> nn.Module:
    return Fixed(classes)


def config(model: dict[str, Any], **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "model": {"new_head": True, **model},
        "data": {"name": "digits", "batch_size": 256},
        "budget": {"flops": "50%"},
        "search": {
            "trials": 2,
            "warm_starts": ["uniform"],
            "sampler": "random",
            "setting": "float32 contiguous",
            "study": "s",
        },
        "score": {"rungs": ["2 steps"]},
        "finetune": {"epochs": 1},
        "race": {"entrants": 1},
        "train": {"epochs": 1},
        **sections,
    }


@pytest.fixture
def seven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint for seven classes in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(Fixed().state_dict(), "seven.pt")
    return "seven.pt"


def test_it_is_trained_once_and_then_searched(seven: str) -> None:
    settings = config({"factory": TINY, "checkpoint": seven})
    dense = load_dense(settle(settings))
    assert dense.new_heads == ("last",)
    body = [name for name in torch.load(seven) if not name.startswith(dense.new_heads)]
    state = dense.model.state_dict()
    assert all(torch.equal(state[name], torch.load(seven)[name]) for name in body)

    with pytest.raises(ConfigError, match=r"is new and not trained.*Train it first with `autoprune train"):
        search(config=settings)
    trained = train(load_config(settings))
    assert trained.checkpoint == Path(TRAINED).absolute()
    with pytest.raises(ConfigError, match=r"model\.new_head: .* exists already\. Replace this one with"):
        train(load_config(settings))
    left_over = trained.checkpoint.with_suffix(".training")
    left_over.touch()
    assert train(load_config(settings), if_exists="resume") == trained
    assert not left_over.exists()
    longer = {**settings, "train": {"epochs": 2}}
    before = trained.checkpoint.read_bytes()
    assert train(load_config(longer), if_exists="overwrite").checkpoint == trained.checkpoint
    assert trained.checkpoint.read_bytes() != before

    lines: list[str] = []
    result = search(config=settings, watch=lambda event: lines.append(str(event)))
    assert any(f"dense model ({trained.checkpoint})" in line for line in lines)
    assert result.best.is_whole
    stored = load_dense(settle(settings)).model.state_dict()
    assert all(torch.equal(stored[name], each) for name, each in load_file(trained.checkpoint).items())


@pytest.mark.slow
def test_a_search_can_train_it_first_and_its_finetune_can_train_it_as_well(seven: str) -> None:
    """Both studies are of other weights than each other: those of the last layer belong to the identity."""
    model = {"factory": TINY, "checkpoint": seven}
    finetuned = config(model, finetune={"epochs": 1, "teacher": "none"})
    lines: list[str] = []
    new = search(config=finetuned, watch=lambda event: lines.append(str(event)))
    assert any("is new and not trained: the dense score is" in line for line in lines)
    assert not Path(TRAINED).exists()
    small = finetune(new)
    assert load_saved(small.folder)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)

    settings = config(model, train={"epochs": 1, "when_missing": True})
    settings["search"]["study"] = "t"
    old = search(config=settings)
    assert Path(TRAINED).is_file()
    assert finetune(old).test_score is not None


def test_a_factory_for_a_fixed_number_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = config({"factory": f"{__name__}:fixed"}, finetune={"epochs": 1, "teacher": "none"})
    dense = load_dense(settle(own))
    assert dense.new_heads == ("last",)
    weights, given = dense.model.state_dict(), fixed().state_dict()
    assert torch.equal(weights["body.0.weight"], given["body.0.weight"])
    assert torch.equal(load_dense(settle(own)).model.state_dict()["last.weight"], weights["last.weight"])
    assert inspect(load_config(own)).groups[-1].width == 10
    result = search(config=own)
    small = finetune(result)
    assert load_saved(small.folder)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_new_heads_need_weights_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="replaces the last layer of trained weights, and none are named"):
        search(config=config({"name": "digits_resnet"}))


def test_a_checkpoint_with_the_right_classes_is_loaded_whole_and_still_needs_unseen_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(make_model("digits_resnet", 10, 1).state_dict(), "ten.pt")
    settings = config({"name": "digits_resnet", "checkpoint": "ten.pt"})
    assert load_dense(settle(settings)).new_heads == ()
    with pytest.raises(DataError, match="may have been trained on the validation part"):
        search(config=settings)
