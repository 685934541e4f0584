"""Functions named as "package.module:function"."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.errors import ConfigError
from autoprune.userfunction import load_function, look_up


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return tmp_path


def test_finds_a_function_in_the_current_folder(in_folder: Path) -> None:
    (in_folder / "userfunction_good.py").write_text("def make():\n    return 42\n")
    assert load_function("userfunction_good:make", "model.factory")() == 42


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_colon", 'model.factory: "no_colon" names no function'),
        ("userfunction_absent:make", 'no module "userfunction_absent"'),
        ("userfunction_bad:mak", 'has no "mak".* Did you mean "make"?'),
        ("userfunction_bad:NUMBER", "is a int, expected a function"),
        ("userfunction_broken:make", 'importing "userfunction_broken" failed: ZeroDivisionError'),
        ("userfunction_needs:make", 'needs "userfunction_absent", which is missing'),
    ],
)
def test_each_mistake_is_named(in_folder: Path, reference: str, message: str) -> None:
    (in_folder / "userfunction_bad.py").write_text("NUMBER = 1\ndef make(): ...\n")
    (in_folder / "userfunction_broken.py").write_text("1 / 0\n")
    (in_folder / "userfunction_needs.py").write_text("import userfunction_absent\n")
    with pytest.raises(ConfigError, match=message):
        load_function(reference, "model.factory")


def test_unknown_row_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'task.loss: unknown name "cros"\. Did you mean "cross"'):
        look_up("cros", {"cross": 1, "other": 2}, "task.loss")
