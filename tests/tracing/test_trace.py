"""Tracing: each tricky net shows its groups, and the model is left as it was."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.graph.context import OpContext, Value
from autoprune.graph.rules import LAYER_RULES
from autoprune.tracing import trace
from autoprune.zoo import make_model
from tests import kept_traces
from tests.models import CASES, Residual, image


@pytest.mark.parametrize("name", CASES)
def test_shows_the_groups_it_must(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    assert {group.name: group.width for group in prunable.groups if group.frozen is None} == case.free


@pytest.mark.parametrize("name", CASES)
def test_frozen_groups_say_why(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    usual = (
        "the model's input",
        "the model's output",
        "the output of",
        "holds no channels",
        "frozen",
        "no rule",
    )
    for group in prunable.groups:
        if group.frozen is not None:
            assert any(part in group.frozen for part in (*usual, case.frozen.get(group.name, "!")))
    assert set(case.frozen) <= {group.name for group in prunable.groups if group.frozen}


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_and_random_states_alone(training: bool) -> None:
    model = Residual().train(training)
    model.stem.eval()
    model.stem.weight.requires_grad_(False)
    handle = model.head.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    trace(model, image())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training is training
    assert model.stem.training is False
    assert model.bn.training is training
    assert model.stem.weight.requires_grad is False
    assert handle.id in model.head._forward_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_trace_that_tests_share_is_that_of_the_model_itself() -> None:
    first, second = (make_model("digits_resnet", 10, 1) for _ in range(2))
    images = torch.zeros(1, 1, 8, 8)
    kept_traces.trace(first, images)
    shared, own = kept_traces.trace(second, images), trace(second, images)
    assert shared.model is second
    assert shared.fingerprint == own.fingerprint
    assert [(group.name, group.frozen) for group in shared.groups] == [
        (group.name, group.frozen) for group in own.groups
    ]
    assert [block.name for block in shared.blocks] == [block.name for block in own.blocks]
    widths = {group.name: 5 for group in own.searchable}
    assert shared.cost(widths).known() == own.cost(widths).known()


def test_what_a_trace_depends_on_tells_nets_apart() -> None:
    def structure(*layers: nn.Module) -> object:
        return kept_traces.structure_of(nn.Sequential(*layers), image())

    conv = structure(nn.Conv2d(3, 4, 3))
    assert conv == structure(nn.Conv2d(3, 4, 3)) != structure(nn.Conv2d(3, 4, 3, stride=2))
    assert conv != structure(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert structure(Residual()) is None, "of a class of the tests' own it may depend on more"
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda *_: None)
    assert structure(hooked) is None


def test_the_batch_of_the_example_does_not_matter() -> None:
    model = Residual()
    one, four = trace(model, torch.zeros(1, 3, 8, 8)), trace(model, torch.zeros(4, 3, 8, 8))
    assert one.cost() == four.cost()
    assert one.fingerprint == four.fingerprint


def test_user_freezes_a_module() -> None:
    prunable = trace(Residual(), image(), frozen=["inner1"])
    assert prunable.group("inner1").frozen == "inner1: frozen by the user"
    assert prunable.group("stem").frozen is None


class _Shared(nn.Module):
    """Two layers of one weight, which is listed under the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.second.weight = self.first.weight
        self.stem, self.act, self.head = nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.second(self.first(self.stem(x))))).mean((2, 3))  # type: ignore[no-any-return]  # nn.Module calls give Any


def test_a_frozen_module_without_a_weight_of_its_own_is_frozen_or_refused() -> None:
    prunable = trace(_Shared(), image(), frozen=["second"])
    assert "second: frozen by the user" in str([group.frozen for group in prunable.groups])
    with pytest.raises(TraceError, match=r"frozen: act is a ReLU without parameters\. Name the layer"):
        trace(_Shared(), image(), frozen=["act"])


def test_unknown_frozen_module_suggests_the_nearest() -> None:
    with pytest.raises(TraceError, match=r'iner1 is not a module of Residual\. Did you mean "inner1"'):
        trace(Residual(), image(), frozen=["iner1"])


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_untraceable_model_names_the_line_and_stays_as_it_was() -> None:
    model = _Branches().train()
    with pytest.raises(TraceError, match=r"_Branches cannot be traced at .*test_trace.py:\d+ \(if x.sum"):
        trace(model, image())
    assert model.training is True


def test_statistics_stay_if_train_mode_cannot_be_traced() -> None:
    """An average over all batches (momentum=None) reads the number of batches, which torch.export refuses."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Conv2d(4, 2, 1))
    before = copy.deepcopy(model.state_dict())
    assert trace(model, image()).groups[0].frozen is None
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_torch_export_keeps_its_pages_to_itself(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    class Notes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.conv(x)
            return self.head(self.last)  # type: ignore[no-any-return]  # as modules do

    with pytest.raises(TraceError, match="cannot be traced"):
        trace(_Branches(), image())
    assert not logging.getLogger("torch").disabled
    assert [group.name for group in trace(Notes(), image()).searchable] == ["conv"]
    assert capfd.readouterr().err == ""
    assert [str(each.message) for each in recwarn if "tensor attribute" in str(each.message)] == []


def test_architectures_have_different_fingerprints() -> None:
    wide = Residual()
    wide.inner1, wide.outer1 = nn.Conv2d(8, 7, 1), nn.Conv2d(7, 8, 1)
    assert trace(wide, image()).fingerprint != trace(Residual(), image()).fingerprint


def test_a_rule_of_the_users_own_frees_its_channels() -> None:
    class Clips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).renorm(2, 0, 1.0))  # type: ignore[no-any-return]  # as modules do

    def clip_samples(op: OpContext) -> Value:
        return op.output(op.tensor("self").labels)

    assert trace(Clips(), image()).searchable == ()
    LAYER_RULES["renorm"] = clip_samples
    try:
        assert [group.name for group in trace(Clips(), image()).searchable] == ["conv"]
    finally:
        del LAYER_RULES["renorm"]


def test_a_cache_that_the_forward_pass_fills_is_left_empty() -> None:
    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
            self.seen: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if "scale" not in self.seen:
                self.seen["scale"] = self.conv.weight.mean()
            return self.head(self.conv(x) * self.seen["scale"])  # type: ignore[no-any-return]  # as modules do

    model = Caches().eval()
    assert [group.name for group in trace(model, image()).searchable] == ["conv"]
    assert model.seen == {}


class ReadsValues(nn.Module):
    """Skips its mask if all of it is kept, which reads a value: this fails on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and not bool(mask.all()):
            x = x * mask
        return self.head(self.norm(self.stem(x)).relu())  # type: ignore[no-any-return]  # modules return Any


def test_a_model_that_reads_values_is_checked_on_its_own_device() -> None:
    model = ReadsValues()
    before = copy.deepcopy(model.state_dict())
    prunable = trace(model, (*image(), torch.ones(1, 1, 8, 8)))
    assert {group.name: group.width for group in prunable.groups if group.frozen is None} == {"stem": 8}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_a_script_module_is_refused_in_one_line() -> None:
    with pytest.raises(TraceError, match=r"got a ScriptModule, .*\. Pass the nn.Module that it was compiled"):
        trace(torch.jit.trace(Residual().eval(), image()), image())  # type: ignore[no-untyped-call]  # torch has no hints
