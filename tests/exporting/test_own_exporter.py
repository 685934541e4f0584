"""An exporter of the user's own, as the docstring of `autoprune.exporting` shows it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune import exporting
from autoprune.errors import ConfigError, ExportError
from autoprune.exporting import find_exporter
from tests.own_rows import install_example


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit says that it is deprecated
        yield install_example(exporting, tmp_path, monkeypatch)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_its_file_gives_the_models_outputs(module: str, model: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(5, 1, 8, 8)
    report = autoprune.export(model, "net.pt", f"{module}:script", example_inputs=images[:1])
    assert report.max_difference < 1e-5
    loaded = torch.jit.load(tmp_path / "net.pt")  # type: ignore[no-untyped-call]  # torch leaves it so
    torch.testing.assert_close(loaded(images), model(images))
    autoprune.export(model, "net.pt", f"{module}:script", example_inputs=images[:1])  # replaces its own
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"notes\.txt: exists already and is not a \.pt file"):
        autoprune.export(model, "notes.txt", f"{module}:script", example_inputs=images[:1])


BROKEN = """
def number(model, inputs, path): return 3
def fails(model, inputs, path): raise SystemExit("bye")
def wrong(model, inputs, path):
    path.touch()
    return lambda inputs: [model(*inputs) + 1]
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "cannot be exported to .number: TypeError: it gave an int, expected a function"),
        ("fails", "cannot be exported to .fails: SystemExit: bye"),
        ("wrong", "its outputs differ from the model's by 1, more than"),
    ],
)
def test_its_errors_are_one_line(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "broken_exporters.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExportError, match=message):
        autoprune.export(
            model,
            tmp_path / "net",
            f"broken_exporters:{name}",
            example_inputs=torch.zeros(1, 1, 8, 8),
        )
    assert not (tmp_path / "net").exists()
    assert find_exporter(f"broken_exporters:{name}").suffix == f".{name}"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ExportError, match=r'--format: unknown name "onx"\. Did you mean "onnx"'):
        find_exporter("onx", "--format")
    with pytest.raises(ConfigError, match='format: no module "nowhere"'):
        find_exporter("nowhere:write")
