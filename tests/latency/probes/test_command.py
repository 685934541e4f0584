"""Commands that time an ONNX file; a real one, which runs onnxruntime, is among the probes in test_probes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting
from autoprune.latency.probes import command
from autoprune.latency.probes.command import user_command

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


def test_a_command_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MOST_SECONDS", 0.2)
    hanging = LatencySetting("command", command="ls {onnx} && sleep 1000 && echo 1")
    started = time.monotonic()
    with (
        user_command(nn.Conv2d(3, 4, 3), IMAGES, hanging) as timed,
        pytest.raises(LatencyError, match=r"has not ended after 0 s; try it by hand"),
    ):
        timed()
    assert time.monotonic() - started < 500  # a child that lived on would hold the pipes open
