"""Searches that score by a supernet: trained once, never again, and good for an export without a finetune."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.config.rungs import uses_supernet
from autoprune.criteria import plan_from_importance
from autoprune.data import VisionData, load
from autoprune.errors import CheckpointError, ConfigError, ExportError, TrialError
from autoprune.execution import Setting
from autoprune.exporting import read_recipe
from autoprune.rebuilding import rebuild
from autoprune.run import (
    Counted,
    Dense,
    EpochDone,
    Event,
    SearchResult,
    Stage,
    export,
    load_saved,
    resume,
    settle,
    stored_setting,
    stored_spec,
    train,
)
from autoprune.run._checks.checks import check_names
from autoprune.run._measuring.supernet_training import prepare_supernet
from autoprune.run._resolving.ranking import decode_ranking
from autoprune.run._resolving.resolve import trace_run
from autoprune.score import calibrate
from autoprune.study import open_study
from autoprune.support.threads import cpu_threads
from autoprune.tracing import trace
from autoprune.training import FitResult, Task, evaluate, fit, weights_hash
from autoprune.zoo import checkpoint_hash, load_checkpoint
from autoprune.zoo.resnet import ResNet

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 3,
        "study": "shared",
        "sampler": "random",
        "warm_starts": [],
        "setting": "float32 contiguous",
    },
    "score": {"rungs": ["supernet"], "calibration_batches": 4},
    "supernet": {"epochs": 2, "subnets": 1},
    "finetune": {"epochs": 0},
}


def config(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {**CONFIG.get(name, {}), **sections.get(name, {})} for name in {**CONFIG, **sections}}


class InterruptedSearchError(Exception):
    """Ends a search as Ctrl-C does."""


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(1, (16, 32), 10, 1)


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=512, val_fraction=0.2)


@dataclasses.dataclass(frozen=True)
class Searched:
    result: SearchResult
    events: list[Event]
    weights: Path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, data: VisionData) -> Searched:
    """A whole search, in a folder that tests only read."""
    folder = tmp_path_factory.mktemp("whole")
    places = config(
        search={"storage": f"journal:///{folder}/study.log"}, output={"folder": str(folder / "out")}
    )
    events: list[Event] = []
    result = autoprune.search(fresh_model(), data, places, watch=events.append)
    (weights,) = result.output.glob("supernet-*")
    return Searched(result, events, weights)


def trainings(events: list[Event]) -> int:
    return sum(isinstance(event, Stage) and "training the supernet" in event.text for event in events)


def test_the_supernet_is_trained_before_the_first_trial(searched: Searched) -> None:
    kinds = [type(event).__name__ for event in searched.events if not isinstance(event, (Counted, Stage))]
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["EpochDone", "TrialDone"]
    assert kinds.count("EpochDone") == 2
    assert trainings(searched.events) == 1
    assert searched.weights.suffix == ".safetensors"
    assert set(os.listdir(searched.result.output)) == {searched.weights.name, "report.html"}
    assert [record.scores[0].name for record in searched.result.summary.records] == ["supernet"] * 3


def test_trials_are_scored_with_the_shared_weights(searched: Searched, data: VisionData) -> None:
    """By hand: the weights of the file, cut by the study's ranking, recalibrated and evaluated."""
    shared = fresh_model()
    load_checkpoint(shared, searched.weights)
    assert weights_hash(shared) != weights_hash(fresh_model())
    prunable = trace(shared.eval(), torch.zeros(1, 1, 8, 8))
    study = open_study(searched.result.storage, "shared")
    for record in study.records():
        plan = plan_from_importance(prunable, record.widths, decode_ranking(study.facts.ranking))
        small = rebuild(prunable, plan)
        calibrate(small, data, 4, Setting(), seed=record.seed or 0)
        assert evaluate(small, data.val, Task(), Setting()) == record.score


def test_a_killed_supernet_goes_on_and_a_finished_one_is_kept(
    searched: Searched, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise InterruptedSearchError

    with pytest.raises(InterruptedSearchError):
        autoprune.search(fresh_model(), data, CONFIG, watch=interrupt)
    assert open_study(f"sqlite:///{tmp_path}/runs/shared.db", "shared").records() == []
    events: list[Event] = []
    trained_with: list[int] = []

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochDone):
            trained_with.append(torch.get_num_threads())

    threads = torch.get_num_threads()
    with cpu_threads(threads + 1):  # as a resume under another OMP_NUM_THREADS has
        result = autoprune.resume("shared", model=fresh_model(), data=data, watch=note)
    assert trained_with == [threads]
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [2]
    assert checkpoint_hash(result.output / searched.weights.name) == checkpoint_hash(searched.weights)
    scores = [record.scores[0].score for record in result.summary.records]
    assert scores == [record.scores[0].score for record in searched.result.summary.records]

    events.clear()
    more = ("search.trials=4",)
    grown = resume(
        "shared", result.storage, model=fresh_model(), data=data, overrides=more, watch=events.append
    )
    assert len(grown.summary.records) == 4
    assert trainings(events) == 0
    assert set(os.listdir(result.output)) == {searched.weights.name, "report.html"}


def test_another_study_of_the_same_takes_the_weights(
    searched: Searched, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / searched.weights.name).write_bytes(searched.weights.read_bytes())
    for changed, trained in (({"sampler": "tpe"}, 0), ({"criterion": "l2"}, 1)):
        events: list[Event] = []
        name = f"study-{trained}"
        autoprune.search(
            fresh_model(),
            data,
            config(
                search={"trials": 1, "study": name, **changed},
                output={"folder": str(folder)},
                supernet={"epochs": 2 - trained},
            ),
            watch=events.append,
        )
        assert trainings(events) == trained


def test_weights_that_are_gone_or_changed_are_refused(
    searched: Searched, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = config(search={"trials": 1}, supernet={"epochs": 1, "subnets": 0})
    result = autoprune.search(fresh_model(), data, one)
    (weights,) = result.output.glob("supernet-*")
    kept = weights.read_bytes()
    weights.unlink()
    for verb in (autoprune.resume, autoprune.finetune):
        with pytest.raises(CheckpointError, match=r"no such file, but the trials of shared were"):
            verb("shared", model=fresh_model(), data=data)
    weights.write_bytes(searched.weights.read_bytes())
    with pytest.raises(
        CheckpointError, match=r"the file holds other weights than those that the trials of shared"
    ):
        autoprune.resume("shared", model=fresh_model(), data=data)
    weights.write_bytes(kept)
    autoprune.resume("shared", model=fresh_model(), data=data)


class Machine:
    """One of several that go on with a study: an output folder of its own, and its own rounding."""

    def __init__(self, folder: Path, url: str, data: VisionData, rounding: float) -> None:
        self.folder, self.rounding = folder, rounding
        self.study = open_study(url, "shared")
        spec = stored_spec(self.study)
        spec = dataclasses.replace(spec, output=dataclasses.replace(spec.output, folder=str(folder)))
        dense = Dense(fresh_model().eval(), data, Task(), "cpu")
        self.run = trace_run(dense, spec, stored_setting(self.study))
        self.events: list[Event] = []

    def prepare(self, on_epoch: Callable[[], object] = lambda: None) -> Path:
        """Return the supernet; something else may go on while this machine trains it."""

        def fit_here(model: nn.Module, *parts: Any, **options: Any) -> FitResult:
            fitted = fit(model, *parts, **options)
            with torch.no_grad():
                next(model.parameters()).mul_(self.rounding)
            return fitted

        def watch(event: Event) -> None:
            self.events.append(event)
            if isinstance(event, EpochDone):
                on_epoch()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("autoprune.run._measuring.supernet_training.fit", fit_here)
            path = prepare_supernet(dataclasses.replace(self.run, watch=watch), self.study)
        assert path is not None
        return path


@pytest.fixture
def machines(data: VisionData, tmp_path: Path) -> Callable[[float], tuple[Machine, Machine]]:
    """Return what makes two machines that begin to train the supernet of one study; the second rounds so."""
    url = f"journal:///{tmp_path}/study.log"
    places = config(
        search={"storage": url},
        output={"folder": str(tmp_path / "out")},
        supernet={"epochs": 1, "subnets": 0},
    )

    def interrupt(event: Event) -> None:
        if isinstance(event, Stage) and event.text.startswith("training the supernet"):
            raise InterruptedSearchError

    with pytest.raises(InterruptedSearchError):
        autoprune.search(fresh_model(), data, places, watch=interrupt)
    return lambda rounding: (
        Machine(tmp_path / "a", url, data, 1.0),
        Machine(tmp_path / "b", url, data, rounding),
    )


def test_of_two_machines_that_train_the_supernet_the_first_counts(
    machines: Callable[[float], tuple[Machine, Machine]], tmp_path: Path
) -> None:
    """Without a shared folder the other gets the place of the weights, and its own do not count."""
    first, second = machines(1.001)
    elsewhere = tmp_path / "not-seen-from-there"
    trained: list[Path] = []

    def let_the_first_be_faster() -> None:
        trained.append(first.prepare())
        first.folder.rename(elsewhere)

    advice = rf"Copy {first.folder}/supernet-\S+ from {socket.gethostname()}, share its folder"
    told = rf"the file holds other weights than those that the trials of shared were scored with\. {advice}"
    with pytest.raises(CheckpointError, match=told):
        second.prepare(let_the_first_be_faster)
    with pytest.raises(CheckpointError, match=told):
        second.prepare()
    (own,) = second.folder.iterdir()  # no state of the training is left
    own.unlink()
    with pytest.raises(CheckpointError, match=rf"no such file, .* {advice}"):
        second.prepare()
    assert trainings(second.events) == 1

    elsewhere.rename(first.folder)
    assert first.prepare() == trained[0]
    own.write_bytes(trained[0].read_bytes())
    assert second.prepare() == own
    assert trainings(first.events) == 1


def test_a_machine_that_trained_in_vain_takes_the_weights_it_can_reach(
    machines: Callable[[float], tuple[Machine, Machine]],
) -> None:
    first, second = machines(1.001)
    assert second.prepare(first.prepare) == first.prepare() == next(first.folder.iterdir())
    assert isinstance(second.events[-1], Stage)
    assert "another process was faster" in second.events[-1].text
    assert second.prepare() == first.prepare()


def test_a_machine_that_trained_the_same_weights_takes_its_own(
    machines: Callable[[float], tuple[Machine, Machine]],
) -> None:
    first, second = machines(1.0)
    path = second.prepare(first.prepare)
    assert path.parent == second.folder
    assert checkpoint_hash(path) == checkpoint_hash(first.prepare())


def test_without_a_finetune_the_winner_is_what_was_scored(searched: Searched, data: VisionData) -> None:
    model = fresh_model()
    before = weights_hash(model)
    tuned = autoprune.finetune("shared", searched.result.storage, model=model, data=data)
    assert tuned.val_score == searched.result.best.score
    assert tuned.cost.macs == searched.result.best.macs
    assert weights_hash(model) == before
    small = autoprune.load_pruned(tuned.folder, fresh_model)
    assert evaluate(small, data.val, Task(), Setting()) == pytest.approx(tuned.val_score)


def test_what_a_rung_trained_on_from_the_supernet_is_finetuned_before_an_export(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rung's training is kept nowhere: an export without would write a model that nobody scored."""
    monkeypatch.chdir(tmp_path)
    run = config(search={"trials": 1}, score={"rungs": ["supernet", "1 step"]})
    result = autoprune.search(fresh_model(), data, run)
    with pytest.raises(ExportError, match=r"nothing to export yet\. Run `autoprune finetune shared"):
        export("shared", storage=result.storage)


@pytest.mark.slow
def test_the_command_line_exports_without_a_finetune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config of names; an export at once, then a finetune from the same weights."""
    monkeypatch.chdir(tmp_path)
    overrides = [
        "score=supernet",
        "score.supernet.epochs=1",
        "score.supernet.subnets=1",
        "search.trials=2",
        "search.setting=float32 contiguous",
        "data.batch_size=256",
        "train.epochs=2",
        "finetune.epochs=1",
        "finetune.learning_rate=1e-9",
    ]
    run = load_config("digits", overrides)
    assert uses_supernet(run.score.rungs)
    train(run)
    serial = autoprune.search(config=load_config("digits", [*overrides, "search.study=serial"]))
    weights = checkpoint_hash(next(serial.output.glob("supernet-*")))
    dense = checkpoint_hash("runs/digits/dense.safetensors")
    path = export("serial", format="safetensors").path
    assert read_recipe(path).extra["val_score"] == serial.best.score
    assert checkpoint_hash("runs/digits/dense.safetensors") == dense
    exported = load_saved(path)
    grown = autoprune.resume("serial", overrides=["search.trials=4"])
    assert grown.best.number != serial.best.number
    assert read_recipe(export("serial", format="safetensors").path).extra["trial"] == grown.best.number
    exported = load_saved(path)
    tuned = autoprune.finetune("serial")
    assert tuned.folder == path
    for mine, shared in zip(load_saved(path).parameters(), exported.parameters(), strict=True):
        torch.testing.assert_close(mine, shared, rtol=0, atol=1e-6)  # at that rate, where it began
    assert checkpoint_hash(next(serial.output.glob("supernet-*"))) == weights


@pytest.mark.slow
def test_workers_score_as_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They read the same file of weights."""
    monkeypatch.chdir(tmp_path)
    quick = ["score=supernet", "score.supernet.epochs=1", "search.trials=3", "search.sampler=random"]
    quick += ["search.setting=float32 contiguous", "train.epochs=2"]
    one = autoprune.search(config=load_config("digits", quick))
    two = autoprune.search(
        config=load_config("digits", [*quick, "search.engine=processes", "search.study=two"])
    )
    assert [record.widths for record in two.summary.records] == [
        record.widths for record in one.summary.records
    ]
    assert [record.score for record in two.summary.records] == [
        record.score for record in one.summary.records
    ]


def test_a_supernet_that_diverges_is_reported(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        TrialError, match=r"supernet: epoch 1: diverged: .* Begin another search with a lower score\.supernet"
    ):
        autoprune.search(fresh_model(), data, config(supernet={"epochs": 1, "learning_rate": 1e6}))
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_schedule_that_cannot_be_is_named_by_its_section() -> None:
    for override, message in (
        (
            "score.supernet.schedule=cosin",
            r'score\.supernet\.schedule: unknown name "cosin"\. Did you mean "cosine"',
        ),
        ("score.supernet.optimizer=sdg", r'score\.supernet\.optimizer: unknown name "sdg"'),
    ):
        with pytest.raises(ConfigError, match=message):
            check_names(settle(load_config("digits", [override])))
    check_names(settle(load_config("digits", ["finetune.epochs=0"])))
