"""Claim: no input, however damaged or hostile, gets more than one clear line out of autoprune.

    python -m experiments.faults.fuzz [--only CLASS] [--jobs 2] [--details FILE]

Every case of `cases/` runs in a forked child in a folder of its own. Writes results.csv (a row for each class
and verb) and the table in README.md, unless only some cases ran, and prints the cases that ended otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.common import markdown_table, write_measured
from experiments.faults.cases import Case, load_cases
from experiments.faults.verdict import FAULTS, counts, judge, total, unexpected_changes

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"

STALE = "stale"
"""Stands in place of the faults of a case that cannot be prepared."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "140", "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    options = _options()
    cases = [case for case in load_cases() if any(word in case.id for word in options.only or [""])]
    cases = cases[:: options.every]
    prepare_environment("experiments.faults.fuzz")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["HOME"] = folder
        started = time.monotonic()
        outcomes = run(cases, Path(folder), options.jobs, options.seconds, options.keep)
    wrong = [each for each in outcomes if each["faults"]]
    for each in wrong:
        print(f"{each['case'].id!a}\n  {', '.join(each['faults'])}: {each['told']!a}")
    if options.details:
        lines = [json.dumps({**each, "case": asdict(each["case"])}) for each in wrong]
        options.details.write_text("\n".join([*lines, ""]), "utf-8")
    if any(STALE in each["faults"] for each in wrong):
        raise SystemExit("Some cases cannot be prepared any more; bring them up to date.")
    rows = counts((each["case"], each["faults"]) for each in outcomes)
    tally = ", ".join(f"{name} {total(rows, name)}" for name in ("tried", *FAULTS, "excepted"))
    print(f"{tally}; {time.monotonic() - started:.0f} s")
    if not options.only and options.every == 1:
        _write_results(rows)
    sys.exit(1 if any(not each["case"].exception for each in wrong) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], help="run only cases with one of these words in the name"
    )
    parser.add_argument("--every", type=int, default=1, help="run only every N-th case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="after which a case counts as hung")
    parser.add_argument("--keep", type=Path, help="file of outcomes. Cases in it are not run again")
    parser.add_argument("--details", type=Path, help="receives the cases that ended otherwise, as JSON lines")
    return parser.parse_args()


def prepare_environment(module: str) -> None:
    """Start again with the variables that are read as modules are imported."""
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        os.environ |= ENVIRONMENT
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def run(
    cases: Sequence[Case], root: Path, jobs: int, seconds: float, keep: Path | None = None
) -> list[dict[str, Any]]:
    """Run cases, shared among workers, and return them with their faults, in order.

    Args:
        cases: to run.
        root: a new folder.
        jobs: how many workers.
        seconds: after which a case counts as hung.
        keep: the file that stores each outcome at once. Cases in it are not run again.
    """
    outcomes = root / "outcomes" if keep is None else keep.absolute()
    known = _read(outcomes)
    left = [case for case in cases if case.id not in known]
    # In four rounds over all classes: a run that is stopped has met each of them.
    left = [case for start in range(4) for case in left[start::4]]
    preload(root)
    gc.collect()
    gc.freeze()
    pids = []
    for worker in range(jobs):
        pid = os.fork()
        if pid == 0:
            _work(root / str(worker), left[worker::jobs], seconds, outcomes)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise SystemExit(f"workers ended with {codes}")
    told = _read(outcomes)
    return [{"case": case, **told[case.id]} for case in cases]


def _read(outcomes: Path) -> dict[str, Any]:
    """Return the outcomes of cases, by id."""
    if not outcomes.exists():
        return {}
    lines = outcomes.read_text("utf-8").splitlines()
    return {each["id"]: each for each in map(json.loads, lines)}


def preload(root: Path) -> None:
    """Load whatever the commands import, so that their forked children need not."""
    import matplotlib.pyplot
    import onnx
    import onnxruntime  # type: ignore[import-untyped]  # ships no types
    import optuna
    import sklearn.datasets  # type: ignore[import-untyped]  # ships no types

    import autoprune.cli.commands
    from autoprune import run
    from autoprune.config import load_config

    _ = matplotlib.pyplot, onnx, onnxruntime, optuna, sklearn.datasets, autoprune.cli.commands
    with contextlib.chdir(root):
        run.inspect(load_config("digits"))


def command_in_child(words: list[str], folder: Path) -> None:
    """Run a command of the material, or code, in a forked child.

    Raises:
        RuntimeError: it failed.
    """
    from experiments.faults.child import run_command

    code, printed = run_command(words, folder)
    if code != 0:
        raise RuntimeError(f"{shlex.join(words)} ended with code {code}:\n{printed}")


def _work(root: Path, cases: Sequence[Case], seconds: float, outcomes: Path) -> None:
    """Make the material, run cases one after the other, and leave."""
    from experiments.faults.child import Limits, run_case
    from experiments.faults.material import Material
    from experiments.killing import adopt_orphans

    code = 1
    try:
        adopt_orphans()
        root.mkdir()
        os.environ["HOME"] = str(root)
        material = Material.make(root, command_in_child)
        limits = Limits(seconds=seconds)
        with outcomes.open("a", encoding="utf-8") as file:
            for case in cases:
                try:
                    outcome = run_case(case, material.fresh(), limits)
                except ValueError as error:
                    file.write(json.dumps({"id": case.id, "faults": [STALE], "told": str(error)}) + "\n")
                    continue
                faults = judge(case, outcome, limits)
                told = {
                    "code": outcome.code,
                    "errors": outcome.errors[-3000:],
                    "output": outcome.output[-1000:],
                    "changed": unexpected_changes(case, outcome),
                    "memory_mib": round(outcome.memory_mib),
                    "seconds": round(outcome.seconds, 2),
                    "left": outcome.left,
                }
                file.write(json.dumps({"id": case.id, "faults": faults, "told": told}) + "\n")
                file.flush()
        code = 0
    except BaseException as error:
        print(error, file=sys.stderr)
    finally:
        os._exit(code)


def _write_results(rows: list[dict[str, object]]) -> None:
    """Write all rows as they are, and a table of one row for each class into the README."""
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = ("tried", *FAULTS, "excepted")
    classes = dict.fromkeys(str(row["class"]) for row in rows)
    lines = {kind: [row for row in rows if row["class"] == kind] for kind in classes} | {"all": rows}
    table = [[kind, *(f"{total(each, name):,}" for name in columns)] for kind, each in lines.items()]
    head = ["class", *(name.replace("_", " ") for name in columns)]
    write_measured(HERE / "README.md", markdown_table(head, table))


if __name__ == "__main__":
    main()
