"""The fuzzer of experiments/faults: its cases are sound, it finds faults, and some cases have none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from experiments.faults import child
from experiments.faults.cases import VERBS, Case, load_cases
from experiments.faults.child import Limits, Outcome, run_case
from experiments.faults.fuzz import command_in_child, preload
from experiments.faults.material import Folders, Material
from experiments.faults.verdict import counts, judge
from experiments.killing import adopt_orphans

CASE = Case(id="a case", kind="texts", verb="inspect", arguments=("inspect", "x"), says=("trials",))
GOOD = Outcome(
    code=2,
    output="",
    errors="autoprune: search.trials: got 0, expected an integer >= 1.\n",
    seconds=0.1,
    memory_mib=10.0,
    changed={},
    hung=False,
    left=0,
    ran=False,
)

LEFT = "accepted processes"


@pytest.fixture
def orphans() -> Iterator[None]:
    adopt_orphans()
    yield
    adopt_orphans(adopt=False)


def test_cases_are_many_and_reach_all_verbs() -> None:
    cases = load_cases()
    assert len(cases) >= 600
    assert {case.verb for case in cases} == {*(words[0] for words in VERBS.values()), "python", "none"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"errors": "Traceback (most recent call last):\n  x\n", "code": 1}, "traceback"),
        ({"code": 1}, "exit_code"),
        ({"code": -11}, "exit_code"),
        ({"errors": "autoprune: one\nautoprune: trials\n"}, "message"),
        ({"errors": "autoprune: no word of what is wrong\n"}, "message"),
        ({"errors": f"autoprune: trials {'9' * 5000}\n"}, "message"),
        ({"errors": "autoprune: trials \x1b[31m\n"}, "message"),
        ({"errors": "", "code": 0}, "accepted"),
        ({"hung": True, "code": -9}, "hang"),
        ({"memory_mib": 5000.0}, "memory"),
        ({"changed": {"work/runs/tiny.db": "changed"}}, "changed"),
        ({"ran": True}, "ran_code"),
        ({"left": 1}, "processes"),
    ],
)
def test_each_fault_is_seen(change: Mapping[str, object], fault: str) -> None:
    assert judge(CASE, GOOD, Limits()) == []
    outcome = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert judge(CASE, outcome, Limits()) == [fault]
    (row,) = counts([(CASE, [fault])])
    assert row[fault] == 1
    (row,) = counts([(dataclasses.replace(CASE, exception="a reason"), [fault])])
    assert (row[fault], row["excepted"]) == (0, 1)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("raise ValueError", "traceback"),
        ("import sys; sys.exit(3)", "exit_code"),
        ("pass", "accepted"),
        ("import time; time.sleep(600)", "hang"),
        ("open('new', 'w'); raise SystemExit(2)", "message changed"),
        ("import os; open(os.environ['FAULTS_RAN'], 'w'); raise SystemExit(0)", "accepted ran_code changed"),
        (
            "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)",
            "accepted processes",
        ),
    ],
)
@pytest.mark.usefixtures("orphans")
def test_faults_of_a_command_are_seen(
    code: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_PATIENCE_S", 0.1)  # nothing here ends late
    folders = Folders(tmp_path / "w00")
    folders.make()
    seconds = 0.1 if fault == "hang" else 200.0
    case = Case(id="script", kind="python", verb="python", arguments=(code,), seconds=seconds)
    assert sorted(judge(case, run_case(case, folders, Limits()), Limits())) == sorted(fault.split())


def quick_cases() -> list[Case]:
    """Return cases that are decided before a model is made, some of each class."""
    kinds = ("numbers", "texts", "files", "amounts", "places")
    cases = [
        case
        for case in load_cases()
        if case.kind in kinds
        and case.expect == "refused"
        and (case.verb == "train" or (case.verb == "inspect" and case.kind != "amounts"))
        and "timed.toml" not in case.arguments
    ]
    return cases[:: len(cases) // 5]


def test_some_cases_of_each_class_have_no_fault(tmp_path: Path) -> None:
    preload(tmp_path)
    material = Material.make(tmp_path / "material", command_in_child, commands=())
    limits = Limits(seconds=200.0)
    wrong = {}
    for case in quick_cases():
        outcome = run_case(case, material.fresh(), limits)
        faults = judge(case, outcome, limits)
        if faults and not case.exception:
            wrong[case.id] = (faults, outcome.code, outcome.errors[-500:], outcome.changed)
    assert wrong == {}
