"""Training of rebuilt models: a smaller model trains as any model of a user's own does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from autoprune.criteria import make_plan
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from autoprune.zoo import make_model
from tests.models import Residual, image


@pytest.fixture
def small() -> nn.Module:
    """A rebuilt ResNet-20 at half its widths, in train mode."""
    torch.manual_seed(0)
    prunable = trace(make_model("resnet20", classes=10), torch.zeros(1, 3, 16, 16))
    return rebuild(prunable, make_plan(prunable, 0.5)).train()


def batch() -> tuple[Tensor, Tensor]:
    """Return inputs [8, 3, 16, 16] and targets [8]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Take one optimizer step on the batch; returns the loss before it."""
    inputs, targets = batch()
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives no hints
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_steps_lower_the_loss(small: nn.Module, make: type[torch.optim.Optimizer]) -> None:
    optimizer = make(small.parameters(), lr=0.01)  # type: ignore[call-arg]  # every optimizer has a rate
    losses = [step(small, optimizer) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_deep_copy_is_another_model_that_computes_the_same(small: nn.Module) -> None:
    twin = copy.deepcopy(small)
    inputs, _ = batch()
    assert torch.equal(twin.eval()(inputs), small.eval()(inputs))
    step(twin.train(), torch.optim.SGD(twin.parameters(), lr=0.1))
    assert not torch.equal(next(twin.parameters()), next(small.parameters()))


def test_a_state_dict_goes_out_and_in(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "small.pt")
    other = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(other.eval()(batch()[0]), small.eval()(batch()[0]))


@pytest.mark.slow
def test_a_compiled_model_computes_and_trains_the_same() -> None:
    prunable = trace(Residual(), image())
    small = rebuild(prunable, make_plan(prunable, 0.5)).train()
    plain = copy.deepcopy(small)
    compiled = torch.compile(small)
    for _ in range(2):
        for run, owner in ((compiled, small), (plain, plain)):
            owner.zero_grad()
            run(torch.ones(4, 3, 8, 8)).square().mean().backward()
            torch.optim.SGD(owner.parameters(), lr=0.01).step()
    for mine, theirs in zip(small.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_two_processes_train_one_model(small: nn.Module, tmp_path: Path) -> None:
    spawn(_train_with_others, (small, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]  # no hints
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], tensor) for name, tensor in small.named_parameters())


def _train_with_others(rank: int, small: nn.Module, folder: Path) -> None:
    """Take two steps on this process's half of the batch, and leave the weights for comparison."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    small = copy.deepcopy(small)  # what comes from another process lies in memory that all share
    model = DistributedDataParallel(small)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs, targets = (part.chunk(2)[rank] for part in batch())
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]  # no hints
        optimizer.step()
    parameters = {name: value.detach() for name, value in small.named_parameters()}
    torch.save(parameters, folder / f"{rank}.pt")
    distributed.destroy_process_group()
