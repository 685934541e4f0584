"""Searches as a script runs them, with a model and data of its own, and the parts that they are made of."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.config import load_config
from autoprune.config.settings import RunConfig, ScoreSettings
from autoprune.criteria import importance, plan_from_importance
from autoprune.data import VisionData, load
from autoprune.engines import MakeScorer
from autoprune.errors import ConfigError, DataError, ExportError, StudyError, TrialError
from autoprune.execution import _faults as faults
from autoprune.graph import Prunable
from autoprune.reporting import plot_study, summarise
from autoprune.run import (
    SHORT_OF_WINDOW,
    Dense,
    EpochDone,
    Event,
    Stage,
    TrialDone,
    best,
    change_spec,
    report,
    search,
    settle,
)
from autoprune.run import (
    export_saved as export,
)
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import trace_dense
from autoprune.run._resolving.ranking import decode_ranking, encode_ranking
from autoprune.run._resolving.rungs import parse_rungs
from autoprune.run._resolving.spec import RunSpec, named_setting
from autoprune.run._trials.scoring import ScorerFactory, identify_parts, make_score
from autoprune.score import FinetuneScore
from autoprune.study import open_study
from autoprune.study._header import HEADER
from autoprune.support.tensorfile import write_tensors
from autoprune.support.threads import cpu_threads
from autoprune.training import weights_hash
from autoprune.zoo import make_model

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {"trials": 5, "study": "own", "sampler": "random", "setting": "float32 contiguous"},
    "score": {"rungs": ["calibrate", "2 steps"], "teacher": "dense"},
    "race": {"entrants": 1},
    "finetune": {"epochs": 1},
}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return make_model("digits_resnet", 10, 1)


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


def test_a_script_searches_resumes_and_finetunes_its_own_model(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = weights_hash(model)
    result = autoprune.search(model, data, CONFIG)
    assert [record.number for record in result.summary.records] == [0, 1, 2, 3, 4]
    assert result.best.score == max(
        record.score or 0 for record in result.summary.records if not record.pruned
    )
    assert result.study.best_trial.number == result.best.number
    assert list(result.to_dataframe().score) == [record.score for record in result.summary.records]
    figures = (result.plot_history(), result.plot_pareto("params"), result.plot_rungs())
    assert all(figure.layout.title.text.startswith("own: score") for figure in figures)
    with pytest.raises(StudyError, match="own: importances need 20 complete trials"):
        result.plot_importance()
    with pytest.raises(StudyError, match="has a study of that name already"):
        autoprune.search(model, data, CONFIG)
    again = autoprune.resume("own", model=model, data=data)
    assert again.summary.records == result.summary.records
    tuned = autoprune.finetune("own", model=model, data=data)
    assert tuned.trial == result.best.number
    assert tuned.cost.macs == result.best.macs
    assert tuned.test_score is not None
    assert weights_hash(model) == before
    small = autoprune.load_pruned(tuned.folder, lambda: make_model("digits_resnet", 10, 1))
    assert sum(parameter.numel() for parameter in small.parameters()) == tuned.cost.params


def test_loaders_of_the_users_own_are_searched_and_the_model_stays(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(train, val, test) as torch DataLoaders; a resume may bring the same as a dict."""
    monkeypatch.chdir(tmp_path)
    parts = [data.train, data.val, data.val]
    tensors = [TensorDataset(*map(torch.cat, zip(*part, strict=True))) for part in parts]
    made = [DataLoader(part, batch_size=64, shuffle=part is tensors[0]) for part in tensors]
    model.train()
    before = weights_hash(model)
    few = {**CONFIG, "search": {**CONFIG["search"], "trials": 2}, "task": {"metric": "kl"}}
    result = autoprune.search(model, tuple(made), few)
    assert [record.state for record in result.summary.records] == ["complete"] * 2
    assert (result.summary.dense_score, result.summary.dense_error) == (0.0, 0.0)
    assert all((record.score or 0) < 0 < (record.error or 0) for record in result.summary.records)
    again = autoprune.resume("own", model=model, data=dict(zip(("train", "val", "test"), made, strict=True)))
    assert again.summary == result.summary
    with pytest.raises(ConfigError, match=r"a script passed its own\. Resume from Python"):
        autoprune.resume("own")
    tuned = autoprune.finetune("own", model=model, data=tuple(made))
    assert tuned.test_score == pytest.approx(tuned.val_score)
    assert model.training
    assert weights_hash(model) == before
    with pytest.raises(StudyError, match=r"data is .* here and .* in the study"):
        autoprune.resume("own", model=model, data=(made[0], made[0]))
    with pytest.raises(DataError, match=r"got a DataLoader, expected \(train, val\)"):
        autoprune.search(model, made[0], CONFIG)  # type: ignore[arg-type]  # a user's mistake


def test_another_model_than_the_studys_is_refused(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    autoprune.search(model, data, {**CONFIG, "search": {**CONFIG["search"], "trials": 1}})
    torch.manual_seed(1)
    with pytest.raises(StudyError, match=r"cannot go on: model \(its weights\) is"):
        autoprune.resume("own", model=make_model("digits_resnet", 10, 1), data=data)
    with pytest.raises(StudyError, match=r"data is .* here and .* in the study"):
        autoprune.resume("own", model=model, data=load("digits", batch_size=64, val_fraction=0.3))


def test_a_study_is_summarised_and_drawn(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = autoprune.search(model, data, {**CONFIG, "search": {**CONFIG["search"], "pruner": "none"}})
    summary = summarise(open_study(result.storage, "own"))
    assert summary == result.summary
    assert summary.counts() == {"complete": 5}
    (agreement,) = summary.agreements
    assert (agreement.lower, agreement.upper, agreement.trials) == ("calibrate", "2 steps", 5)
    assert -1 <= agreement.tau <= 1
    assert agreement.tau_interval[0] <= agreement.tau <= agreement.tau_interval[1]
    scores = [record.score or 0.0 for record in summary.ranked()]
    assert scores == sorted(scores, reverse=True)
    errors = [(score * (1 - score) / (data.val.samples - 1)) ** 0.5 for score in scores]
    assert [record.error for record in summary.ranked()] == pytest.approx(errors, rel=1e-5)
    assert all(0.49 <= summary.macs_share(record) <= 0.5 for record in summary.records)
    assert plot_study(summary, tmp_path / "new" / "study.png").read_bytes().startswith(b"\x89PNG")


def test_model_and_data_come_together(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="model and data: got only one of them"):
        autoprune.search(model, None, CONFIG)
    with pytest.raises(ConfigError, match="no config given"):
        autoprune.search(model)


def test_rungs_are_read_from_words() -> None:
    rungs = parse_rungs(ScoreSettings(rungs=("calibrate", "50 steps", "1 epoch")))
    assert [(rung.steps, rung.epochs) for rung in rungs] == [(None, None), (50, None), (None, 1)]
    assert [rung.name for rung in rungs] == ["calibrate", "50 steps", "1 epoch"]
    for wrong in ("5 stepps", "steps", "0 steps", "-1 epochs", ""):
        with pytest.raises(ConfigError, match=r"score\.rungs"):
            parse_rungs(ScoreSettings(rungs=(wrong,)))
    for wrong_order in (("20 steps", "calibrate"), ("calibrate", "calibrate"), ("supernet", "calibrate")):
        with pytest.raises(ConfigError, match=r'score\.rungs: .* "calibrate" can only be the first'):
            parse_rungs(ScoreSettings(rungs=wrong_order))
    for names in (["repair"], ["repair", "calibrate", "5 steps"], ["supernet", "repair", "1 epoch"]):
        assert [rung.name for rung in parse_rungs(ScoreSettings(rungs=tuple(names)))] == names
    for wrong_order in (("20 steps", "repair"), ("calibrate", "repair"), ("repair", "repair")):
        with pytest.raises(ConfigError, match=r'"repair" can only be the first, or follow "supernet"\.'):
            parse_rungs(ScoreSettings(rungs=wrong_order))
    with pytest.raises(ConfigError, match=r'got "repairs", .*"supernet", "repair", or .* mean "repair"\?'):
        parse_rungs(ScoreSettings(rungs=("repairs",)))
    with pytest.raises(ConfigError, match=r'"supernet" can only be the first'):
        parse_rungs(ScoreSettings(rungs=("calibrate", "supernet")))
    with pytest.raises(ConfigError, match=r'got "supernets".* Did you mean "supernet"\?'):
        parse_rungs(ScoreSettings(rungs=("supernets",)))


def test_a_key_that_may_not_change_is_answered_with_those_that_may() -> None:
    config = settle(load_config("digits"))
    with pytest.raises(
        ConfigError, match=r"Begin another search\. Keys that can: search\.trials, .*finetune\.\*"
    ):
        change_spec(config, ["search.sampler=gp"])
    assert change_spec(config, ["search.trials=7"]).search.trials == 7
    for override in ("search.storage=mysql://me:secret@host/db", "storage=mysql://me:secret@host/db"):
        with pytest.raises(ConfigError, match=r"--set (search\.)?storage\b.*: (this key|expected)") as caught:
            change_spec(config, [override])
        assert "secret" not in str(caught.value)


def test_a_password_of_the_storage_is_neither_written_nor_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the URL of a file SQLite takes no notice of it; a server would."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///file:{tmp_path}/study.db?mode=rwc&uri=true&password=secret"
    shown = url.replace("secret", "***")
    told: list[str] = []
    configs: list[RunConfig] = []  # as workers get them

    def note(event: Event) -> None:
        told.append(repr(event))

    def score_with(dense: Dense, prunable: Prunable, spec: RunSpec, *rest: Any) -> FinetuneScore:
        configs.append(spec)
        return make_score(dense, prunable, spec, *rest)

    monkeypatch.setattr(sys.modules["autoprune.run._trial_loop"], "make_score", score_with)
    overrides = [f"search.storage='{url}'", "search.trials=1", "search.warm_starts=[]", "score=calibrate"]
    overrides += ["train.epochs=1", "finetune.epochs=0", "search.setting=float32 contiguous"]
    config = load_config("digits", overrides)
    result = autoprune.search(config=config, watch=note)
    assert result.storage == url
    assert open_study(url, "digits").config["search"]["storage"] == shown
    with pytest.raises(ExportError, match=r"Run `autoprune finetune digits --storage .*password=\*\*\*'`"):
        export("digits", storage=url)
    with pytest.raises(StudyError, match=r"Resume it with `autoprune resume digits --storage .*=\*\*\*'`"):
        autoprune.search(config=config)
    assert best("digits", url).command == f"autoprune finetune digits --storage '{shown}' --trial 0"
    autoprune.finetune("digits", url)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"dense.json", "study.db", "recipe.json"} <= {path.name for path in written}
    assert [path.name for path in written if b"secret" in path.read_bytes()] == []

    study = open_study(url, "digits")
    study.store_config({**study.config, "search": {**study.config["search"], "storage": url}})  # as once
    page = report("digits", url, html=True).page
    assert page is not None
    assert "secret" not in page.read_text("utf-8")
    autoprune.resume("digits", url, overrides=["search.trials=2"], watch=note)
    assert open_study(url, "digits").config["search"]["storage"] == shown
    assert any("password=***" in line for line in told)
    assert "secret" not in "".join(told)
    assert [config.search.storage for config in configs] == [shown] * 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.flops=abc", r"budget\.flops: got 'abc'"),
        ("search.storage='sqlite:///:memory:'", r"search\.storage: .* is lost when the command ends"),
        ("search.study=../../x", r"search\.study"),
        ("finetune.schedule=cosin", r"finetune\.schedule"),
        (
            "search.space=nowhere.toml",
            r"nowhere\.toml: cannot be read as a search space \(no such file\)",
        ),
    ],
)
def test_names_are_refused_before_anything_is_loaded_or_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["autoprune.run._resolving.resolve"], "load_dense", None)
    with pytest.raises(ConfigError, match=message):
        autoprune.search(config=load_config("digits", [override]))
    assert list(tmp_path.iterdir()) == []


def test_a_ranking_cuts_the_plans_of_its_importance(model: nn.Module) -> None:
    prunable = autoprune.trace(model, torch.zeros(1, 1, 8, 8))
    scores = importance(prunable, "l2")
    scores["conv1"] = np.array([1.0, 2.0] * 8)
    back = decode_ranking(encode_ranking(scores))
    for width in range(1, 17):
        widths = {"conv1": width, "layer2.0.conv1": 2 * width}
        assert plan_from_importance(prunable, widths, back) == plan_from_importance(prunable, widths, scores)


def test_a_scorer_travels_to_a_fresh_process_as_plain_values() -> None:
    spec = RunSpec.of("digits")
    assert [rung.name for rung in spec.rungs] == list(spec.score.rungs)
    factory = ScorerFactory(spec, named_setting("float32 contiguous", "cpu"), {"conv1": "text"})
    assert pickle.loads(pickle.dumps(factory)) == factory


def test_a_worker_that_loads_something_else_than_the_search_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same paths: on another host there may be other files."""
    checkpoint, weights = tmp_path / "dense.safetensors", tmp_path / "supernet.safetensors"
    setting = named_setting("float32 contiguous", "cpu")

    def write(path: Path, seed: int) -> None:
        torch.manual_seed(seed)
        write_tensors(make_model("digits_resnet", 10, 1).state_dict(), path)

    write(checkpoint, 0)
    write(weights, 1)
    config = settle(load_config("digits", [f"model.checkpoint={checkpoint}", "score=calibrate"]))
    dense = load_dense(config)
    parts = identify_parts(dense, trace_dense(dense, config), weights)
    factory = ScorerFactory(config, setting, {}, None, weights, parts=parts)
    known = {f"{setting.label}, {setting.threads} threads": "it is off by 30%"}
    known[f"{setting.label}, {setting.threads} threads, detour"] = ""
    monkeypatch.setattr(faults, "_known", known)
    score = factory()
    assert isinstance(score, FinetuneScore)
    assert score._setting.detour, "a worker's machine is asked, not the one that began the search"
    frozen = dataclasses.replace(config, model=dataclasses.replace(config.model, frozen=("layer1.0.conv1",)))
    split = dataclasses.replace(config, data=dataclasses.replace(config.data, val_fraction=0.3))
    for other, differs in ((frozen, r"model \(its channel groups\)"), (split, "data")):
        with pytest.raises(
            StudyError, match=rf"other parts than the search: {differs}\. Copy the search's files there"
        ):
            dataclasses.replace(factory, spec=other)()
    write(weights, 2)
    with pytest.raises(StudyError, match=rf"^worker on {socket.gethostname()}: .*: supernet\."):
        factory()
    write(checkpoint, 2)
    with pytest.raises(StudyError, match=r": model \(its weights\), supernet\."):
        factory()


def test_what_a_caller_brings_stands_in_place_of_what_the_config_names(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that workers and a resume, too, take what the caller brought."""
    monkeypatch.chdir(tmp_path)
    named = {"model": {"name": "resnet20"}, "data": {"name": "cifar10"}}
    config = load_config({**CONFIG, **named}, ["search.trials=1", "score.rungs=['calibrate']"])
    made: list[MakeScorer] = []

    def take(engine: str, runner: object, make_scorer: MakeScorer, **options: object) -> None:
        made.append(make_scorer)

    monkeypatch.setattr(sys.modules["autoprune.run._trial_loop"], "run_search", take)
    spread = dataclasses.replace(config, search=dataclasses.replace(config.search, engine="processes"))
    result = search(model, data, spread)
    assert open_study(result.storage, "own").config["model"]["name"] is None
    (factory,) = made
    assert isinstance(factory, ScorerFactory)
    assert factory.dense is not None
    assert factory.dense.data is data
    assert isinstance(factory(), FinetuneScore)


def test_settings_have_names() -> None:
    setting = named_setting("bfloat16 channels_last", "cpu")
    assert (setting.dtype, setting.channels_last) == ("bfloat16", True)
    with pytest.raises(
        ConfigError,
        match=r'search\.setting: unknown name "float23 contiguous"\. Did you mean "float32 contiguous"',
    ):
        named_setting("float23 contiguous", "cpu")


def test_a_model_that_gives_no_logits_is_refused_before_its_budget(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Says(nn.Module):
        def __init__(self, give: Any) -> None:
            super().__init__()
            self.conv, self.give = nn.Conv2d(1, 8, 3), give

        def forward(self, x: torch.Tensor) -> Any:
            self.last = self.conv(x)
            return self.give(self.last)

    impossible = {**CONFIG, "budget": {"flops": "0.001%"}}
    for give, message in (
        (lambda x: "a cat", "its output is a str, expected a tensor of logits"),
        (lambda x: x.mean((1, 2, 3)) > 0, r"output for one image is \(1,\) of torch.bool, expected logits"),
        (lambda x: x.mean(), r"output for one image is \(\) of torch.float32, expected logits"),
        (lambda x: dict[str, Any]()["x"], r"its forward pass failed on inputs \(1, 1, 8, 8\): KeyError: 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            autoprune.search(Says(give), data, impossible)
    assert list(tmp_path.rglob("*.db")) == []


def test_a_budget_that_no_plan_fills_is_reported_and_optuna_logs_nothing(
    model: nn.Module,
    data: VisionData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        coarse = {**CONFIG, "search": {**CONFIG["search"], "trials": 1, "high": 0.2}}
        told: list[object] = []
        result = autoprune.search(model, data, coarse, watch=told.append)
        assert Stage(SHORT_OF_WINDOW) in told
        assert open_study(result.storage, "own").facts.dense_widths == result.summary.dense_widths
        assert "fc" not in result.summary.dense_widths
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
        assert capfd.readouterr().err == ""
    finally:
        optuna.logging.set_verbosity(before)


def test_a_search_whose_every_trial_failed_is_reported_without_a_plot(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def diverges(*arguments: object) -> None:
        raise TrialError("diverged: the loss is nan")

    monkeypatch.setattr(FinetuneScore, "__call__", diverges)
    few = {**CONFIG, "search": {**CONFIG["search"], "trials": 2}}
    result = autoprune.search(model, data, few)
    with pytest.raises(TrialError, match=r"own: none of 2 trials completed, 2 of them with: diverged"):
        _ = result.best
    found = report("own", result.storage)
    assert found.plot is None
    page = report("own", result.storage, html=True).page
    assert page is not None
    assert "No trial has completed yet, and 2 of 2 failed." in page.read_text("utf-8")
    assert [failure.trials for failure in found.summary.failures()] == [(0, 1)]


def move_trials(storage: str, study: str, device: str) -> None:
    """Let a study's trials run on another device, as if another machine had begun it."""
    stored = open_study(storage, study).optuna
    header = stored.user_attrs[HEADER]
    setting = {**header["chosen"]["setting"], "device": device}
    stored.set_user_attr(HEADER, {**header, "chosen": {**header["chosen"], "setting": setting}})


def test_a_study_whose_device_is_not_here_is_refused_before_a_trial_fails(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = autoprune.search(model, data, {**CONFIG, "search": {**CONFIG["search"], "trials": 1}})
    move_trials(result.storage, "own", "cuda:77")
    refused = (
        r"^own: its trials run on cuda:77, which this machine lacks\. Resume it on a machine that has it\.$"
    )
    with pytest.raises(StudyError, match=refused):
        autoprune.resume("own", model=model, data=data, overrides=["search.trials=4"])
    with pytest.raises(StudyError, match=refused):
        autoprune.finetune("own", model=model, data=data)
    stored = open_study(result.storage, "own")
    assert [record.state for record in stored.records()] == ["complete"]
    assert stored.config["search"]["trials"] == 1


class StoppedError(Exception):
    """Ends a search as Ctrl-C does."""


@pytest.fixture
def three_threads() -> Iterator[int]:
    """Give torch a number of threads that nothing else in the test sets."""
    with cpu_threads(3):
        yield 3


def test_threads_are_given_back_by_searches_and_finetunes_even_on_errors(
    model: nn.Module,
    data: VisionData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three_threads: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []

    def stop(event: Event) -> None:
        seen.append(torch.get_num_threads())
        if isinstance(event, TrialDone | EpochDone):
            raise StoppedError

    with cpu_threads(1):
        autoprune.search(model, data, {**CONFIG, "search": {**CONFIG["search"], "trials": 1}})
    with pytest.raises(StoppedError):
        autoprune.resume("own", model=model, data=data, overrides=["search.trials=2"], watch=stop)
    assert (seen[0], seen[-1], torch.get_num_threads()) == (three_threads, 1, three_threads)
    seen.clear()
    with pytest.raises(StoppedError):
        autoprune.finetune("own", model=model, data=data, watch=stop)
    assert (seen[0], seen[-1], torch.get_num_threads()) == (three_threads, 1, three_threads)
    autoprune.finetune("own", model=model, data=data)
    assert torch.get_num_threads() == three_threads


class Remembers(nn.Module):
    """Keeps what it computed last, with its history; `nest` puts it where only `copy.deepcopy` looks."""

    def __init__(self, nest: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.nest = nn.Conv2d(1, 16, 3), nn.Linear(16, 10), nest

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).relu()
        self.last = {"features": features} if self.nest else features
        logits: torch.Tensor = self.fc(features.mean((2, 3)))
        return logits


def test_a_model_that_holds_a_tensor_with_a_history_is_searched(
    data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Remembers(nest=False)
    model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    one = {**CONFIG["search"], "trials": 1, "criterion": "taylor"}
    result = autoprune.search(model, data, {**CONFIG, "search": one})
    assert [record.state for record in result.summary.records] == ["complete"]
    assert isinstance(model.last, torch.Tensor)
    assert model.last.grad_fn is not None


def test_a_model_that_cannot_be_copied_is_refused_with_advice(data: VisionData) -> None:
    model = Remembers(nest=True)
    model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ConfigError, match=r"model: Remembers cannot be copied: .*\. Remove from its modules"):
        autoprune.search(model, data, CONFIG)


def test_a_search_of_few_plans_reports_it_and_ends_when_all_are_tried(
    model: nn.Module, data: VisionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = {
        **CONFIG,
        "budget": {"flops": "80%"},
        "search": {**CONFIG["search"], "trials": 40, "divisor": 8, "warm_starts": []},
        "score": {"rungs": ["calibrate"]},
    }
    told: list[Event] = []
    result = autoprune.search(model, data, few, watch=told.append)
    said = [event.text for event in told if isinstance(event, Stage)]
    assert [record.state for record in result.summary.records] == ["complete"] * 2
    assert any(line.startswith("2 distinct plans meet the budget, and search.trials is 40") for line in said)
    assert "all 2 distinct plans are tried: the search ends before 40 trials" in said
