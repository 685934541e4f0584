"""Claim: kill -9 at any moment loses nothing: a resumed command ends as if it had never been killed.

    python -m experiments.faults.kills [SCENARIO ...]

Each scenario runs its command once undisturbed, then in another folder again and again, each time killed at
another moment, and at last to its end. Appends a row to kills.csv as each scenario ends, and goes on after
those that are there.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.errors import AutopruneError
from autoprune.exporting import load_pruned, read_recipe
from autoprune.study import TrialRecord
from autoprune.zoo import load_checkpoint, make_model
from experiments.common import append_row, rows_of
from experiments.faults.fuzz import preload, prepare_environment
from experiments.faults.material import RUN
from experiments.killing import (
    adopt_orphans,
    content,
    count_trials,
    end_of,
    end_orphans,
    has_ended,
    kill,
    lease_of,
    records,
    start_forked,
    start_real,
)

RESULTS = Path(__file__).with_name("kills.csv")
STUDY = "killed"
DATABASE = f"runs/{STUDY}.db"
URL = "sqlite:///{folder}/" + DATABASE

ENDED = ("COMPLETE", "PRUNED", "FAIL")
PATIENCE_S = 120.0
"""How long workers may take to leave after the process that began them was killed: two agents of Ray's take
between 60 and 90 s to see it."""

Moment = Callable[[Path, int], bool]
"""(folder, kills so far) -> whether the next kill is due, but for a short random delay."""


@dataclass(frozen=True)
class Scenario:
    """A command that is killed again and again.

    Attributes:
        name: of the scenario. It is unique.
        kills: how many times it is killed.
        begin: the command line.
        go_on: the command after a kill, or None for the same one.
        due: when the next kill is due.
        delay_s: the longest random delay after that.
        equal: compares the results of the killed and the undisturbed command: (equal parts, all parts).
        check: reads the folder after a kill. It raises if a file is half-written.
        start: how the command is started.
        material: the command lines that make the content of its folder.
    """

    name: str
    kills: int
    begin: list[str]
    due: Moment
    delay_s: float
    equal: Callable[[Path, Path], tuple[int, int]]
    check: Callable[[Path], object]
    go_on: list[str] | None = None
    start: Callable[[list[str], Path], int] = start_forked
    material: tuple[list[str], ...] = field(default=(["train", "run.toml"],))


def main() -> None:
    prepare_environment("experiments.faults.kills")
    done = {row["scenario"] for row in rows_of(RESULTS)}
    wanted = [each for each in scenarios() if not sys.argv[1:] or each.name in sys.argv[1:]]
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        os.environ["HOME"] = str(root)
        preload(root)
        adopt_orphans()
        for number, scenario in enumerate(wanted):
            if scenario.name not in done:
                append_row(RESULTS, measure(scenario, root / str(number)))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows = rows_of(RESULTS)
    print(f"{sum(int(row['kills']) for row in rows)} kills in {len(rows)} scenarios")
    sys.exit(any(row["equal"] != row["of"] or row["half_written"] != "0" for row in rows))


def measure(scenario: Scenario, root: Path) -> dict[str, object]:
    """Run a scenario undisturbed and killed, and compare."""
    started = time.monotonic()
    whole, killed = root / "whole", root / "killed"
    for folder in (whole, killed):
        folder.mkdir(parents=True)
        (folder / "run.toml").write_text(RUN)
        for command in scenario.material:
            _finish(start_forked(command, folder), folder, command)
    _finish(scenario.start(scenario.begin, whole), whole, scenario.begin)
    moments = random.Random(scenario.name)
    kills = half_written = 0
    longest_s, left = 0.0, 0
    while kills < scenario.kills:
        command = scenario.go_on if kills and scenario.go_on and _has_study(killed) else scenario.begin
        pid = scenario.start(command, killed)
        if not _wait_for(scenario, pid, killed, kills, moments):
            printed = (killed / "log").read_text("utf-8", "replace")[-2000:]
            raise AssertionError(f"{scenario.name}: ended before kill {kills + 1}:\n{printed}")
        kill(pid)
        kills += 1
        before = time.monotonic()
        left += end_orphans(PATIENCE_S)
        longest_s = max(longest_s, time.monotonic() - before)
        half_written += not _is_whole(scenario, killed)
    command = scenario.go_on if scenario.go_on and _has_study(killed) else scenario.begin
    _finish(scenario.start(command, killed), killed, command)
    equal, parts = scenario.equal(whole, killed)
    return {
        "scenario": scenario.name,
        "kills": kills,
        "equal": equal,
        "of": parts,
        "half_written": half_written,
        "processes_left": left,
        "longest_until_gone_s": round(longest_s, 1),
        "seconds": round(time.monotonic() - started),
    }


def _wait_for(scenario: Scenario, pid: int, folder: Path, kills: int, moments: random.Random) -> bool:
    """Wait until a kill is due, and a random time longer. Return whether the process still runs then."""
    while not scenario.due(folder, kills):
        if has_ended(pid) is not None:
            return False
        time.sleep(0.004)
    until = time.monotonic() + moments.uniform(0, scenario.delay_s)
    while time.monotonic() < until:
        if has_ended(pid) is not None:
            return False
        time.sleep(0.002)
    return has_ended(pid) is None


def _is_whole(scenario: Scenario, folder: Path) -> bool:
    try:
        scenario.check(folder)
    except Exception as error:
        print(f"{scenario.name}: half-written: {error}", flush=True)
        return False
    return True


def _finish(pid: int, folder: Path, command: list[str]) -> None:
    code = end_of(pid)
    if code != 0:
        printed = (folder / "log").read_text("utf-8", "replace")[-2000:]
        raise AssertionError(f"{' '.join(command)} ended with code {code}:\n{printed}")


def _has_study(folder: Path) -> bool:
    try:
        records(URL.format(folder=folder), STUDY)
    except AutopruneError:
        return False  # killed before the study was made: the search begins once more
    return True


def _study_records(folder: Path) -> list[TrialRecord]:
    return records(URL.format(folder=folder), STUDY)


def scenarios() -> Iterator[Scenario]:
    """Yield all scenarios, quick ones first."""
    yield from _trainings()
    yield from _exports()
    yield _supernet()
    for sampler in ("gp", "tpe", "evolution", "ddpg", "cmaes"):
        yield _search(f"search, {sampler}, serial", sampler, "serial", kills=12, trials=30)
    yield _rule()
    yield _search("search, random, processes", "random", "processes", kills=4, trials=24)
    yield _search("search, gp, processes", "gp", "processes", kills=3, trials=20, same=False)
    yield _search("search, evolution, processes", "evolution", "processes", kills=3, trials=20, same=False)
    yield _search("search, random, ray", "random", "ray", kills=3, trials=20)
    yield _search("search, tpe, ray", "tpe", "ray", kills=2, trials=16, same=False)


def _search(name: str, sampler: str, engine: str, *, kills: int, trials: int, same: bool = True) -> Scenario:
    """Make a search whose kills fall into different trials.

    With several workers the proposals of all samplers but "random" follow from which trials have ended, which
    no two searches share. There the trials have to be complete, each scored once and under its own seed.
    """
    options = {
        "search.study": STUDY,
        "search.sampler": sampler,
        "search.engine": engine,
        "search.trials": str(trials),
        "search.pruner": "median" if engine == "serial" else "none",
        "search.ray.address": "local",
    }
    step = max(1, (trials - 4) // kills)
    return Scenario(
        name=name,
        kills=kills,
        begin=["search", "run.toml", *_sets(options)],
        go_on=["resume", STUDY],
        due=lambda folder, done: count_trials(folder / DATABASE, *ENDED) >= 1 + step * done,
        delay_s=0.15 if engine == "serial" else 0.5,
        equal=_equal_trials if same else _whole_trials,
        check=lambda folder: _study_records(folder) if (folder / DATABASE).exists() else None,
        start=start_forked if engine == "serial" else start_real,
    )


def _rule() -> Scenario:
    """Make a search that is killed twice in one trial, which alone then counts as failed."""
    options = {"search.study": STUDY, "search.sampler": "random", "search.trials": "8"}
    return Scenario(
        name="search, the same trial twice",
        kills=2,
        begin=["search", "run.toml", *_sets(options)],
        go_on=["resume", STUDY],
        due=_while_running(3),
        delay_s=0.0,
        equal=_equal_but_the_deadly,
        check=_study_records,
    )


def _while_running(number: int) -> Moment:
    """Return the moment when a process has begun with a trial that the one before it died of."""
    leases: list[str] = []

    def due(folder: Path, kills: int) -> bool:
        lease = lease_of(folder / DATABASE, number)
        if lease is None or lease in leases[:kills]:
            return False
        leases[kills:] = [lease]
        return True

    return due


def _trainings() -> Iterator[Scenario]:
    """Make trainings that are killed as they start, in every epoch, and as they save."""
    yield Scenario(
        name="train",
        kills=12,
        begin=["train", "run.toml", *_sets({"model.checkpoint": "new.safetensors", "train.epochs": "12"})],
        due=_after_write("new.training"),
        delay_s=0.4,
        equal=lambda whole, killed: _equal_files(whole, killed, ["new.safetensors"]),
        check=lambda folder: _loads(folder / "new.safetensors"),
    )
    yield Scenario(
        name="finetune",
        kills=12,
        begin=["finetune", STUDY, *_sets({"finetune.epochs": "12"})],
        due=_after_write(f"runs/{STUDY}/finetune-*.training"),
        delay_s=0.4,
        equal=lambda whole, killed: _equal_files(whole, killed, [f"runs/{STUDY}/best/model.safetensors"]),
        check=lambda folder: _loads_pruned(folder / f"runs/{STUDY}/best"),
        material=(["train", "run.toml"], ["search", "run.toml", *_sets({"search.study": STUDY})]),
    )


def _exports() -> Iterator[Scenario]:
    """Make exports over an existing file. Each is killed at any moment from its start to its end."""
    tuned = (
        ["train", "run.toml"],
        ["search", "run.toml", *_sets({"search.study": STUDY})],
        ["finetune", STUDY],
        ["export", STUDY, "--format", "onnx", "-o", "small.onnx"],
        ["export", STUDY, "--format", "safetensors", "-o", "small"],
    )
    for kind, output, file in (
        ("onnx", "small.onnx", "small.onnx"),
        ("safetensors", "small", "small/recipe.json"),
    ):
        yield Scenario(
            name=f"export, {kind}",
            kills=8,
            begin=["export", STUDY, "--format", kind, "-o", output],
            due=lambda folder, done: True,
            delay_s={"onnx": 2.0, "safetensors": 0.3}[kind],
            equal=lambda whole, killed, file=file: _equal_files(whole, killed, [file]),  # type: ignore[misc]
            check={"onnx": lambda folder: _loads_onnx(folder / "small.onnx")}.get(
                kind, lambda folder: _loads_pruned(folder / "small")
            ),
            material=tuned,
        )


def _supernet() -> Scenario:
    """Make a search that is killed while its supernet trains, and a few times more in its trials."""
    options = {
        "search.study": STUDY,
        "score.rungs": "['supernet']",
        "score.supernet.epochs": "12",
        "search.trials": "6",
        "output.folder": "out",
    }
    return Scenario(
        name="supernet",
        kills=10,
        begin=["search", "run.toml", *_sets(options)],
        go_on=["resume", STUDY],
        due=_after_write("out/supernet-*.training"),
        delay_s=0.4,
        equal=_equal_supernets,
        check=lambda folder: _study_records(folder) if _has_study(folder) else None,
    )


def _sets(options: Mapping[str, str]) -> list[str]:
    return [word for key, value in options.items() for word in ("--set", f"{key}={value}")]


def _after_write(pattern: str) -> Moment:
    """Return the moment after a file was written since the last kill. Every fourth kill waits for no file."""
    seen: dict[int, object] = {}

    def due(folder: Path, kills: int) -> bool:
        now = [(path.name, path.stat().st_mtime_ns) for path in folder.glob(pattern)]
        before = seen.setdefault(kills, now)
        return now != before or kills % 4 == 0

    return due


def _equal_trials(whole: Path, killed: Path) -> tuple[int, int]:
    """Compare all trials, bit for bit but for seconds."""
    expected, got = ([content(each) for each in _study_records(folder)] for folder in (whole, killed))
    return sum(a == b for a, b in zip(expected, got, strict=False)), max(len(expected), len(got))


def _whole_trials(whole: Path, killed: Path) -> tuple[int, int]:
    """Count trials that are as they should be: complete, with a score of each rung, under their own seed."""
    expected, got = _study_records(whole), _study_records(killed)
    rungs = {len(each.scores) for each in expected}
    good = [
        each.state == "complete" and each.seed == other.seed and len(each.scores) in rungs
        for each, other in zip(got, expected, strict=False)
    ]
    return sum(good), max(len(expected), len(got))


def _equal_but_the_deadly(whole: Path, killed: Path) -> tuple[int, int]:
    """Compare all trials but number 3, which has to have failed with the number of deaths as the reason."""
    expected, got = _study_records(whole), _study_records(killed)
    failed = got[3].state == "failed" and "2 times" in str(got[3].failure)
    same = sum(content(a) == content(b) for a, b in zip(expected, got, strict=False) if a.number != 3)
    return same + failed, max(len(expected), len(got))


def _equal_files(whole: Path, killed: Path, names: list[str]) -> tuple[int, int]:
    pairs = [(_hash(whole / name), _hash(killed / name)) for name in names]
    return sum(a == b for a, b in pairs), len(pairs)


def _equal_supernets(whole: Path, killed: Path) -> tuple[int, int]:
    (file,) = (path.relative_to(whole) for path in whole.glob("out/supernet-*.safetensors"))
    equal, trials = _equal_trials(whole, killed)
    return equal + _equal_files(whole, killed, [str(file)])[0], trials + 1


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _loads(path: Path) -> None:
    if path.exists():
        load_checkpoint(make_model("digits_resnet", 10, 1), path)


def _loads_pruned(folder: Path) -> None:
    if (folder / "recipe.json").exists():
        read_recipe(folder)
        load_pruned(folder, lambda: make_model("digits_resnet", 10, 1))


def _loads_onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


if __name__ == "__main__":
    main()
