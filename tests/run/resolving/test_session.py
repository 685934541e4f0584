"""Functions and objects in place of names: a search takes them, and a resume needs them again."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.samplers import BaseSampler, RandomSampler
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.criteria import CRITERIA
from autoprune.errors import ConfigError, StudyError
from autoprune.run import SearchResult
from autoprune.samplers import SamplerContext, SamplerSpec
from autoprune.study import open_study


class HitRate:
    """A metric that is called batch by batch, like those of torchmetrics."""

    def __init__(self, scale: float) -> None:
        self.scale, self.hits, self.seen = scale, 0, 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.hits += int((outputs.argmax(1) == targets).sum())
        self.seen += len(targets)

    def compute(self) -> float:
        return self.scale * self.hits / self.seen

    def reset(self) -> None:
        self.hits = self.seen = 0


def make_random(context: SamplerContext) -> BaseSampler:
    return RandomSampler(seed=context.seed)


def parts() -> tuple[nn.Module, tuple[DataLoader[Any], DataLoader[Any]]]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 3)
    return model, (DataLoader(images, 16), DataLoader(images, 16))


def config(**search: Any) -> dict[str, Any]:
    losses: list[float] = []

    def noted(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = functional.cross_entropy(outputs, targets)
        losses.append(float(loss.detach()))
        return loss

    return {
        "budget": {"flops": "50%"},
        "task": {"loss": noted, "metric": HitRate(100.0)},
        "search": {
            "trials": 2,
            "study": "own",
            "sampler": SamplerSpec(make_random),
            "criterion": functools.partial(CRITERIA["l1"].rank),
            "setting": "float32 contiguous",
            "storage": "journal:///own.log",
            "warm_starts": [],
            **search,
        },
        "score": {"rungs": ["1 steps"]},
        "finetune": {"epochs": 1},
        "race": {"entrants": 1},
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SearchResult, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("session"))
        used = config()
        yield autoprune.search(*parts(), used), used


def test_a_result_goes_on_with_the_functions_of_its_search(
    searched: tuple[SearchResult, dict[str, Any]],
) -> None:
    result, _ = searched
    stored = open_study(result.storage, result.name).config
    assert stored["task"]["loss"] == f"{__name__}:config.<locals>.noted"
    assert stored["task"]["metric"] == f"{__name__}:<HitRate>"
    assert stored["search"]["sampler"].endswith(":<SamplerSpec>")
    assert all((record.score or 0) > 1 for record in result.summary.records)
    assert result.plan.widths.items() <= result.best.widths.items()
    assert result.finetune(watch=None).val_score > 1
    assert autoprune.resume(result, watch=None).summary.records == result.summary.records


@pytest.mark.slow
def test_exports_of_a_result_need_no_function_again(searched: tuple[SearchResult, dict[str, Any]]) -> None:
    result, _ = searched
    assert autoprune.export(result, "dense.pt2", "pt2", dense=True, watch=None).path == Path("dense.pt2")
    tuned = result.finetune(watch=None)
    for target in (result, tuned):
        found = autoprune.export_int8(target, output="net.int8.onnx", images=16, watch=None)
        assert found.float_score == pytest.approx(tuned.val_score, abs=1e-3)


def test_without_the_functions_one_error_says_how_to_pass_them_again(
    searched: tuple[SearchResult, dict[str, Any]],
) -> None:
    result, _ = searched
    model, data = parts()
    with pytest.raises(
        ConfigError,
        match=r'^task\.loss: ".*noted" is an object of a Python session, which cannot be imported\. Pass it '
        r'again from Python, as in autoprune\.resume\(study, config={"task": {"loss": \.\.\.}}\), or define',
    ):
        autoprune.resume(result.name, result.storage, model=model, data=data, watch=None)
    again = autoprune.resume(result.name, result.storage, model=model, data=data, config=config(), watch=None)
    assert again.summary.records == result.summary.records


def test_an_engine_with_workers_refuses_functions_that_it_cannot_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r'cannot be handed to worker processes .*use engine = "serial"'):
        autoprune.search(*parts(), config(engine="processes", workers=1), watch=None)


def test_functions_of_modules_are_stored_by_their_paths() -> None:
    made = autoprune.load_config({"task": {"loss": functional.cross_entropy, "metric": HitRate}})
    assert made.task.loss == "torch.nn.functional:cross_entropy"
    assert made.task.metric == f"{__name__}:HitRate"
    assert type(made.task.loss) is str


def test_an_exporter_may_be_a_function(tmp_path: Path) -> None:
    def save(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Any:
        torch.save(model, path)
        loaded = torch.load(path, weights_only=False)
        return lambda given: [loaded(*given)]

    path = tmp_path / "net.save"
    report = autoprune.export(parts()[0], path, save, example_inputs=torch.zeros(1, 1, 8, 8))
    assert report.max_difference == 0
    assert path.is_file()
