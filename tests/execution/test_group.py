"""Groups of processes: what they ask of a machine, and what one process alone does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError, LostProcessError, ProcessError
from autoprune.execution import ALONE, Group, Setting, joined
from autoprune.execution._group import _packed, _reaching_all, _require_cpu
from autoprune.support.launch import Launch, launched
from autoprune.support.threads import usable_cores

PAIR = Group(rank=1, size=2, local_rank=1, local_size=2)


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)  # as some job schedulers do
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined() as group:
        assert group == ALONE
        assert group.leads
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched() == Launch(1, 2, 1, 2)
    assert not launched().leads


def test_one_process_changes_neither_loss_nor_gradients() -> None:
    model = nn.Linear(2, 1)
    loss = model(torch.ones(3, 2)).mean()
    assert ALONE.weighted(loss, 3) is loss
    torch.autograd.backward(loss)
    before = [each.grad for each in model.parameters()]
    assert ALONE.averaged(model.parameters(), loss) is loss
    assert all(each.grad is old for each, old in zip(model.parameters(), before, strict=True))
    assert ALONE.shared("settings") == "settings"
    means = torch.tensor([1.0, 2.0])
    assert ALONE.mean(means, 3) is means
    setting = Setting(device="cuda:1", threads=64)
    assert ALONE.placed(setting) is setting


def test_processes_of_a_machine_share_its_cores() -> None:
    assert PAIR.placed(Setting(threads=64)).threads == max(1, usable_cores() // 2)
    assert PAIR.placed(Setting(threads=1)) == Setting(threads=1)


def test_each_process_needs_a_gpu_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r'got "cuda:1", but torchrun gives each process a GPU'):
        PAIR.device("cuda:1")
    many = dataclasses.replace(PAIR, local_size=torch.cuda.device_count() + 2)
    with pytest.raises(ConfigError, match=rf"started {many.local_size} processes .* torch sees \d+ GPUs"):
        many.device("cuda")
    assert PAIR.device("cpu") == "cpu"


def test_errors_name_values_that_cannot_be_sent_and_a_process_that_is_gone() -> None:
    with pytest.raises(
        ProcessError, match=r"its task or their settings cannot be sent .* in one process, without torchrun"
    ):
        _packed(lambda: None)
    with pytest.raises(LostProcessError, match=r"training is gone\. Run the same"), _reaching_all():
        raise RuntimeError("[pair.cc:545] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="out of memory"), _reaching_all():
        raise RuntimeError("CUDA out of memory")


def test_a_process_group_of_gpus_alone_is_refused() -> None:
    with pytest.raises(ProcessError, match=r'backend "cuda:nccl", which reaches no CPU: begin it with torch'):
        _require_cpu("cuda:nccl")
    _require_cpu("cpu:gloo,cuda:nccl")
