"""A resumed study keeps the device and the threads of its first trials."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.errors import StudyError
from autoprune.execution import Setting
from autoprune.execution import _faults as faults
from autoprune.run import stored_setting
from autoprune.run._checks.stored_run import open_run
from autoprune.run._measuring.warm_starts import enqueue_missing
from autoprune.run._report import report
from autoprune.run._resolving.latency import stored_table
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.stored_config import stored_ranking, stored_spec, threads_of
from autoprune.study import SearchStudy, create_study, open_study
from autoprune.study._header import HEADER
from autoprune.support.threads import cpu_threads
from tests.engines.toy import FACTS, toy_space
from tests.study.test_facts import EARLIER


def test_data_go_to_the_device_of_the_trials_whatever_auto_would_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = dataclasses.asdict(settle(load_config("digits")))
    create_study("sqlite:///a.db", "a", config=config, identity={}, facts=FACTS)
    with open_run("a", "sqlite:///a.db") as stored:
        assert stored.spec.search.device == "auto"
        assert stored.running.search.device == "cpu"


@pytest.mark.parametrize(("engine", "threads"), [("serial", 1), ("processes", 3), ("ray", 3)])
def test_a_process_that_leaves_the_trials_to_workers_has_its_own_threads(engine: str, threads: int) -> None:
    with cpu_threads(3):
        with threads_of(engine, Setting(threads=1)):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3


SETTING = Setting().facts


def study_with(tmp_path: Path, **chosen: Any) -> SearchStudy:
    """Make a study whose header stores the given values, whatever they are, and open it."""
    config = dataclasses.asdict(settle(load_config("digits", [f"output.folder={tmp_path}"])))
    url = f"journal:///{tmp_path}/study.log"
    made = create_study(url, "toy", config=config, identity={}, facts=FACTS).optuna
    header = made.user_attrs[HEADER]
    made.set_user_attr(HEADER, {**header, "chosen": {**header["chosen"], **chosen}})
    return open_study(url, "toy")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (None, r"chosen\.setting is missing"),
        (SETTING | {"threads": "many"}, r"setting: threads: got 'many'"),
        ({"device": "cpu", "dtype": "float32", "channels_last": False}, "setting: threads is missing"),
        ({"a": "b"}, "setting: channels_last is missing"),
        (SETTING | {"threads": 0}, "setting: got dtype float32 and 0 threads"),
        (SETTING | {"threads": 10**30}, "setting: (got dtype float32 and 1000|threads: got 1000)"),
        (SETTING | {"dtype": "int8"}, "setting: got dtype int8 .*expected one of float32"),
        (SETTING | {"device": ["cpu"]}, r"setting: device: got \['cpu'\]"),
        (SETTING | {"device": "toaster"}, "its trials run on toaster, which this machine lacks"),
        (SETTING | {"channels_last": "perhaps"}, "setting: channels_last: got 'perhaps'"),
    ],
)
def test_a_damaged_setting_is_one_line(tmp_path: Path, setting: Any, message: str) -> None:
    with pytest.raises(StudyError, match=rf"^toy: .*{message}"):
        stored_setting(study_with(tmp_path, setting=setting))


def text_of(*order: int) -> str:
    return base64.b64encode(zlib.compress(np.array(order, "<u4").tobytes())).decode()


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        (None, "is missing"),
        ({}, r"has no order of the \d+ of"),
        ({"0": "no base64!"}, "0: Error -3 while decompressing"),
        ({"0": "eJw="}, r"has no order of the 4 of 0|0: "),
        ({"0": text_of(0, 1, 2)}, "has no order of the 4 of 0"),
        ({"0": text_of(0, 1, 2, 2)}, "0: no order of channels"),
        ({"0": text_of(0, 1, 2, 2**32 - 1)}, "0: no order of channels"),
        ({"0": base64.b64encode(zlib.compress(bytes(2**26))).decode()}, "0: no order of channels"),
    ],
)
def test_a_damaged_ranking_is_one_line(tmp_path: Path, ranking: Any, message: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    prunable = autoprune.trace(net, torch.zeros(1, 1, 8, 8))
    assert [(group.name, group.width) for group in prunable.searchable] == [("0", 4)]
    whole = study_with(tmp_path / "whole", ranking={"0": text_of(3, 1, 0, 2)})
    assert stored_ranking(whole, prunable, None)["0"].tolist() == [2.0, 3.0, 1.0, 4.0]
    with pytest.raises(StudyError, match=rf"^toy: its header is damaged: chosen\.ranking.*{message}"):
        stored_ranking(study_with(tmp_path, ranking=ranking), prunable, None)


@pytest.mark.parametrize("levels", [[], [0], [0, 0, 0, 10**6], [0, 0, 0, -1], [0] * 5])
def test_a_warm_start_of_another_space_is_one_line(tmp_path: Path, levels: list[int]) -> None:
    study = study_with(tmp_path, warm_starts={"trials": [{"origin": "uniform", "levels": levels}]})
    with pytest.raises(
        StudyError, match="toy: its header is damaged: the warm start uniform is not of its space"
    ):
        enqueue_missing(study, toy_space())
    assert study.records() == []


SOUND = {"divisor": 8, "runtime": "eager", "curves": {}}
SHORT = {"widths": [1, 2], "milliseconds": [0.1], "errors": [0.1]}


@pytest.mark.parametrize(
    ("stairs", "problem"),
    [
        ({"divisor": 8}, "runtime is missing"),
        ({**SOUND, "divisor": 0}, ".*expected a divisor of at least 1"),
        ({**SOUND, "curves": {"conv1": SHORT}}, r"curves\.conv1: .*expected as many widths as milliseconds"),
    ],
)
def test_damaged_stairs_are_one_line(tmp_path: Path, stairs: dict[str, Any], problem: str) -> None:
    study = study_with(tmp_path, stairs=stairs)
    with pytest.raises(
        StudyError,
        match=rf"toy: its header is damaged: chosen\.stairs: stairs: {problem}.*\. Measure them again",
    ):
        report("toy", study.url)


def test_a_damaged_latency_table_is_one_line(tmp_path: Path) -> None:
    study = study_with(tmp_path, latency={"format": 3})
    with pytest.raises(StudyError, match=r"toy: its header is damaged: chosen\.latency: latency table: "):
        stored_table(study)


def test_rungs_of_an_earlier_version_go_on_with_sgd(tmp_path: Path) -> None:
    study = study_with(tmp_path)
    spec = settle(load_config("digits", ["finetune.optimizer=adam"])).with_rung_recipe()
    study.store_config(dataclasses.asdict(spec))
    assert stored_spec(study).rung_schedule.optimizer == "adam"
    config = dict(study.config)
    config["score"] = {key: value for key, value in config["score"].items() if key != "optimizer"}
    study.store_config(config)
    assert stored_spec(study).rung_schedule.optimizer == "sgd"


@pytest.mark.parametrize(
    ("section", "value"),
    [("task", []), ("task", {}), ("task", {"metric": 1}), ("score", {"rungs": "x"}), ("score", None)],
)
def test_a_damaged_config_is_one_line(tmp_path: Path, section: str, value: Any) -> None:
    study = study_with(tmp_path)
    study.store_config({**study.config, section: value})
    with pytest.raises(StudyError, match=rf"^toy: its header is damaged: config: {section}"):
        report("toy", study.url)


def test_a_setting_that_was_measured_elsewhere_is_led_around_the_faults_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the study's, so that scores can be compared; a machine that needs no detour takes none."""
    begun = Setting(channels_last=True, threads=7)
    study = study_with(tmp_path, setting=begun.facts)
    for fault, needed in (("", False), ("killed by SIGABRT (signal 6)", True)):
        known = {"float32 channels_last, 7 threads": fault, "float32 channels_last, 7 threads, detour": ""}
        monkeypatch.setattr(faults, "_known", known)
        assert stored_setting(study) == begun
        assert stored_setting(study).detour is needed


def deterministic_net() -> nn.Module:
    """Return the model that the study in tests/study/earlier was made with."""
    layers = (nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 3), nn.ReLU())
    net = nn.Sequential(*layers, nn.Conv2d(16, 24, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(24, 2))
    with torch.no_grad():
        for tensor in net.parameters():
            values = torch.arange(tensor.numel()).mul(7).remainder(11).sub(5).div(16)
            tensor.copy_(values.reshape(tensor.shape))
    return net


def test_a_search_that_an_earlier_version_began_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EARLIER, "study.log")
    images = torch.arange(32 * 64).mul(13).remainder(17).div(16).reshape(32, 1, 8, 8)
    part = [(images[start : start + 16], torch.arange(16) % 2) for start in (0, 16)]
    result = autoprune.resume(
        "earlier",
        f"journal:///{tmp_path}/study.log",
        model=deterministic_net(),
        data=(part, part),
        overrides=["search.trials=5", f"output.folder={tmp_path}"],
    )
    assert [record.state for record in result.summary.records] == ["complete"] * 5
    assert result.summary.records[-1].origin == "sampler"
