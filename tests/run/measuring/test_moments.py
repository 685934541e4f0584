"""Searches that repair: moments are measured once, kept with the study, and the same wherever trials run."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.config.settings import ScoreSettings
from autoprune.criteria import importance, plan_from_importance
from autoprune.data import VisionData, load
from autoprune.errors import CheckpointError, DataError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, load_moments, moments, repair_closed, save_moments
from autoprune.run import (
    Counted,
    Dense,
    Event,
    SearchResult,
    Stage,
    TrialDone,
    Watcher,
    export,
    settle,
    stored_spec,
)
from autoprune.run._measuring.moments import StudyMoments, try_repair
from autoprune.run._resolving.ranking import decode_ranking
from autoprune.run._resolving.study_file import FileNote
from autoprune.run._trials.scoring import ScorerFactory, with_weights
from autoprune.score import calibrate, with_model
from autoprune.study import TrialRecord, open_study
from autoprune.tracing import trace
from autoprune.training import Schedule, Task, evaluate, fit
from autoprune.zoo import checkpoint_hash
from autoprune.zoo.resnet import ResNet

IMAGES = 200

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 3,
        "study": "mended",
        "sampler": "random",
        "criterion": "obs",
        "warm_starts": ["sensitivity"],
        "sensitivity_evaluations": 4,
        "setting": "float32 contiguous",
    },
    "score": {"rungs": ["repair", "2 steps"], "calibration_batches": 2, "moment_images": IMAGES},
    "finetune": {"epochs": 0},
}


def config(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {**CONFIG.get(name, {}), **sections.get(name, {})} for name in {**CONFIG, **sections}}


class InterruptedSearchError(Exception):
    """Ends a search as a kill does."""


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(1, (8, 16), 10, 1)


@pytest.fixture(scope="module")
def model(data: VisionData) -> nn.Module:
    made = fresh_model()
    fit(made, data, Schedule(epochs=2), Setting(), Task(), seed=0)
    return made.eval()


@dataclasses.dataclass(frozen=True)
class Searched:
    result: SearchResult
    events: list[Event]
    file: Path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, model: nn.Module, data: VisionData) -> Searched:
    """A whole search, in a folder that tests only read."""
    folder = tmp_path_factory.mktemp("whole")
    places = config(
        search={"storage": f"journal:///{folder}/study.log"}, output={"folder": str(folder / "out")}
    )
    events: list[Event] = []
    result = autoprune.search(model, data, places, watch=events.append)
    (file,) = result.output.glob("moments-*")
    return Searched(result, events, file)


def measurements(events: list[Event]) -> int:
    return sum(isinstance(event, Stage) and event.text.startswith("measuring moments") for event in events)


def scored(records: tuple[TrialRecord, ...]) -> list[tuple[object, ...]]:
    return [(each.widths, each.seed, [(rung.name, rung.score) for rung in each.scores]) for each in records]


def same(one: Moments, other: Moments) -> bool:
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(layer.second, other.layers[name].second)
        and torch.equal(layer.mean, other.layers[name].mean)
        for name, layer in one.layers.items()
    )


def test_moments_are_measured_once_for_ranking_warm_start_and_rung(searched: Searched) -> None:
    assert measurements(searched.events) == 1
    assert Stage(f"measuring moments of {IMAGES} images") in searched.events
    counted = [event for event in searched.events if isinstance(event, Counted) and event.what == "moments"]
    assert [event.done for event in counted] == [64, 128, 192, 200]
    assert [path.name for path in searched.result.output.glob("moments*")] == [searched.file.name]
    names = [[rung.name for rung in record.scores] for record in searched.result.summary.records]
    assert names == [["repair", "2 steps"]] * 3


def test_those_of_few_images_have_a_file_of_their_own(model: nn.Module, data: VisionData) -> None:
    spec, prunable = settle(config(), named=False), trace(model, torch.zeros(1, 1, 8, 8))
    most = (None, 64, 128)
    specs = [
        dataclasses.replace(spec, data=dataclasses.replace(spec.data, most_samples=each)) for each in most
    ]
    files = {StudyMoments(prunable, data, each, Setting(), print).path() for each in specs}
    assert len(files) == 3


def test_they_are_those_of_unchanged_training_images(
    searched: Searched, model: nn.Module, data: VisionData
) -> None:
    """By hand, from a loader without random changes and without the validation part."""
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    plain = load("digits", batch_size=64, val_fraction=0.2, augment=False)
    by_hand = moments(prunable, plain.train.batches(0, 0), images=IMAGES)
    assert same(load_moments(searched.file), by_hand)
    assert not same(by_hand, moments(prunable, data.train.batches(0, 0), images=IMAGES))


def test_trials_are_scored_repaired_and_recalibrated(
    searched: Searched, model: nn.Module, data: VisionData
) -> None:
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    study = open_study(searched.result.storage, "mended")
    for record in study.records():
        plan = plan_from_importance(prunable, record.widths, decode_ranking(study.facts.ranking))
        repaired = repair_closed(prunable, plan, rebuild(prunable, plan), load_moments(searched.file)).model
        calibrate(repaired, data, 2, Setting(), seed=record.seed or 0)
        assert evaluate(repaired, data.val, Task(), Setting()) == record.scores[0].score


def test_a_killed_search_goes_on_as_if_it_was_not(
    searched: Searched, model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once before the moments are kept, once after the first trial."""
    monkeypatch.chdir(tmp_path)

    def interrupt_at(kind: type[Event], text: str = "") -> Watcher:
        def watch(event: Event) -> None:
            if isinstance(event, kind) and getattr(event, "text", "").startswith(text):
                raise InterruptedSearchError

        return watch

    with pytest.raises(InterruptedSearchError):
        autoprune.search(model, data, CONFIG, watch=interrupt_at(Stage, "study mended"))
    assert list(tmp_path.rglob("moments-*")) == []
    with pytest.raises(InterruptedSearchError):
        autoprune.resume("mended", model=model, data=data, watch=interrupt_at(TrialDone))
    events: list[Event] = []
    result = autoprune.resume("mended", model=model, data=data, watch=events.append)
    assert measurements(events) == 0
    assert scored(result.summary.records) == scored(searched.result.summary.records)
    (file,) = result.output.glob("moments-*")
    assert checkpoint_hash(file) == checkpoint_hash(searched.file)


def test_a_file_that_is_damaged_or_changed_is_measured_once_more(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same moments must result: a machine that measures others cannot continue, and loses nothing."""
    monkeypatch.chdir(tmp_path)
    begun = autoprune.search(model, data, config(search={"trials": 1}))
    (file,) = begun.output.glob("moments-*")
    before = checkpoint_hash(file)
    others = load_moments(file)
    file.write_bytes(b"damaged")
    events: list[Event] = []
    autoprune.resume("mended", model=model, data=data, watch=events.append)
    assert measurements(events) == 1
    assert checkpoint_hash(file) == before
    name, layer = next(iter(others.layers.items()))
    rounded = dataclasses.replace(layer, mean=layer.mean * (1 + 1e-15) + 1e-300)
    others = dataclasses.replace(others, layers={**others.layers, name: rounded})
    save_moments(others, file)
    changed = checkpoint_hash(file)
    monkeypatch.setattr("autoprune.run._measuring.moments.measure_model", lambda *args, **kwargs: others)
    differ = r"moments \S+: this machine measures other moments .* of mended .*\. Copy \S+ from \S+"
    for verb in (autoprune.resume, autoprune.finetune):
        with pytest.raises(CheckpointError, match=differ):
            verb("mended", model=model, data=data)
    assert checkpoint_hash(file) == changed


def test_a_damaged_file_of_another_search_is_reported_before_a_study_is_made(
    searched: Searched, model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / searched.file.name
    file.write_bytes(b"damaged")
    again = config(output={"folder": str(tmp_path / "out")}, search={"trials": 1})
    with pytest.raises(
        CheckpointError, match=r"cannot be read \(.*\)\. Delete the file to measure the moments"
    ):
        autoprune.search(model, data, again)
    assert not (tmp_path / "runs").exists()
    file.write_bytes(searched.file.read_bytes())
    events: list[Event] = []
    autoprune.search(model, data, again, watch=events.append)
    assert measurements(events) == 0
    assert Stage(f"moments: using {file.name}, of the same model, data and settings") in events


def test_a_worker_finds_the_file_or_measures_the_same(
    searched: Searched, model: nn.Module, data: VisionData, tmp_path: Path
) -> None:
    """On another host the path leads nowhere, and the file may or may not lie in the output folder."""
    study = open_study(searched.result.storage, "mended")
    settled = stored_spec(study)
    settled = dataclasses.replace(settled, output=dataclasses.replace(settled.output, folder=str(tmp_path)))
    dense = Dense(model, data, Task(), "cpu")
    note = study.note("autoprune:moments") | {"path": str(tmp_path / "elsewhere" / searched.file.name)}
    factory = ScorerFactory(settled, Setting(), study.facts.ranking, dense, moments=FileNote(**note))
    first = study.records()[0]
    for _ in range(2):
        rung = next(factory()(first.widths, first.seed or 0))
        assert rung.score == first.scores[0].score
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == searched.file.read_bytes()


def test_candidates_of_a_supernet_are_repaired_by_its_moments(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = config(
        search={"trials": 1, "warm_starts": [], "criterion": "l1"},
        score={"rungs": ["supernet", "repair"]},
        supernet={"epochs": 1, "subnets": 0},
    )
    result = autoprune.search(fresh_model(), data, given)
    (weights,), (file,) = (result.output.glob(f"{kind}-*.safetensors") for kind in ("supernet", "moments"))
    shared = with_weights(trace(fresh_model().eval(), torch.zeros(1, 1, 8, 8)), weights)
    by_hand = moments(shared, data.unchanged_train.batches(0, 0), images=IMAGES)
    assert same(load_moments(file), by_hand)
    tuned = autoprune.finetune("mended", model=fresh_model(), data=data)
    assert tuned.val_score == result.best.score


def test_a_repair_is_timed_and_what_it_leaves_is_shown(model: nn.Module, data: VisionData) -> None:
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    ranked = importance(prunable, "l1")
    events: list[Event] = []
    settled = settle(load_config(CONFIG), named=False)
    measure = StudyMoments(prunable, data, settled, Setting(), events.append)
    assert try_repair(measure, ranked) > 0
    assert not any(isinstance(event, Stage) and event.text.startswith("repair:") for event in events)
    whole = measure()
    gone = dict.fromkeys(("layer1.0.conv2.weight", "fc.weight"), "too large")
    kept = {name: layer for name, layer in whole.layers.items() if name not in gone}
    measure._measured = dataclasses.replace(whole, layers=kept, left_out=gone)
    try_repair(measure, ranked)
    assert events[-1] == Stage(
        "repair: layers that cannot be refitted: layer1.0.conv2.weight (too large) and 1 more"
    )
    calibrated = dataclasses.replace(settled, score=ScoreSettings(rungs=("calibrate",)))
    assert try_repair(StudyMoments(prunable, data, calibrated, Setting()), ranked) == 0


def test_activations_that_are_not_finite_are_refused(model: nn.Module, data: VisionData) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_parameter("conv1.weight")[0] = math.inf
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    measure = StudyMoments(
        with_model(prunable, broken), data, settle(load_config(CONFIG), named=False), Setting()
    )
    with pytest.raises(DataError, match=r"moments: the inputs of layer1\.0\.conv1\.weight are not finite"):
        measure()


def test_without_any_training_the_winner_is_exported_as_it_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search, then an export at once: the repaired weights are saved, loaded and written as ONNX."""
    monkeypatch.chdir(tmp_path)
    overrides = ["score=repair", "search.trials=1", "search.sampler=random", "train.epochs=1"]
    overrides += ["search.setting=float32 contiguous", "data.batch_size=256", "data.most_samples=256"]
    result = autoprune.search(config=load_config("digits", overrides))
    assert result.next_step.startswith("Next: autoprune export digits ")
    report = export("digits", format="onnx")
    assert report.max_difference < 1e-4
    tuned = autoprune.finetune("digits", overrides=["finetune.epochs=0"])
    assert tuned.val_score == read_recipe(tuned.folder).extra["val_score"] == result.best.score
    assert report.path.parent == tuned.folder


def test_a_finetune_begins_with_the_repaired_weights(
    searched: Searched, model: nn.Module, data: VisionData, tmp_path: Path
) -> None:
    """At a learning rate of almost nothing it ends there, too."""
    slow = ("finetune.epochs=1", "finetune.learning_rate=1e-9", f"output.folder={tmp_path}")
    tuned = autoprune.finetune("mended", searched.result.storage, model=model, data=data, overrides=slow)
    study = open_study(searched.result.storage, "mended")
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    plan = plan_from_importance(prunable, searched.result.best.widths, decode_ranking(study.facts.ranking))
    repaired = repair_closed(prunable, plan, rebuild(prunable, plan), load_moments(searched.file)).model
    small = autoprune.load_pruned(tuned.folder, fresh_model)
    for mine, expected in zip(small.parameters(), repaired.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
