"""The race of a search: its winner is what a finetune makes of it, whatever kills the search in between."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.errors import TrialError
from autoprune.exporting import read_recipe
from autoprune.reporting import summary_notes
from autoprune.run import EpochDone, Event, FinetuneResult, SearchResult, Stage
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_spec
from autoprune.run._trials.retraining import race_has_trained, training_state
from autoprune.study import Race, open_study
from autoprune.study._race import LEASE
from autoprune.support.leases import this_process

EPOCHS = 8

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 9,
        "study": "own",
        "sampler": "random",
        "pruner": "none",
        "setting": "float32 contiguous",
        "warm_starts": ["uniform", "l1", "taylor"],
    },
    "score": {"rungs": ["calibrate", "1 step"], "calibration_batches": 1},
    "race": {"entrants": 1},
    "finetune": {"epochs": EPOCHS, "learning_rate": 0.02, "teacher": "none"},
}


RACE = ("race.entrants=4",)


@functools.cache
def dense_net() -> nn.Module:
    """Return a net that is trained for a moment."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((1, 8, 12, 16, 12)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for inputs, targets in list(make_parts()[0]) * 4:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(inputs), targets))
        optimizer.step()
    return net.eval()


def make_net() -> nn.Module:
    return copy.deepcopy(dense_net())


def make_parts() -> tuple[DataLoader[Any], ...]:
    """Return a training, a validation and a test part of noise of three strengths, the classes."""
    torch.manual_seed(1)
    labels = torch.arange(150) % 3
    images = torch.randn(150, 1, 6, 6) * (1 + 0.4 * labels)[:, None, None, None]
    parts = (slice(start, start + 50) for start in (0, 50, 100))
    return tuple(DataLoader(TensorDataset(images[part], labels[part]), 10) for part in parts)


def search(folder: Path) -> SearchResult:
    """Search without a race."""
    places = {"search": {"storage": f"journal:///{folder}/study.log"}, "output": {"folder": str(folder)}}
    config = {name: {**CONFIG.get(name, {}), **places.get(name, {})} for name in {**CONFIG, **places}}
    return autoprune.search(make_net(), make_parts(), config)


def resume(folder: Path, *overrides: str, watch: Any = None, take_over: bool = False) -> SearchResult:
    """Resume the study in a folder, with a race."""
    return autoprune.resume(
        "own",
        storage_in(folder),
        model=make_net(),
        data=make_parts(),
        overrides=(f"output.folder={folder}", *RACE, *overrides),
        watch=watch,
        take_over=take_over,
    )


def storage_in(folder: Path) -> str:
    return f"journal:///{folder}/study.log"


def finetune(storage: str, *overrides: str, trial: int | None = None, watch: Any = None) -> FinetuneResult:
    return autoprune.finetune(
        "own",
        storage,
        trial=trial,
        model=make_net(),
        data=make_parts(),
        overrides=overrides,
        watch=watch,
    )


def weights(tuned: FinetuneResult) -> dict[str, Tensor]:
    return autoprune.load_pruned(tuned.folder, make_net).state_dict()


def facts(race: Race | None) -> Any:
    """Return all but the times of a race."""
    assert race is not None
    entries = {
        number: [
            entry.samples,
            entry.failures,
            [stage.model_copy(update={"seconds": 0.0}) for stage in entry.stages],
        ]
        for number, entry in race.entries.items()
    }
    return race.result, entries


@dataclasses.dataclass
class Searched:
    result: SearchResult
    events: list[Event]
    spec: RunSpec

    @property
    def race(self) -> Race:
        assert self.result.summary.race is not None
        return self.result.summary.race


@pytest.fixture(scope="module")
def unraced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a search without a race, which tests copy."""
    folder = tmp_path_factory.mktemp("unraced")
    assert search(folder).summary.race is None
    return folder


@pytest.fixture(scope="module")
def searched(unraced: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = shutil.copytree(unraced, tmp_path_factory.mktemp("searched") / "out")
    events: list[Event] = []
    result = resume(folder, watch=events.append)
    return Searched(result, events, stored_spec(open_study(result.storage, "own")))


@pytest.fixture
def folder(unraced: Path, tmp_path: Path) -> Path:
    """Return a folder with a copy of the search without a race."""
    return shutil.copytree(unraced, tmp_path / "out")


def epochs_of(events: list[Event]) -> int:
    return sum(isinstance(event, EpochDone) for event in events)


def test_the_best_train_on_and_the_winner_has_the_best_score_of_those_that_reached_the_end(
    searched: Searched,
) -> None:
    race = searched.race
    assert race.result.ends == [1, 2, EPOCHS]
    stages = {number: [stage.epochs for stage in entry.stages] for number, entry in race.entries.items()}
    assert stages[0] == [1, 2, EPOCHS], "uniform trains to the end"
    assert {tuple(each) for each in stages.values()} == {(1,), (1, 2), (1, 2, EPOCHS)}
    finals = {number: entry.last for number, entry in race.entries.items() if entry.at(EPOCHS)}
    assert len(finals) == 2
    winner = max(finals, key=lambda number: (finals[number].score, -number))
    assert searched.result.best.number == race.result.winner == winner
    assert epochs_of(searched.events) == sum(entry.last.epochs for entry in race.entries.values())
    records = searched.result.summary.records
    assert {record.number for record in records if record.is_warm_start} < set(race.entries)
    best = max(records, key=lambda record: (record.score or 0.0, -record.number))
    assert best.number in race.entries


def test_each_epoch_of_an_entrant_is_a_point_of_its_curve(searched: Searched) -> None:
    shown = {
        (event.epoch, event.loss, event.score) for event in searched.events if isinstance(event, EpochDone)
    }
    for entry in searched.race.entries.values():
        points = [point for stage in entry.stages for point in stage.curve]
        assert [point[0] for point in points] == list(range(1, entry.last.epochs + 1))
        assert shown >= set(map(tuple, points))


def test_scores_have_their_standard_errors_and_samples(searched: Searched) -> None:
    for entry in searched.race.entries.values():
        for stage in entry.stages:
            expected = (stage.score * (1 - stage.score) / 49) ** 0.5
            assert stage.error == pytest.approx(expected)
    samples = searched.race.winner.samples
    assert samples is not None
    assert samples.values().mean() == pytest.approx(searched.race.winner.last.score)
    assert searched.result.verdict is not None
    assert "at the same budget" in searched.result.verdict.sentence


def test_the_winner_is_what_a_finetune_alone_makes_of_it_and_is_not_trained_again(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    state = training_state(searched.spec, searched.result.best.candidate)
    assert state.is_file()
    tuned = finetune(searched.result.storage, watch=events.append)
    assert epochs_of(events) == 0
    assert any(isinstance(event, Stage) and "the race has trained it" in event.text for event in events)
    assert tuned.trial == searched.result.best.number
    assert tuned.val_score == searched.race.winner.last.score
    assert tuned.test_score is not None
    assert not state.exists()
    assert run.best("own", searched.result.storage).trial.number == tuned.trial
    alone = finetune(searched.result.storage, f"output.folder={tmp_path}", trial=tuned.trial)
    assert alone.val_score == tuned.val_score
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(tuned).items())


def test_the_other_trial_that_trained_to_the_end_is_saved_without_training_too(searched: Searched) -> None:
    winner = searched.result.best
    other = next(
        number
        for number, entry in searched.race.entries.items()
        if entry.at(EPOCHS) is not None and number != winner.number
    )
    record = searched.result.summary.records[other]
    assert race_has_trained(open_study(searched.result.storage, "own"), record, searched.spec)
    tuned = finetune(searched.result.storage, trial=other)
    assert tuned.val_score == searched.race.entries[other].last.score
    assert not race_has_trained(open_study(searched.result.storage, "own"), record, searched.spec)


def test_an_export_saves_the_trained_winner_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["search.trials=2", "search.sampler=random", "search.warm_starts=[]", "score=calibrate"]
    overrides += ["search.setting=float32 contiguous", "train.epochs=1", "finetune.epochs=1"]
    overrides += ["data.batch_size=256"]
    result = autoprune.search(config=load_config("digits", overrides))
    assert result.summary.race is not None
    exported = run.export_saved("digits", "safetensors")
    assert read_recipe(exported.path).extra["trial"] == result.best.number
    assert read_recipe(exported.path).extra["val_score"] == result.summary.race.winner.last.score
    assert result.verdict is not None
    assert "won the race. No trial with one keep ratio" in result.verdict.sentence


def test_the_states_of_entrants_that_stopped_are_removed(searched: Searched) -> None:
    records = {record.number: record for record in searched.result.summary.records}
    for number, entry in searched.race.entries.items():
        if entry.at(EPOCHS) is None:
            assert not training_state(searched.spec, records[number].candidate).exists()


class Interrupt:
    """A watcher that interrupts the search at its n-th event since the race began."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.begun = False

    def __call__(self, event: Event) -> None:
        self.begun = self.begun or (isinstance(event, Stage) and event.text.startswith("race of "))
        self.left -= self.begun
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [*(pytest.param(after, marks=pytest.mark.slow) for after in (2, 13)), 17])
def test_an_interrupted_race_resumes_with_the_same_result(
    searched: Searched, folder: Path, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        resume(folder, watch=Interrupt(after))
    assert open_study(storage_in(folder), "own").race() is None
    assert facts(resume(folder).summary.race) == facts(searched.race)
    assert finetune(storage_in(folder)).val_score == searched.race.winner.last.score


def die(folder: str, after: int, *overrides: str) -> None:
    """Race until the n-th event, and kill this process there."""

    def watch(event: Event) -> None:
        try:
            interrupt(event)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGKILL)

    interrupt = Interrupt(after)
    resume(Path(folder), *overrides, watch=watch)


def kill_resumed(folder: Path, after: int, *overrides: str) -> None:
    """Resume a search in a process of its own, which kill -9 ends at the n-th event of the race."""
    code = f"import tests.run.trials.test_race as race; race.die({str(folder)!r}, {after}, *{overrides!r})"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 15])
def test_a_killed_race_resumes_with_the_same_result(searched: Searched, folder: Path, after: int) -> None:
    kill_resumed(folder, after)
    assert facts(resume(folder).summary.race) == facts(searched.race)


def test_a_race_of_more_trials_trains_only_the_new_entrants(searched: Searched, tmp_path: Path) -> None:
    folder = shutil.copytree(searched.result.output, tmp_path / "out")
    events: list[Event] = []
    assert facts(resume(folder, watch=events.append).summary.race) == facts(searched.race)
    assert epochs_of(events) == 0
    more = resume(folder, "search.trials=12", "race.entrants=7", watch=events.append).summary.race
    assert more is not None
    assert set(more.entries) > set(searched.race.entries)
    before, after = searched.race.entries, more.entries
    trained = sum(entry.last.epochs for entry in after.values())
    known = sum(entry.last.epochs for entry in before.values())
    repeated = sum(  # the states of those that had stopped are gone
        before[number].last.epochs for number in before if before[number].last != after[number].last
    )
    assert epochs_of(events) <= trained - known + repeated


@pytest.mark.parametrize(
    "sections",
    [
        {"race": {"entrants": 1}},
        {"finetune": {"epochs": 0}},
        {"score": {"rungs": ["repair"]}},
        {"score": {"rungs": ["supernet"]}},
        {"search": {"objectives": ["score", "params"]}},
    ],
    ids=["off", "untrained", "exported as repaired", "exported as scored", "several objectives"],
)
def test_some_settings_have_no_race(sections: dict[str, dict[str, Any]]) -> None:
    assert RunSpec.of({}).has_race
    assert not RunSpec.of(sections).has_race


def test_a_race_that_another_process_runs_is_left_alone(searched: Searched, folder: Path) -> None:
    study = open_study(storage_in(folder), "own")
    theirs = dataclasses.replace(this_process(), host="node-2")
    study.store_note(LEASE, theirs.to_json())
    events: list[Event] = []
    assert resume(folder, watch=events.append).summary.race is None
    (said,) = [event.text for event in events if isinstance(event, Stage) and "node-2" in event.text]
    assert said.startswith(f"process {theirs.pid} on node-2 runs the race of this study.")
    assert "--take-over" in said
    assert facts(resume(folder, take_over=True).summary.race) == facts(searched.race)
    assert open_study(storage_in(folder), "own").note(LEASE) is None


def test_entrants_that_diverge_leave_the_race_and_the_trials_are_kept(folder: Path) -> None:
    wild = ("finetune.learning_rate=1000000.0", "finetune.schedule=constant", "finetune.warmup=0.0")
    with pytest.raises(TrialError, match=r"own: race: no entrant is left.*Set finetune\.learning_rate below"):
        resume(folder, *wild)
    assert len(open_study(storage_in(folder), "own").finished()) == 9
    mended = resume(folder, "finetune.learning_rate=0.02", "finetune.epochs=2").summary.race
    assert mended is not None
    assert all(mended.failure(number) is None for number in mended.entries)


def test_an_old_study_has_no_race_unless_it_is_requested(searched: Searched) -> None:
    study = open_study(searched.result.storage, "own")
    config = copy.deepcopy(study.config)
    del config["race"]
    study.config = config
    assert not stored_spec(study).has_race


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_race_as_one_process_does(searched: Searched, folder: Path, engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    result = resume(folder, f"search.engine={engine}", "search.workers=2")
    assert facts(result.summary.race) == facts(searched.race)


RATES = ("race.learning_rates=[1000000.0, 0.0005]",)
"""Besides that of CONFIG, which is too high here: one at which all trainings diverge, and a good one."""


@pytest.fixture(scope="module")
def tuned(unraced: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Return a search whose race compares three learning rates."""
    folder = shutil.copytree(unraced, tmp_path_factory.mktemp("tuned") / "out")
    events: list[Event] = []
    result = resume(folder, *RATES, watch=events.append)
    return Searched(result, events, stored_spec(open_study(result.storage, "own")))


def test_learning_rates_are_compared_before_the_last_stage(tuned: Searched) -> None:
    entries, result = tuned.race.entries, tuned.race.result
    stages = {n: [(each.epochs, each.learning_rate) for each in entry.stages] for n, entry in entries.items()}
    whole = ((1, None), (2, None), (2, 0.0005), (EPOCHS, 0.0005))
    assert {tuple(each) for each in stages.values()} == {whole[:1], whole[:3], whole}
    racing = [entry for entry in entries.values() if entry.at(2) is not None]
    failed = [[(each.epochs, each.learning_rate) for each in entry.failures] for entry in racing]
    assert failed == [[(2, 1e6)]] * len(racing)
    assert all(tuned.race.failure(number) is None for number in entries)
    means = [np.mean([stage.score for entry in racing if (stage := entry.at(2, r))]) for r in (None, 0.0005)]
    assert [each.learning_rate for each in result.tried] == [0.02, 1e6, 0.0005]
    assert [each.score for each in result.tried] == pytest.approx([means[0], None, means[1]])
    assert means[1] > means[0]
    assert (result.compared, result.learning_rate) == (2, 0.0005)
    notes = " ".join(summary_notes(tuned.result.summary))
    assert f"after 2 epochs: 0.02 ({means[0]:.4f}), 1e+06 (diverged), 0.0005 ({means[1]:.4f})." in notes
    assert "All trainings went on with 0.0005." in notes


def test_the_winner_is_what_a_finetune_at_the_chosen_learning_rate_makes_of_it(
    tuned: Searched, tmp_path: Path
) -> None:
    events: list[Event] = []
    raced = finetune(tuned.result.storage, watch=events.append)
    assert epochs_of(events) == 0
    assert raced.val_score == tuned.race.winner.last.score
    assert [file.name for file in tuned.result.output.glob("finetune-*")] != [], "uniform is kept, too"
    places = (f"output.folder={tmp_path}", "finetune.learning_rate=0.0005")
    alone = finetune(tuned.result.storage, *places, trial=raced.trial, watch=events.append)
    assert epochs_of(events) == EPOCHS
    assert alone.val_score == raced.val_score
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(raced).items())
    own = finetune(
        tuned.result.storage, f"output.folder={tmp_path}", "finetune.learning_rate=0.02", watch=events.append
    )
    assert epochs_of(events) == 2 * EPOCHS, "a learning rate of the command line counts"
    assert not all(torch.equal(tensor, weights(own)[name]) for name, tensor in weights(raced).items())


def test_a_worse_learning_rate_changes_nothing_else(searched: Searched, folder: Path) -> None:
    race = resume(folder, "race.learning_rates=[2.0]").summary.race
    assert race is not None
    assert race.result.learning_rate is None
    for number, entry in searched.race.entries.items():
        assert [stage.score for stage in entry.stages] == [
            stage.score for stage in race.entries[number].stages if stage.learning_rate is None
        ]
    assert race.result.winner == searched.race.result.winner
    again = resume(folder, "race.learning_rates=[]").summary.race
    assert again is not None
    assert again.result == searched.race.result


@pytest.mark.slow
def test_a_later_comparison_keeps_the_samples_of_the_trainings_that_count(
    searched: Searched, tmp_path: Path
) -> None:
    folder = shutil.copytree(searched.result.output, tmp_path / "out")
    verdict = searched.result.verdict
    assert verdict is not None
    assert verdict.interval is not None
    worse = resume(folder, "race.learning_rates=[2.0]")
    assert worse.verdict == verdict
    assert worse.summary.race is not None
    assert worse.summary.race.winner.last == searched.race.winner.last
    better = resume(folder, *RATES).summary.race
    assert better is not None
    assert better.winner.last.learning_rate == better.result.learning_rate == 0.0005
    again = resume(folder, "race.learning_rates=[]")
    assert again.verdict == verdict
    assert again.summary.race is not None
    assert again.summary.race.winner.last.score == searched.race.winner.last.score


@pytest.mark.parametrize("after", [9, pytest.param(17, marks=pytest.mark.slow)])
def test_an_interrupted_comparison_resumes_with_the_same_result(
    tuned: Searched, folder: Path, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        resume(folder, *RATES, watch=Interrupt(after))
    events: list[Event] = []
    assert facts(resume(folder, *RATES, watch=events.append).summary.race) == facts(tuned.race)
    assert epochs_of(events) < epochs_of(tuned.events)


@pytest.mark.slow
def test_a_killed_comparison_resumes_with_the_same_result(tuned: Searched, folder: Path) -> None:
    kill_resumed(folder, 15, *RATES)
    assert facts(resume(folder, *RATES).summary.race) == facts(tuned.race)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_compare_learning_rates_as_one_process_does(
    tuned: Searched, folder: Path, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    result = resume(folder, *RATES, f"search.engine={engine}", "search.workers=2")
    assert facts(result.summary.race) == facts(tuned.race)
