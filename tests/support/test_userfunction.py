"""Functions named as "package.module:function"."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autoprune.errors import ConfigError
from autoprune.support.userfunction import Imports, importing, load_function, look_up


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
        ("userfunction_absent.py:make", 'Write "userfunction_absent", without ".py"'),
        ("userfunction_bad:mak", 'has no "mak".* Did you mean "make"?'),
        ("userfunction_bad:NUMBER", "is an int, expected a function"),
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


class UntextualError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def make(:\n", "SyntaxError"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("raise BaseException('of no kind')\n", "BaseException: of no kind"),
        ("raise GeneratorExit\n", "GeneratorExit"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one two"),
        (
            "from tests.support.test_userfunction import UntextualError\nraise UntextualError\n",
            "UntextualError",
        ),
        ("def __getattr__(name): raise RuntimeError('lazy')\n", 'has no "make": RuntimeError: lazy'),
    ],
)
def test_whatever_happens_at_import_is_one_line(in_folder: Path, source: str, message: str) -> None:
    name = f"userfunction_{abs(hash(source))}"
    (in_folder / f"{name}.py").write_text(source)
    with pytest.raises(ConfigError, match=message) as caught:
        load_function(f"{name}:make", "model.factory")
    assert "\n" not in str(caught.value)


def test_ctrl_c_during_an_import_passes(in_folder: Path) -> None:
    (in_folder / "userfunction_slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_function("userfunction_slow:make", "model.factory")


@pytest.mark.parametrize(
    "reference",
    ["os:", ":make", "a:b:c", ".os:path", "os..path:join", "os:path..join", "os:a b", "o\x00s:path",
     "os:pa\x1b[2Jth", "os\n:path", "x" * 5000 + ":make", "os:" + "a." * 3000 + "a"],
)  # fmt: skip
def test_what_is_no_reference_is_quoted_in_one_short_line(reference: str) -> None:
    with pytest.raises(ConfigError, match=r"names no function\. Write it as") as caught:
        load_function(reference, "model.factory")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_another_folder_takes_the_place_of_the_current_one(in_folder: Path) -> None:
    (in_folder / "home").mkdir()
    (in_folder / "home" / "userfunction_home.py").write_text("def make():\n    return 'home'\n")
    (in_folder / "userfunction_home.py").write_text("def make():\n    return 'here'\n")
    with importing(Imports(str(in_folder / "home"))):
        assert load_function("userfunction_home:make", "model.factory")() == "home"


@pytest.mark.parametrize("entry", ["", ".", "{0}"])
def test_the_barred_folder_is_no_import_path(
    in_folder: Path, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_folder / "userfunction_barred.py").write_text("raise AssertionError('it ran')\n")
    path = [entry.format(in_folder), *sys.path]
    monkeypatch.setattr("sys.path", path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with (
        importing(Imports(None, barred=str(in_folder))),
        pytest.raises(
            ConfigError, match=r"among the installed packages .*the current folder is not searched"
        ),
    ):
        load_function("userfunction_barred:make", "model.factory")
    assert sys.path == path


def test_the_barred_folder_counts_if_pythonpath_names_it(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_folder / "userfunction_named.py").write_text("def make():\n    return 1\n")
    monkeypatch.setattr("sys.path", [str(in_folder), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(in_folder))
    with importing(Imports(None, barred=str(in_folder))):
        assert load_function("userfunction_named:make", "model.factory")() == 1
