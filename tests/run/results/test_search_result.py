"""Results go on by themselves: plan, model, finetune, export and report, with the objects of their search."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigError, ExportError
from autoprune.run import Event, SearchResult, Stage
from autoprune.support.notebook import MOST_BYTES
from tests.own_rows import tiny_search


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own"))
        yield tiny_search(storage="journal:///own.log")


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def test_a_result_goes_on_with_the_model_and_the_data_of_its_search(result: SearchResult) -> None:
    """The winner did not race, so it is trained by the finetune alone."""
    with pytest.raises(ExportError, match="nothing to export yet"):
        _ = result.model
    assert result.plan.widths.items() <= result.best.widths.items()
    tuned = result.finetune(overrides=["finetune.epochs=1"])
    assert tuned.plan == result.plan
    assert sum(leaf.numel() for leaf in tuned.model.parameters()) == tuned.cost.params
    assert not tuned.model.training
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(result.model(images), tuned.model(images))
    assert tuned.export(format="safetensors").path == tuned.folder
    assert result.export("small.pt2", "pt2").max_difference < 1e-4
    events: list[Event] = []
    dense = autoprune.export(tuned, "dense.pt2", "pt2", dense=True, watch=events.append)
    assert dense.path == Path("dense.pt2")
    assert events == [Stage("exporting the dense model to pt2, and comparing the outputs")]
    assert result.report("page.html").page == Path("page.html")
    for shown in (
        result,
        tuned,
        autoprune.report(result),
        autoprune.best(result),
        autoprune.inspect("digits"),
    ):
        page = shown._repr_html_()
        assert len(page.encode()) < MOST_BYTES
        assert escape(repr(shown).strip("<>")) in page
        assert "own.log" not in repr(shown)
    assert f"trial {tuned.trial}" in repr(tuned)
    assert autoprune.resume(result).summary.records == result.summary.records
    assert autoprune.best(tuned).trial.number == result.best.number


def test_a_search_from_a_result_takes_its_model_and_data(result: SearchResult) -> None:
    again = autoprune.search(from_study=result, overrides=["budget.flops=30%", "search.trials=1"])
    assert again.session.model is result.session.model
    assert again.summary.dense_score == result.summary.dense_score


def test_inspect_takes_a_model_of_ones_own(result: SearchResult) -> None:
    session = result.session
    own = autoprune.inspect({"budget": {"flops": "50%"}}, model=session.model, data=session.data)
    assert own.model == "Sequential"
    assert {row.name for row in own.groups if not row.frozen} == set(result.plan)


def test_recalibration_measures_a_copy_again(model: nn.Module) -> None:
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    before = first.running_mean.clone()  # type: ignore[union-attr]
    batches = [torch.randn(8, 1, 8, 8) for _ in range(3)]
    copied = autoprune.recalibrate(model, iter(batches), batches=3)
    own = next(layer for layer in copied.modules() if isinstance(layer, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, taken: seen.append(taken[0].mean((0, 2, 3))))
    with torch.no_grad():
        for inputs in batches:
            model.eval()(inputs)
    hook.remove()
    assert torch.allclose(own.running_mean, torch.stack(seen).mean(0), atol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(first.running_mean, before)  # type: ignore[arg-type]
    with pytest.raises(autoprune.AutopruneError, match="got no batch from the data"):
        autoprune.recalibrate(model, [])
    with pytest.raises(autoprune.AutopruneError, match="got a batch of dict"):
        autoprune.recalibrate(model, [{"images": 1}])


def test_export_names_the_arguments_that_a_target_does_not_read(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"export: dense: a module takes path"):
        autoprune.export(model, "net.onnx", dense=True)
    with pytest.raises(ConfigError, match=r"export: tolerance: only a module takes it"):
        autoprune.export("own", tolerance=0.1)
    with pytest.raises(ExportError, match="a module needs the path"):
        autoprune.export(model)
    with pytest.raises(ConfigError, match=r"finetune: study: got 3, expected a text or the result of a"):
        autoprune.finetune(3)  # type: ignore[arg-type]  # a user's mistake
