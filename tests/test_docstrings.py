"""The docstrings of public functions are complete, and their examples run."""

from __future__ import annotations

import ast
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


def is_open(argument: ast.expr) -> bool:
    """Return whether an argument stands for others: `*pair`, or an ellipsis."""
    return isinstance(argument, ast.Starred) or ast.unparse(argument) == "..."


def wrong_calls(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Yield the calls of autoprune's functions and classes in a module that their signatures do not allow."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = vars(module).get(call.func.id) if isinstance(call.func, ast.Name) else None
        is_ours = str(getattr(function, "__module__", "")).startswith("autoprune.")
        if not is_ours or not callable(function) or any(map(is_open, call.args)):
            continue
        try:
            inspect.signature(function).bind(*call.args, **{each.arg or "": None for each in call.keywords})
        except TypeError as error:
            yield f"{module.__name__}: {ast.unparse(call)}: {error}"


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
