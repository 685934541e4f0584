"""Which settings go wrong on this machine: tried for real, in child processes that may die of them."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autoprune.errors import ConfigError
from autoprune.execution import Setting, faults_of, fit_to_machine
from autoprune.execution import _fault_cache as cache
from autoprune.execution import _faults as faults
from autoprune.execution.fault_probe import try_setting
from autoprune.training import Task, fastest_setting
from autoprune.zoo import make_model
from tests.clocks import StandingClock

SETTINGS = [Setting("cpu", dtype, last) for dtype in ("float32", "bfloat16") for last in (False, True)]
LAST = Setting(channels_last=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin with nothing known, and leave nothing behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(faults, "_known", {})
    monkeypatch.setattr(faults, "_reported", set())
    return tmp_path / "autoprune" / "convolutions.json"


TRIES = """
import json, sys
from autoprune.execution import faults_of, fit_to_machine
from autoprune.execution.fault_probe import try_setting
from autoprune.execution._setting import Setting

settings = [Setting("cpu", dtype, last) for dtype in ("float32", "bfloat16") for last in (False, True)]
faults_of(settings)
for setting in map(fit_to_machine, settings):
    print(json.dumps([setting.label, try_setting(setting)]), flush=True)
"""


@pytest.mark.parametrize("isa", [pytest.param(None, marks=pytest.mark.slow), "AVX2"])
def test_no_setting_that_is_offered_kills_or_is_wrong(isa: str | None, tmp_path: Path) -> None:
    """In a process of its own, on any CPU: without the detour it dies if the best set is AVX2."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if isa is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    ended = subprocess.run(
        [sys.executable, "-c", TRIES], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    tried = [json.loads(line) for line in ended.stdout.splitlines()]
    assert tried == [[setting.label, ""] for setting in SETTINGS]


def test_what_hangs_is_left_out_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A corrupted heap may leave the child waiting for a lock for ever."""
    hangs = tmp_path / "hangs"
    script = f"""
import json, sys, time
for arguments in json.load(sys.stdin):
    if arguments["channels_last"] and arguments["dtype"] == "float32":
        open({str(hangs)!r}, "w").close()
        time.sleep(600)
    print(json.dumps(""), flush=True)
"""
    monkeypatch.setattr(faults, "_CHILD", script)
    monkeypatch.setattr(faults, "LIMIT_S", 0.6)
    monkeypatch.setattr(subprocess, "_time", StandingClock(hangs.exists))
    assert faults_of([LAST, Setting()]) == {LAST: "not finished after 1 s"}


def test_what_dies_is_found_by_the_way_its_process_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The child is a stand-in that dies of one setting; the others are tried in the next one."""
    script = """
import json, os, signal, sys
for arguments in json.load(sys.stdin):
    if arguments["channels_last"] and arguments["dtype"] == "float32" and not arguments["detour"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    print(json.dumps("" if arguments["dtype"] == "float32" else "it is off by 30%"), flush=True)
"""
    monkeypatch.setattr(faults, "_CHILD", script)
    found = {setting.label: fault for setting, fault in faults_of(SETTINGS).items()}
    assert found == {
        "float32 channels_last": "killed by SIGSEGV (signal 11)",
        "bfloat16 contiguous": "it is off by 30%",
        "bfloat16 channels_last": "it is off by 30%",
    }
    assert not fit_to_machine(Setting()).detour
    assert fit_to_machine(LAST).detour
    assert fit_to_machine(LAST).detour
    (message,) = caplog.messages
    assert message.startswith("float32 channels_last: strided 1x1 convolutions of few inputs go wrong")
    with pytest.raises(ConfigError, match=r'"bfloat16 contiguous" goes wrong on this machine \(it is off by'):
        fit_to_machine(Setting(dtype="bfloat16"))


def test_a_setting_that_goes_wrong_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    known = {faults._case(dataclasses.replace(each, threads=threads)): "" for each in SETTINGS}
    known[faults._case(dataclasses.replace(LAST, threads=threads))] = "killed by SIGABRT (signal 6)"
    monkeypatch.setattr(faults, "_known", known)
    batch = torch.rand(8, 1, 8, 8), torch.arange(8)
    choice = fastest_setting(make_model("digits_resnet", 10, 1), batch, Task(), "cpu", repeats=1)
    said = "goes wrong on this machine: killed by SIGABRT (signal 6)"
    assert choice.left_out["float32 channels_last"] == said
    assert not choice.setting.detour


@pytest.mark.parametrize("detours", [("float32 contiguous", "bfloat16 channels_last"), ()])
def test_if_all_settings_go_wrong_those_with_a_detour_are_timed(
    detours: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        faults,
        "_known",
        {
            faults._case(setting): "" if setting.detour and setting.label in detours else "off by 30%"
            for each in SETTINGS
            for detour in (False, True)
            for setting in [dataclasses.replace(each, threads=torch.get_num_threads(), detour=detour)]
        },
    )
    batch = torch.rand(8, 1, 8, 8), torch.arange(8)
    model = make_model("digits_resnet", 10, 1)
    if detours:
        choice = fastest_setting(model, batch, Task(), "cpu", repeats=1)
        assert choice.setting.detour
        assert choice.setting.label in detours
    else:
        with pytest.raises(
            ConfigError, match=r"no setting runs a training step .* here \(goes wrong on this machine: off"
        ):
            fastest_setting(model, batch, Task(), "cpu", repeats=1)


def test_what_was_found_is_kept_for_other_processes(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(faults, "_CHILD", "import sys; sys.stdin.read(); print('\"off by 40%\"')")
    assert faults_of([LAST]) == {LAST: "off by 40%"}
    monkeypatch.setattr(faults, "_CHILD", "raise SystemExit('nobody asks again')")
    monkeypatch.setattr(faults, "_known", {})
    assert faults_of([LAST]) == {LAST: "off by 40%"}
    assert list(json.loads(own_cache.read_text("utf-8")).values()) == [
        {"float32 channels_last, 1 threads": "off by 40%"}
    ]
    assert [path.name for path in own_cache.parent.iterdir()] == [own_cache.name]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"b": null}}', "\x00", "[" * 100_000])
def test_a_damaged_file_counts_as_empty_and_is_replaced(content: str, own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(content, "utf-8")
    assert cache.recall() == {}
    cache.remember({"float32 contiguous": ""})
    assert cache.recall() == {"float32 contiguous": ""}


def test_a_file_that_cannot_be_written_or_read_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.remember({"float32 contiguous": ""})
    assert cache.recall() == {}
    os.mkfifo(tmp_path / "autoprune")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.recall() == {}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"killed by SIGKILL \(signal 9\)"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_an_end_unrelated_to_the_setting_is_no_fault(
    script: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    own_cache: Path,
) -> None:
    monkeypatch.setattr(faults, "_CHILD", script)
    with caplog.at_level(logging.WARNING):
        assert faults_of([LAST]) == {}
    assert len(caplog.messages) == 1
    assert f"ended early ({said.replace(chr(92), '')}" in caplog.messages[0]
    assert not own_cache.exists()


def test_only_cpus_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_CHILD", "import os; os.abort()")
    assert faults_of([Setting("cuda")]) == {}
    assert fit_to_machine(Setting("cuda:1", "float16")) == Setting("cuda:1", "float16")


def test_the_child_notices_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_setting(Setting()) == ""
    plain = torch.nn.functional.conv2d

    def wrong(inputs: torch.Tensor, weight: torch.Tensor, *others: object, **named: object) -> torch.Tensor:
        outputs: torch.Tensor = plain(inputs, weight, *others, **named)  # type: ignore[call-overload]
        return outputs if inputs.dtype is torch.float64 else outputs * 1.2

    monkeypatch.setattr(torch.nn.functional, "conv2d", wrong)
    assert try_setting(Setting()) == "the output of a 1x1 convolution of 1 inputs is off by 20%"
