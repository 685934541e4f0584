"""Calls of the user's code, and the arguments that scripts give to public functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import (
    AutopruneError,
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    PlanError,
    TraceError,
    VerificationError,
)
from autoprune.graph import Plan, Prunable
from autoprune.support.usercode import call_user, call_with_offered, entry, guarded
from tests import misbehaving
from tests.misbehaving import ANYWHERE, MODELS, leaves, net, parts, talks_long

IMAGE = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize("raised", [SystemExit(0), GeneratorExit(), asyncio.CancelledError(), OSError()])
def test_whatever_a_block_raises_is_one_error(raised: BaseException) -> None:
    with pytest.raises(DataError, match=rf"^m:f failed: {type(raised).__name__}.*\. Try again$") as caught:  # noqa: SIM117
        with guarded("m:f failed", DataError, advice="Try again"):
            raise raised
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), ConfigError("ours")])
def test_ctrl_c_and_errors_of_ours_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, guarded("m:f failed", DataError):
        raise raised
    assert caught.value is raised


def test_want_of_memory_passes_if_it_may() -> None:
    with pytest.raises(MemoryError), guarded("m:f", DataError, memory_passes=True):
        raise MemoryError
    with pytest.raises(DataError, match="m:f: MemoryError"), guarded("m:f", DataError):
        raise MemoryError
    # One that the command line would not know for want of memory is no exception from the rule.
    with pytest.raises(DataError, match="out of memory"), guarded("m:f", DataError, memory_passes=True):
        raise ValueError("out of memory")


def takes_all(a: int, /, b: int, *, c: int, d: int = 4) -> tuple[int, ...]:
    return a, b, c, d


def test_parameters_get_what_is_offered_by_position_or_name() -> None:
    offered = {"a": 1, "b": 2, "c": 3, "e": 5}
    assert call_with_offered(takes_all, "m:f", ConfigError, offered) == (1, 2, 3, 4)
    assert call_with_offered(dict, "m:f", ConfigError, offered) == {}, "a builtin may not say what it takes"


def test_long_texts_are_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        call_user(talks_long, "m:f", ConfigError)
    assert len(str(caught.value)) < 600
    assert str(caught.value).endswith("...")
    with (
        pytest.raises(ConfigError, match=r"[^.]\.\.\. Try again$"),
        guarded("m:f", ConfigError, advice="Try again"),
    ):
        talks_long()
    with (
        pytest.raises(ConfigError, match=r"too small\. Try again$"),
        guarded("m:f", ConfigError, advice="Try again"),
    ):
        raise ValueError("too small.")


def test_a_public_function_contains_what_ends_the_process_but_no_fault_of_its_own() -> None:
    with pytest.raises(PlanError, match=r"^leaves: code of .* raised SystemExit: 0"):
        entry(PlanError)(leaves)()
    with pytest.raises(ValueError, match="line"):
        entry(PlanError)(talks_long)()


@pytest.fixture(scope="module")
def traced() -> tuple[Prunable, Plan, nn.Module]:
    prunable = autoprune.trace(net(), IMAGE)
    plan = autoprune.make_plan(prunable, 0.5)
    return prunable, plan, autoprune.rebuild(prunable, plan)


WRONG: dict[str, tuple[Callable[..., Any], type[AutopruneError], str]] = {
    "trace": (
        lambda *_: autoprune.trace(nn.Linear, IMAGE),  # type: ignore[arg-type]
        TraceError,
        "trace: model: got a type, expected a torch.nn.Module. Call the class.",
    ),
    "trace frozen": (
        lambda *_: autoprune.trace(net(), IMAGE, frozen=3),  # type: ignore[arg-type]
        TraceError,
        "trace: frozen: got 3, expected an iterable.",
    ),
    "search": (
        lambda *_: autoprune.search("resnet20", parts(), {}),  # type: ignore[arg-type]
        ConfigError,
        "search: model: got 'resnet20', expected a torch.nn.Module or None.",
    ),
    "resume": (
        lambda *_: autoprune.resume(3),  # type: ignore[arg-type]
        ConfigError,
        "resume: study: got 3, expected a text or the result of a search.",
    ),
    "finetune": (
        lambda *_: autoprune.finetune("own", trial="best"),  # type: ignore[arg-type]
        ConfigError,
        "finetune: trial: got 'best', expected an integer or None.",
    ),
    "make_plan": (
        lambda *_: autoprune.make_plan(net(), 0.5),  # type: ignore[arg-type]
        PlanError,
        "make_plan: prunable: got a Sequential, expected the result of autoprune.trace.",
    ),
    "make_plan ratio": (
        lambda prunable, *_: autoprune.make_plan(prunable, net()),  # type: ignore[arg-type]
        PlanError,
        "Keep ratio: got Sequential(",
    ),
    "cost": (
        lambda prunable, *_: prunable.cost(0.5),
        PlanError,
        "widths: got 0.5, expected {group name: width} or an integer array.",
    ),
    "rebuild": (
        lambda prunable, *_: autoprune.rebuild(prunable, {"0": [1]}),  # type: ignore[arg-type]
        PlanError,
        "rebuild: plan: got a dict, expected the result of autoprune.make_plan.",
    ),
    "verify": (
        lambda prunable, plan, _: autoprune.verify(prunable, plan, None),  # type: ignore[arg-type]
        VerificationError,
        "verify: small: got None, expected a torch.nn.Module.",
    ),
    "save_pruned": (
        lambda _, plan, small: autoprune.save_pruned(small, plan, 3),  # type: ignore[arg-type]
        ExportError,
        "save_pruned: folder: got 3, expected a text or a path.",
    ),
    "export": (
        lambda *_: autoprune.export(lambda x: x, "small.onnx"),  # type: ignore[arg-type]
        ExportError,
        "export: target: got a function, expected a torch.nn.Module or a text or a path or",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_of_a_wrong_kind_are_named(traced: tuple[Prunable, Plan, nn.Module], name: str) -> None:
    call, kind, said = WRONG[name]
    with pytest.raises(kind) as caught:
        call(*traced)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*ANYWHERE, "lazy"])
def test_a_make_model_that_misbehaves_is_one_line(
    traced: tuple[Prunable, Plan, nn.Module], tmp_path: Path, name: str
) -> None:
    _, plan, small = traced
    autoprune.save_pruned(small, plan, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        autoprune.load_pruned(tmp_path, vars(misbehaving)[name])
    assert "make_model" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["leaves_in_forward", "with_a_hook_that_leaves", "on_meta", "only_trains"])
def test_models_that_misbehave_are_not_exported(tmp_path: Path, name: str) -> None:
    assert name in MODELS
    with pytest.raises(ExportError) as caught:
        autoprune.export(vars(misbehaving)[name](), tmp_path / "small.pt2", "pt2", IMAGE)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["leaves_in_forward", "cannot_be_copied"])
def test_models_that_misbehave_are_not_traced(name: str) -> None:
    with pytest.raises(TraceError, match="SystemExit: 0"):
        autoprune.trace(vars(misbehaving)[name](), IMAGE)
