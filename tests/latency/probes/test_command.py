"""Commands that time an ONNX file; a real one, which runs onnxruntime, is among the probes in test_probes."""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting
from autoprune.latency.probes import command
from autoprune.latency.probes.command import user_command
from tests.clocks import StandingClock

IMAGES = torch.zeros(1, 3, 8, 8)


def script(body: str) -> LatencySetting:
    return LatencySetting("command", command=f'{sys.executable} -c "{body}" {{onnx}}')


def test_the_last_line_counts_and_the_file_is_there_once_a_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = (
        f"import os, sys; print(os.path.getsize(sys.argv[1]), file=open('{log}', 'a')); print(1); print(2.5)"
    )
    with user_command(nn.Conv2d(3, 4, 3), IMAGES, script(body)) as timed:
        assert [timed(), timed()] == [2.5, 2.5]
    sizes = log.read_text().split()
    assert len(sizes) == 2
    assert int(sizes[0]) > 3 * 4 * 9 * 4  # the weights are in the file


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit('no phone')", r"failed with code 1: no phone"),
        ("print('fast')", r"printed 'fast', expected the milliseconds of one forward pass"),
        ("", r"printed 'nothing', expected the milliseconds"),
        ("print(-1)", r"printed '-1', expected the milliseconds"),
        ("print('nan')", r"printed 'nan', expected the milliseconds"),
    ],
)
def test_a_command_that_gives_no_milliseconds(body: str, message: str) -> None:
    with (
        user_command(nn.Conv2d(3, 4, 3), IMAGES, script(body)) as timed,
        pytest.raises(LatencyError, match=rf"latency\.command: `.*` {message}"),
    ):
        timed()


ENDINGS = {
    "hangs": (
        "sleep 300; echo 1",
        r"did not end within 0\.5 s \(latency\.command_seconds\)\. Run the command by hand",
    ),
    "hangs reading": ("cat /dev/tty0 /dev/stdin; sleep 300", "did not end within"),
    "prints without end": ("cat /dev/zero", "printed more than 1 MB. Run the command by hand"),
    "complains without end": ("cat /dev/zero >&2", "printed more than 1 MB. Run the command by hand"),
    "fails": ("exit 3", "failed with code 3"),
    "is killed": ("kill -9 $$", "failed with code -9"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_command_ends_all_that_it_started_ends_with_it(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MOST_OUTPUT", 2**20)
    script, message = ENDINGS[ending]
    most_seconds = 0.5 if ending.startswith("hangs") else 1000.0
    if ending.startswith("hangs"):
        clock = StandingClock(lambda: holds_a_line(tmp_path / "pid"))
        monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    line = f"(sleep 301 & echo $! > {tmp_path}/pid; ls {{onnx}}; {script})"
    if ending == "is killed":
        line = f"sleep 301 & echo $! > {tmp_path}/pid; ls {{onnx}}; {script}"
    setting = LatencySetting("command", command=line, command_seconds=most_seconds)
    with (
        user_command(nn.Conv2d(3, 4, 3), IMAGES, setting) as timed,
        pytest.raises(LatencyError, match=message),
    ):
        timed()
    assert ends(int((tmp_path / "pid").read_text()))


def test_a_command_that_leaves_something_running_is_read_and_ends_it(tmp_path: Path) -> None:
    note = f"echo $! >> {tmp_path}/pids"
    line = f"ls {{onnx}}; setsid sleep 303 & {note}; sleep 302 & {note}; sleep 0.1; echo 2.5"
    with user_command(nn.Conv2d(3, 4, 3), IMAGES, LatencySetting("command", command=line)) as timed:
        assert timed() == 2.5
    left_session, in_session = map(int, (tmp_path / "pids").read_text().split())
    assert ends(in_session)
    assert ends(left_session)


def test_a_long_output_is_not_kept(tmp_path: Path) -> None:
    line = "ls {onnx}; head -c 3000000 /dev/zero | tr '\\0' 'a'; echo; echo 2.5"
    with user_command(nn.Conv2d(3, 4, 3), IMAGES, LatencySetting("command", command=line)) as timed:
        tracemalloc.start()
        assert timed() == 2.5
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()


def holds_a_line(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def ends(pid: int) -> bool:
    """Return whether a process ends soon. One that nobody waits for stays as a zombie."""
    for _ in range(5000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
