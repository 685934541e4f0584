"""Searches, resumes and finetunes logged by real trackers, read back by the trackers' own readers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune import run
from autoprune.engines import TrialEvent, run_search
from autoprune.errors import ConfigError
from autoprune.run import Event, FinetuneResult, SearchResult, Stage, TrialDone
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.tracking import tracking
from autoprune.study import SearchStudy, create_study, open_study
from autoprune.trackers import CurvePoint, Result, StudyClosed, StudyOpened, TrackerEvent, TrialEnded
from tests.engines.toy import FACTS, IDENTITY, make_toy, toy_runner

CONFIG: dict[str, dict[str, Any]] = {
    "model": {"name": "digits_resnet", "checkpoint": "dense.safetensors"},
    "data": {"name": "digits"},
    "train": {"when_missing": True, "epochs": 1},
    "budget": {"flops": "50%"},
    "search": {"trials": 3, "study": "digits", "setting": "float32 contiguous", "warm_starts": ["uniform"]},
    "score": {"rungs": ["calibrate", "2 steps"], "calibration_batches": 2},
    "race": {"entrants": 2},
    "finetune": {"epochs": 2},
    "output": {"formats": []},
    "report": {"trackers": ["tests.run.results.test_tracking:make_recorder", "tensorboard"]},
}

RECORDED: list[TrackerEvent] = []


def make_recorder() -> Any:
    return RECORDED.append


def toy_study(folder: Path) -> SearchStudy:
    """A study without a model, with the parts of a config that a summary reads."""
    config = {"task": {"metric": "accuracy"}, "score": {"rungs": ["rung0", "rung1"]}}
    facts = FACTS.model_copy(update={"dense_costs": {"macs": 10**5, "params": 10**4}})
    url = f"journal:///{folder}/study.log"
    return create_study(url, "toy", config=config, identity=IDENTITY, facts=facts)


def log_toy(
    study: SearchStudy, folder: Path, trials: int, *trackers: str, engine: str = "serial"
) -> list[Event]:
    """Run a part of a search with trackers, and return the events of its watcher."""
    events: list[Event] = []
    settings = {"report": {"trackers": list(trackers)}, "output": {"folder": str(folder / "out")}}
    with tracking(study, RunSpec.of(settings), events.append) as watch:

        def report(event: TrialEvent) -> None:
            if event.kind == "finished":
                watch(TrialDone(event.number, "complete", 0.5, "MACs", 0.5, 1.0, "", 1, trials, None))

        runner = toy_runner(study, "random", trials, on_event=report)
        run_search(engine, runner, make_toy, workers=2)
    return events


@pytest.mark.parametrize("engine", ["serial", pytest.param("processes", marks=pytest.mark.slow)])
def test_trials_are_logged_as_they_end_and_once_for_a_study(tmp_path: Path, engine: str) -> None:
    RECORDED.clear()
    study = toy_study(tmp_path)
    for trials in (3, 4):
        log_toy(study, tmp_path, trials, "tests.run.results.test_tracking:make_recorder", engine=engine)
    kinds = [type(event) for event in RECORDED if not isinstance(event, Result)]
    assert kinds == [StudyOpened, *[TrialEnded] * 3, StudyClosed, StudyOpened, TrialEnded, StudyClosed]
    logged = {event.number: event for event in of(RECORDED, TrialEnded)}
    for record in study.records():
        event = logged[record.number]
        assert (event.score, event.widths, event.costs) == (record.score, record.widths, record.costs)
        assert event.shares["macs"] == record.costs["macs"] / 10**5
        assert list(event.rungs.values()) == [score.score for score in record.scores]
    best = [event.value for event in of(RECORDED, Result) if event.name == "best score"]
    assert best[-1] == study.best().score


def test_a_tracker_that_raises_an_error_is_a_warning_and_the_search_goes_on(tmp_path: Path) -> None:
    study = toy_study(tmp_path)
    events = log_toy(study, tmp_path, 3, "tests.run.results.test_tracking:make_broken")
    assert len(study.finished()) == 3
    (warning,) = [event.text for event in events if isinstance(event, Stage)]
    assert "tracker tests.run.results.test_tracking:make_broken stopped: RuntimeError: no server" in warning


def test_without_trackers_nothing_is_stored(tmp_path: Path) -> None:
    study = toy_study(tmp_path)
    log_toy(study, tmp_path, 1)
    assert study.noted("autoprune:tracked") == []
    assert not (tmp_path / "out").exists()


def test_a_failed_trial_is_a_text_in_tensorboard_and_the_settings_are_written_once(tmp_path: Path) -> None:
    study = toy_study(tmp_path)
    runner = toy_runner(study, "random", 1)
    job = runner.ask()
    assert job is not None
    runner.fail(job, "diverged")
    for trials in (2, 3):
        log_toy(study, tmp_path, trials, "tensorboard")
    (folder,) = (tmp_path / "out" / "tensorboard").iterdir()
    reader = read_events(folder)
    assert [each.step for each in reader.Scalars("trials/score")] == [1, 2]
    (failure,) = reader.Tensors("trials/failures/text_summary")
    assert failure.tensor_proto.string_val == [b"trial 0: diverged"]
    (settings,) = reader.Tensors("settings/text_summary")
    assert b"report.trackers" in settings.tensor_proto.string_val[0]


def test_wandb_keeps_a_run_of_its_own_offline_and_asks_for_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    study = toy_study(tmp_path)
    for trials in (1, 2):
        assert log_toy(study, tmp_path, trials, "wandb")[trials:] == []
    files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.stem for file in files] == [f"run-{study.note('autoprune:tracked')}"] * 2
    for file in files:  # it is no format that wandb reads, but its texts are plain
        assert all(text in file.read_bytes() for text in (b"trials/score", b"best score", b"width conv0"))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    (warning,) = [event.text for event in log_toy(study, tmp_path, 2, "wandb") if isinstance(event, Stage)]
    assert "tracker wandb stopped: ConfigError: no key is known: run `wandb login`" in warning


def read_events(folder: Path) -> Any:
    """Return a reader of TensorBoard's own."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = module.EventAccumulator(str(folder))
    reader.Reload()
    return reader


def make_broken() -> Any:
    raise RuntimeError("no server")


class Logged:
    """A search of three trials, its extension by one, and a finetune."""

    def __init__(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            RECORDED.clear()
            self.events: list[Any] = []
            self.first = run.search(config=CONFIG, watch=self.events.append)
            self.result: SearchResult = run.resume(self.first.name, overrides=["search.trials=4"])
            self.tuned: FinetuneResult = run.finetune(self.first.name)
            self.recorded = list(RECORDED)
        self.folder = folder


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    pytest.importorskip("tensorboard")
    return Logged(tmp_path_factory.mktemp("tracked"))


def of(events: list[TrackerEvent], kind: type[Any]) -> Iterator[Any]:
    return (event for event in events if isinstance(event, kind))


@pytest.mark.slow
def test_each_trial_curve_and_result_is_logged_once_in_three_verbs(logged: Logged) -> None:
    events = logged.recorded
    assert [event.is_new for event in of(events, StudyOpened)] == [True, False, False]
    assert len(list(of(events, StudyClosed))) == 3
    (opened, *_) = of(events, StudyOpened)
    assert opened.settings["search.trials"] == 3
    records = logged.result.summary.records
    trials = list(of(events, TrialEnded))
    assert [trial.number for trial in trials] == [0, 1, 2, 3] == [record.number for record in records]
    for trial, record in zip(trials, records, strict=True):
        assert (trial.score, trial.origin, trial.widths) == (record.score, record.origin, record.widths)
        assert trial.rungs == {score.name: score.score for score in record.scores}
        assert trial.shares["macs"] == logged.result.summary.macs_share(record)
    curves: dict[str, list[int]] = {}
    for point in of(events, CurvePoint):
        curves.setdefault(point.curve, []).append(point.epoch)
    tuned = logged.tuned
    assert curves.pop(f"finetune of trial {tuned.trial}") == [1, 2]
    race = logged.result.summary.race
    assert race is not None
    assert curves == {
        f"race, trial {number}": list(range(1, entry.last.epochs + 1))
        for number, entry in race.entries.items()
    }
    results = {event.name: event.value for event in of(events, Result)}
    assert results["best score"] == logged.result.best.score
    assert results[f"trial {tuned.trial} test score"] == tuned.test_score
    assert logged.result.verdict is not None
    assert results["verdict"] == logged.result.verdict.sentence
    assert not [event for event in logged.events if isinstance(event, Stage) and "warning" in event.text]


@pytest.mark.slow
def test_tensorboard_reads_what_was_logged(logged: Logged) -> None:
    (folder,) = (logged.result.output / "tensorboard").iterdir()
    reader = read_events(folder)
    records = logged.result.summary.records
    scores = [(each.step, each.value) for each in reader.Scalars("trials/score")]
    assert scores == [(record.number, pytest.approx(record.score)) for record in records]
    shares = [each.value for each in reader.Scalars("trials/macs share")]
    assert shares == pytest.approx([logged.result.summary.macs_share(record) for record in records])
    curve = reader.Scalars(f"finetune of trial {logged.tuned.trial}/score")
    assert [(each.step, each.value) for each in curve] == [
        (number, pytest.approx(epoch.score)) for number, epoch in enumerate(logged.tuned.epochs, 1)
    ]
    for record in records:
        trial = read_events(folder / f"trial {record.number:04}")
        assert trial.Scalars("trial/score")[0].value == pytest.approx(record.score)


@pytest.mark.slow
def test_a_search_and_its_race_on_ray_are_logged_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    search = {**CONFIG["search"], "engine": "ray", "workers": 2}
    result = run.search(config={**CONFIG, "search": search, "report": {"trackers": ["tensorboard"]}})
    (folder,) = (result.output / "tensorboard").iterdir()
    reader = read_events(folder)
    scores = {each.step: each.value for each in reader.Scalars("trials/score")}
    assert scores == {each.number: pytest.approx(each.score) for each in result.summary.records}
    race = result.summary.race
    assert race is not None
    for number, entry in race.entries.items():
        for name, column in (("loss", 1), ("score", 2)):
            curve = [(each.step, each.value) for each in reader.Scalars(f"race, trial {number}/{name}")]
            points = [point for stage in entry.stages for point in stage.curve]
            assert curve == [(point[0], pytest.approx(point[column])) for point in points]
        ends = [
            (each.step, each.value) for each in reader.Scalars(f"race, trial {number}/score of the stage")
        ]
        assert ends == [(stage.epochs, pytest.approx(stage.score)) for stage in entry.stages]


@pytest.mark.slow
def test_a_tracker_that_is_added_later_gets_the_whole_study(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(logged.folder)
    RECORDED.clear()
    name, url = logged.result.name, logged.result.storage
    added = ["report.trackers=['tests.run.results.test_tracking:Late']"]
    with pytest.raises(ConfigError, match=r'report.trackers: unknown name "tensorbord". Did you mean'):
        run.resume(name, url, overrides=["report.trackers=['tensorbord']"])
    run.resume(name, url, overrides=added)
    assert [trial.number for trial in of(RECORDED, TrialEnded)] == [0, 1, 2, 3]
    assert {point.curve for point in of(RECORDED, CurvePoint)} >= {f"finetune of trial {logged.tuned.trial}"}
    assert len(open_study(url, name).noted("autoprune:tracked")) == 1


class Late:
    """A tracker in the form of a class."""

    def __call__(self, event: TrackerEvent) -> None:
        RECORDED.append(event)


@pytest.mark.slow
def test_mlflow_reads_what_was_logged(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(logged.folder)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    name, url = logged.result.name, logged.result.storage
    for _ in range(2):  # the second logs nothing
        run.finetune(name, url, overrides=["report.trackers=['mlflow']"])
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("autoprune")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    assert (parent.info.run_name, parent.info.status) == (name, "FINISHED")
    assert parent.data.params["budget.flops"] == "50%"
    records = logged.result.summary.records
    history = client.get_metric_history(parent.info.run_id, "score")
    assert sorted((each.step, each.value) for each in history) == [
        (record.number, record.score) for record in records
    ]
    curve = client.get_metric_history(parent.info.run_id, f"finetune of trial {logged.tuned.trial}/score")
    assert [each.value for each in curve] == [epoch.score for epoch in logged.tuned.epochs]
    assert parent.data.metrics[f"trial {logged.tuned.trial} test score"] == logged.tuned.test_score
    assert {each.path for each in client.list_artifacts(parent.info.run_id)} == {"report.html", "recipe.json"}
    children = {each.data.tags["autoprune.trial"]: each for each in runs if each is not parent}
    for record in records:
        child = children.pop(str(record.number))
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.metrics["score"] == record.score
        assert child.data.metrics["macs"] == record.costs["macs"]
        assert int(child.data.params["width conv1"]) == record.widths["conv1"]
        assert math.isclose(float(child.data.params["conv1"]), record.ratios["conv1"])
    assert children == {}
