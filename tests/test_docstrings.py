"""Docstrings of public functions are complete, and examples run. All examples call existing functions."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune

FUNCTIONS = [name for name in autoprune.__all__ if inspect.isfunction(getattr(autoprune, name))]


def docs_of(name: str) -> str:
    return inspect.getdoc(getattr(autoprune, name)) or ""


def example_of(name: str) -> str:
    """Return the lines behind "Example:" at the end of a docstring."""
    return textwrap.dedent(docs_of(name).partition("Example:\n")[2])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_returns_raises_and_shows_an_example(name: str) -> None:
    text, signature = docs_of(name), inspect.signature(getattr(autoprune, name))
    needed = ["Args:", "Raises:", *([] if signature.return_annotation in ("None", None) else ["Returns:"])]
    assert [section for section in needed if f"\n{section}\n" not in text] == []
    described = re.findall(r"^    (\w+): ", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert described == list(signature.parameters)
    assert f"autoprune.{name}(" in example_of(name)


MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(autoprune.__path__, "autoprune.")
    if not name.endswith(("__main__", "ray_tune"))  # one runs a command, the other loads Ray
]


def code_in(text: str) -> Iterator[str]:
    """Yield the example in a docstring, if there is one."""
    after = inspect.cleandoc(text).partition("\nExample:\n")[2]
    block = re.match(r"(?:(?: {4}.*)?(?:\n|$))*", after)
    if block is not None and block[0].strip():
        yield textwrap.dedent(block[0]).replace(": ...", ": pass")


def is_open(call: ast.Call) -> bool:
    """Return whether an argument stands for others: `*pair`, `**options` or an ellipsis."""
    starred = any(isinstance(each, ast.Starred) or ast.unparse(each) == "..." for each in call.args)
    return starred or any(each.arg is None for each in call.keywords)


GIVEN = {"app", "make_model", "model", "scorer", "show_status"}
"""Names in examples that stand for objects of the reader."""


@functools.cache
def callables() -> dict[str, set[Any]]:
    """Return {name: functions and classes of that name in all modules}."""
    found: dict[str, set[Any]] = {}
    for name in MODULES:
        for key, value in vars(importlib.import_module(name)).items():
            if inspect.isfunction(value) or inspect.isclass(value):
                found.setdefault(key, set()).add(value)
    return found


def bound_in(tree: ast.Module) -> set[str]:
    """Return the names that an example assigns, imports, defines or takes as a parameter."""
    nodes = list(ast.walk(tree))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    aliases = [
        alias for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    ]
    defined = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    taken = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return stored | {alias.asname or alias.name for alias in aliases} | defined | taken


def allows(function: Any, call: ast.Call) -> bool:
    """Return whether the signature of a function or class takes the arguments of a call."""
    if not str(getattr(function, "__module__", "")).startswith("autoprune") or is_open(call):
        return True
    try:
        inspect.signature(function).bind(*call.args, **{str(each.arg): None for each in call.keywords})
    except TypeError:
        return False
    return True


def wrong_calls(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Yield the calls in an example of a module that no function or class of that name allows.

    A name is that of the module if it is there, or else of the whole package.
    """
    known = GIVEN | bound_in(tree) | set(vars(builtins))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Name) or call.func.id in known:
            continue
        here = vars(module).get(call.func.id)
        meant = callables().get(call.func.id, set()) if here is None else {here}
        if not any(allows(each, call) for each in meant):
            yield f"{module.__name__}: {ast.unparse(call)}"


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_a_module_is_code_that_calls_its_functions_as_they_are(name: str) -> None:
    module = importlib.import_module(name)
    own = [each for each in vars(module).values() if getattr(each, "__module__", None) == name]
    for each in (module, *own):
        for code in code_in(getattr(each, "__doc__", None) or ""):
            assert list(wrong_calls(ast.parse(code), module)) == []


def test_a_wrong_example_is_found() -> None:
    module = importlib.import_module("autoprune.reconstruction._leastsquares")
    right, wrong = ("refit(gram, cross, old, power, strength)", "refit(gram, cross, old, power, rows=8)")
    assert list(wrong_calls(ast.parse(right), module)) == []
    (found,) = wrong_calls(ast.parse(wrong), module)
    assert "rows=8" in found
    assert list(wrong_calls(ast.parse("refit(gram, cross, **options)"), module)) == []
    assert list(wrong_calls(ast.parse("measure = 1\nmeasure()\nrefits(gram)"), module)) == [
        "autoprune.reconstruction._leastsquares: refits(gram)"
    ]
    assert list(code_in("Do.\n\nExample:\n    a = 1\n    b = 2\n\nMore.")) == ["a = 1\nb = 2\n\n"]


ORDER = [
    *("trace", "make_plan", "rebuild", "verify", "recalibrate", "moments"),
    *("save_moments", "load_moments", "repair", "save_pruned", "load_pruned"),
    *("load_config", "train", "inspect", "sensitivity_curves", "error_curves"),
    *("search", "resume", "finetune", "best", "report", "prune", "export"),
]
"""The functions whose examples run, in the order of the work."""


def make_model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def shortened(name: str) -> str:
    """Return an example with fewer steps."""
    few = (
        '"search": {"study": "digits", "trials": 3}, "score": {"rungs": ["repair"]}, "race": {"entrants": 1}'
    )
    return (
        example_of(name)
        .replace('train("digits")', 'train(autoprune.load_config("digits", ["train.epochs=1"]))')
        .replace('"search": {"study": "digits"}', few)
        .replace("loaders, overrides=", "loaders, trust=True, overrides=")
    )


@pytest.mark.slow
def test_the_examples_run_in_the_order_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.randn(64, 1, 8, 8)
    data = TensorDataset(images, torch.arange(64) % 3)
    loaders = DataLoader(data, 32), DataLoader(data, 64), DataLoader(data, 64)
    names: dict[str, Any] = {"autoprune": autoprune, "torch": torch, "model": make_model(), "images": images}
    names |= {"loaders": loaders, "train_loader": loaders[0], "make_model": make_model}
    for name in ORDER:
        exec(compile(shortened(name), name, "exec"), names)
    autoprune.export(names["model"], "dense.onnx", example_inputs=images[:1])
    autoprune.export(names["tuned"], "small.onnx")
    exec(compile(shortened("bench"), "bench", "exec"), names)
    # These load the model and the data by their names.
    elsewhere = {"budget_curve", "export_int8"}
    assert {*ORDER, "bench"} | elsewhere >= set(FUNCTIONS), "an example that no test runs"
    assert names["difference"] < 1e-9
