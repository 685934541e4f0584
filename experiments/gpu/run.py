"""What a GPU gives: one prepared script of at most 8 minutes on one card.

    python -m experiments.gpu.run [--minutes 8] [--device cuda] [--tiny] [--steps repair training]

Each step is a process of its own with its share of the time, and leaves the rest of it to the steps after it.
It writes rows to its table as they come. A step that fails or runs out of its time is recorded in steps.csv
with the reason, and the next one goes on. `--device cpu --tiny` shows in a minute that everything runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.common import append_row

HERE = Path(__file__).parent
STEPS: Mapping[str, float] = {
    "marked": 0.15,
    "repair": 0.17,
    "training": 0.2,
    "latency": 0.18,
    "trials": 0.15,
    "search": 0.15,
}
"""{step: its share of the time}, in their order."""

TABLES: Mapping[str, Sequence[str]] = {
    "marked": ("marked.csv", "marked.xml"),
    "latency": ("latency.csv", "graphs.csv"),
    "search": ("search.csv", "search.json"),
}
"""{step: its files}, for those with others than the table of its name."""

LEAST_S = 5.0
"""A step that has less than this is not begun."""


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny nets, to show that the script runs")
    parser.add_argument("--output", type=Path, help="folder of the tables")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args(given)
    output = options.output or (Path("runs/gpu") if options.tiny else HERE)
    output.mkdir(parents=True, exist_ok=True)
    (output / "environment.json").write_text(
        json.dumps(environment(options.device), indent=1) + "\n", "utf-8"
    )
    (output / "steps.csv").unlink(missing_ok=True)
    began, total = time.monotonic(), sum(STEPS[step] for step in options.steps)
    share = 0.0
    for step in options.steps:
        share += STEPS[step] / total
        for name in TABLES.get(step, (f"{step}.csv",)):
            (output / name).unlink(missing_ok=True)
        seconds = began + share * 60 * options.minutes - time.monotonic()
        command = [sys.executable, "-m", f"experiments.gpu.{step}", "--device", options.device]
        command += ["--output", str(output), *(["--tiny"] if options.tiny else [])]
        append_row(output / "steps.csv", {"step": step, **run_step(command, output / f"{step}.log", seconds)})


def run_step(command: Sequence[str], log: Path, seconds: float) -> dict[str, object]:
    """Run a step for so many seconds at most, and return its outcome.

    Args:
        command: the command without its time.
        log: the file for all that it prints.
        seconds: its time. All processes of the step are killed after it.
    """
    if seconds < LEAST_S:
        return {
            "outcome": "not begun",
            "seconds": 0.0,
            "limit_s": round(seconds),
            "reason": "no time was left",
        }
    started = time.monotonic()
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [*command, "--seconds", str(seconds - 2)],
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its workers are killed with it
        )
        outcome, reason = "done", ""
        try:
            code = process.wait(seconds)
            if code:
                outcome, reason = "failed", f"exit code {code}: {last_line(log)}"
        except subprocess.TimeoutExpired:
            outcome, reason = "out of time", f"after {seconds:.0f} s: {last_line(log)}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    spent = round(time.monotonic() - started, 1)
    return {"outcome": outcome, "seconds": spent, "limit_s": round(seconds), "reason": reason}


def last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"


def environment(device: str) -> dict[str, object]:
    """Return the facts about the machine that the figures depend on."""
    import torch

    from autoprune.latency import LatencySetting, device_fingerprint

    found: dict[str, object] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": device,
    }
    with contextlib.suppress(Exception):  # the steps report a device that cannot be used
        found |= device_fingerprint(LatencySetting(device=device)).facts
        if device.startswith("cuda"):
            found["memory_mib"] = torch.cuda.get_device_properties(device).total_memory >> 20
    return found


if __name__ == "__main__":
    main()
