"""The folder of a finetuned model: its files, the card, and the code that the card prints."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # the package ships no types
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.config import load_config
from autoprune.data import load
from autoprune.errors import ConfigError, ExportError
from autoprune.exporting import (
    CARD,
    INT8,
    ONNX,
    PAGE,
    RECIPE,
    WEIGHTS,
    read_recipe,
    read_signature,
    save_pruned,
)
from autoprune.exporting._card import MARK
from autoprune.graph.plan import Plan
from autoprune.run import Event, FinetuneResult, Int8Report, Stage, load_saved
from autoprune.run._checks.trust import UNTRUSTED
from autoprune.run._model_data import find_data
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.artefact import begin_artefact, complete_artefact, export_formats, present_formats
from autoprune.run._results.model_card import Scored, _difference, _interval, _settings, licence_of
from autoprune.support.events import silent
from autoprune.training import Evaluation
from tests.test_cli import run_here

QUICK = (
    "search.trials=1",
    "search.sampler=random",
    "search.warm_starts=['uniform']",
    "search.setting=float32 contiguous",
    "score.rungs=['calibrate']",
    "score.calibration_batches=1",
    "train.epochs=3",
    "race.entrants=1",
    "budget.flops=50%",
    "finetune.epochs=0",
    "output.formats=['onnx']",
)

FILES = {WEIGHTS, RECIPE, ONNX, PAGE, CARD}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """The result of a search on digits, with all files of its folder."""
    folder = tmp_path_factory.mktemp("artefact")
    places = [
        f"model.checkpoint={folder}/dense.safetensors",
        f"search.storage=sqlite:///{folder}/study.db",
        f"output.folder={folder}/out",
    ]
    found = autoprune.search(config=load_config("digits", [*QUICK, *places]))
    return autoprune.finetune(found.name, found.storage)


@pytest.fixture(scope="module")
def int8(tuned: FinetuneResult) -> Int8Report:
    """The int8 file next to the model of `tuned`, made by the name of the study."""
    return autoprune.export_int8(tuned.study, storage=storage_of(tuned), images=100)


def storage_of(tuned: FinetuneResult) -> str:
    return f"sqlite:///{tuned.folder.parent.parent}/study.db"


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_code_of_the_card_runs_in_the_folder_as_it_is_printed(
    tuned: FinetuneResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {file.name for file in tuned.folder.iterdir()} - {INT8} == FILES
    monkeypatch.chdir(tuned.folder)
    in_torch, in_onnx = snippets(Path(CARD).read_text("utf-8"))
    images = load("digits").test
    assert images is not None
    inputs = next(iter(images))[0][:2]
    spaces: list[dict[str, object]] = [{}, {}]
    for code, space in zip((in_torch, in_onnx), spaces, strict=True):
        exec(compile(code, CARD, "exec"), space)
    assert capsys.readouterr().out.split("\n") == ["torch.Size([2, 10])", "(2, 10)", ""]
    model, session = spaces[0]["model"], spaces[1]["session"]
    assert isinstance(model, nn.Module)
    (found,) = session.run(["output"], {"inputs": inputs.numpy()})  # type: ignore[attr-defined]  # onnxruntime is untyped
    with torch.no_grad():
        np.testing.assert_allclose(found, model(inputs).numpy(), atol=1e-4)
    pixels = spaces[0]["pixels"]
    assert isinstance(pixels, Tensor)
    steps = load("digits", val_fraction=0.2).preprocessing
    assert steps is not None
    expected = (pixels - steps.mean[0]) / steps.std[0]
    torch.testing.assert_close(spaces[0]["images"], expected)


def test_the_card_holds_the_scores_with_an_interval_and_the_costs(tuned: FinetuneResult) -> None:
    text = (tuned.folder / CARD).read_text("utf-8")
    test = load("digits", val_fraction=0.2).test
    assert test is not None
    small = load_saved(tuned.folder)
    with torch.no_grad():
        hits = torch.cat([small(images).argmax(1) == labels for images, labels in test]).double()
    assert tuned.test_score == pytest.approx(float(hits.mean()))
    low, high = wilson(float(hits.mean()), len(hits))
    row = f"| the test part | {len(hits)} | {tuned.test_score:.4f} | {low:.4f} to {high:.4f} | "
    assert f"{row}{tuned.dense_test_score:.4f} |" in text
    share = tuned.cost.macs / tuned.dense_cost.macs
    assert re.search(rf"\| MACs \| .* \| {share:.1%} \| at most 50.0%, met \|", text)
    assert "Classes by number: 0 0, 1 1, 2 2," in text
    assert str(tuned.folder.parent.parent) not in text, "a card is published, with no path of this machine"


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval in closed form."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return middle - half, middle + half


def test_intervals_of_scores() -> None:
    hits = torch.tensor([1.0] * 9 + [0.0])
    assert _interval(hits) == pytest.approx(wilson(0.9, 10))
    values = torch.tensor([0.1, 0.2, 0.4, 0.7])
    low, high = _interval(values) or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(float(values.mean()))
    assert high - low == pytest.approx(2 * 3.1824463 * float(values.std()) / 2)  # the t value of 3 degrees
    assert _interval(torch.full((5,), 0.3)) == pytest.approx((0.3, 0.3))
    assert _interval(torch.tensor([1.0])) is None
    assert _interval(torch.tensor([0.5, math.nan])) is None


def test_a_finetune_that_stopped_before_the_card_completes_the_folder(tuned: FinetuneResult) -> None:
    kept = (tuned.folder / ONNX).read_bytes()
    for name in (CARD, PAGE):
        (tuned.folder / name).unlink()
    (tuned.folder / ONNX).write_bytes(b"half of it")
    again = autoprune.finetune(tuned.study, storage_of(tuned))
    assert again == tuned
    assert {file.name for file in tuned.folder.iterdir()} - {INT8} == FILES
    assert len((tuned.folder / ONNX).read_bytes()) == len(kept)


def test_an_int8_file_scores_as_the_float_file_within_two_points(
    tuned: FinetuneResult, int8: Int8Report
) -> None:
    val = load("digits", val_fraction=0.2).val
    images, labels = (torch.cat(each) for each in zip(*val, strict=True))

    def hits(name: str) -> Tensor:
        session = onnxruntime.InferenceSession(tuned.folder / name)
        return torch.from_numpy(session.run(None, {"inputs": images.numpy()})[0]).argmax(1) == labels

    assert int8.float_score == pytest.approx(float(hits(ONNX).double().mean()))
    assert int8.score == pytest.approx(float(hits(INT8).double().mean()))
    assert int8.float_score == pytest.approx(tuned.val_score, abs=1e-3), "ONNX Runtime computes as PyTorch"
    assert abs(int8.score - int8.float_score) <= 0.02, "the score of digits moves by less than two points"
    assert int8.size_bytes == (tuned.folder / INT8).stat().st_size < int8.float_size_bytes
    assert int8.time.median_ms / int8.float_time.median_ms == pytest.approx(int8.ratio.ratio, rel=0.3)
    assert int8.images == 100


def test_an_int8_file_holds_bytes_and_takes_any_batch(tuned: FinetuneResult, int8: Int8Report) -> None:
    graph = onnx.load_model(int8.path).graph
    weights = [each for each in graph.initializer if len(each.dims) == 4]
    assert {each.data_type for each in weights} == {onnx.TensorProto.INT8}
    session = onnxruntime.InferenceSession(int8.path)
    for batch in (1, 2, 7):
        (found,) = session.run(["output"], {"inputs": np.zeros((batch, 1, 8, 8), np.float32)})
        assert found.shape == (batch, 10)


def test_the_card_compares_int8_with_float_and_its_code_still_runs(
    tuned: FinetuneResult, int8: Int8Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tuned.folder / CARD).read_text("utf-8")
    assert f"| {int8.float_score:.4f} | {int8.score:.4f} |" in text
    assert f"| bytes | {int8.float_size_bytes:,} | {int8.size_bytes:,} |" in text
    assert "calibrated by minmax on 100 training images" in text
    assert "CPUs without VNNI" in text
    monkeypatch.chdir(tuned.folder)
    for code in snippets(text):
        exec(compile(code, CARD, "exec"), {})


@pytest.mark.slow
def test_int8_is_deterministic_and_reduced_weights_have_seven_bits(
    tuned: FinetuneResult, int8: Int8Report, tmp_path: Path
) -> None:
    before = int8.path.read_bytes()
    again, reduced = tmp_path / "again.onnx", tmp_path / "reduced.onnx"
    command = ["export", tuned.study, "--storage", storage_of(tuned), "--int8", "--images", "100"]
    bits = "--reduce-range" if int8.reduce_range else "--full-range"
    code, out, err = run_here(*command, bits, "-o", str(again), "--json", cwd=tmp_path)
    assert (code, again.read_bytes()) == (0, before), err
    printed = json.loads(out)
    assert (printed["document"], printed["score"], printed["images"]) == ("int8", int8.score, 100)
    code, _, err = run_here(*command, "--format", "pt2", cwd=tmp_path)
    assert code == 2
    assert "Leave out --dense and --format" in err
    report = autoprune.export_int8(
        tuned, output=reduced, images=100, calibration="percentile", reduce_range=True
    )
    assert (report.float_path, report.reduce_range) == (None, True)
    assert "Weights have 7 bits" in report.notes[-1]
    for each in onnx.load_model(reduced).graph.initializer:
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4:
            assert abs(onnx.numpy_helper.to_array(each)).max() <= 64
    assert int8.path.read_bytes() == before, "a file elsewhere changes nothing in the folder"


def test_a_loss_above_the_tolerance_is_stated(int8: Int8Report) -> None:
    near, far = (dataclasses.replace(int8, score=int8.float_score * share) for share in (0.995, 0.97))
    assert (near.loses, far.loses) == (False, True)
    assert "keep the float file" not in near.notes[0]
    assert "a loss of more than 1%: keep the float file" in far.notes[0]


@pytest.mark.parametrize(
    ("interval", "words"),
    [((0.5, 0.9), "it is faster here"), ((0.9, 1.1), "it is about as fast here"), ((1.1, 2), "it is slower")],
)
def test_a_difference_of_times_is_stated_if_the_interval_excludes_one(
    int8: Int8Report, interval: tuple[float, float], words: str
) -> None:
    ratio = dataclasses.replace(int8.ratio, ratio=sum(interval) / 2, interval=interval)
    assert words in dataclasses.replace(int8, ratio=ratio).notes[1]


@pytest.mark.slow
def test_an_int8_file_keeps_the_opset_of_the_float_file(tuned: FinetuneResult, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    shutil.copytree(tuned.folder, folder)
    autoprune.export(folder, opset=20)
    autoprune.export_int8(dataclasses.replace(tuned, folder=folder), images=32)
    assert read_signature(folder / ONNX).opset == 20


def test_mistakes_of_an_int8_export_are_one_line(tuned: FinetuneResult, tmp_path: Path) -> None:
    storage = storage_of(tuned)
    with pytest.raises(ConfigError, match=r'--calibration: unknown name "min"'):
        autoprune.export_int8(tuned.study, storage=storage, calibration="min", output=tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"--images: got 0, expected at least 1"):
        autoprune.export_int8(tuned.study, storage=storage, images=0)
    with pytest.raises(ConfigError, match=r"names no data to calibrate with\. Add --config CONFIG\.toml"):
        autoprune.export_int8(tuned.folder)
    with pytest.raises(ConfigError, match=r"--output: .* is the dense model"):
        autoprune.export_int8(
            tuned.study, storage=storage, output=tuned.folder.parent.parent / "dense.safetensors"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_whole_folder_is_written_elsewhere(
    tuned: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "published"
    where.mkdir()
    (where / ONNX).write_text("mine")
    with pytest.raises(ExportError, match=r"model\.onnx exists, and autoprune did not write it"):
        autoprune.export(tuned.study, where, "folder", storage=storage_of(tuned))
    assert [(file.name, file.read_text()) for file in where.iterdir()] == [(ONNX, "mine")]
    (where / ONNX).unlink()
    report = autoprune.export(tuned.study, where, "folder", storage=storage_of(tuned))
    assert (report.path, report.format, report.max_difference) == (where, "folder", 0.0)
    assert {file.name for file in where.iterdir()} - {INT8} == FILES
    assert (where / WEIGHTS).read_bytes() == (tuned.folder / WEIGHTS).read_bytes()
    monkeypatch.chdir(where)
    for code in snippets(Path(CARD).read_text("utf-8")):
        exec(compile(code, CARD, "exec"), {})
    autoprune.export(tuned.study, where, "folder", storage=storage_of(tuned))
    assert {file.name for file in where.iterdir()} - {INT8} == FILES, "a folder of this package is replaced"
    autoprune.export(tuned.study, tmp_path / "small.onnx", storage=storage_of(tuned))
    found = find_data(where, storage_of(tuned), UNTRUSTED, silent, is_written=True)
    assert (found.folder, found.dense.data.val.samples) == (
        where,
        load("digits", val_fraction=0.2).val.samples,
    )
    with pytest.raises(ExportError, match=r'opset: got 17, but a "folder" has none'):
        autoprune.export(tuned.study, where, "folder", storage=storage_of(tuned), opset=17)


@pytest.mark.parametrize("format_name", ["safetensors", "folder"])
def test_no_export_replaces_another_model(tuned: FinetuneResult, tmp_path: Path, format_name: str) -> None:
    mine = tmp_path / "mine"
    autoprune.export(tuned, mine, "safetensors")
    autoprune.export(tuned, mine, "safetensors")
    plan = read_recipe(mine).plan
    other = load_saved(mine)
    next(other.parameters()).data.mul_(2)
    save_pruned(other, plan, mine)
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    with pytest.raises(ExportError, match=r"mine holds another model, and its model\.safetensors would be"):
        autoprune.export(tuned, mine, format_name)
    assert {file.name: file.read_bytes() for file in mine.iterdir()} == before


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_exported_keeps_its_folder_and_the_card_says_why(tmp_path: Path) -> None:
    save_pruned(nn.Sequential(nn.Conv2d(1, 2, 3)), Plan({"0": np.array([0, 1])}), tmp_path)
    events: list[Event] = []
    export_formats(tmp_path, Branches(), None, torch.zeros(1, 3), watch=events.append)
    assert read_recipe(tmp_path).extra == {}, "no format was requested"
    export_formats(tmp_path, Branches(), ["onnx"], torch.zeros(1, 3), watch=events.append)
    complete_artefact(tmp_path)
    text = (tmp_path / CARD).read_text("utf-8")
    assert "There is no `model.onnx` here: Branches cannot be exported to .onnx" in text
    assert any("warning: no model.onnx" in event.text for event in events if isinstance(event, Stage))
    assert not (tmp_path / ONNX).exists()


def test_files_of_an_earlier_model_go_and_those_of_the_user_stay(tmp_path: Path) -> None:
    for name in (ONNX, INT8, PAGE, "model.pt2", "notes.txt", CARD):
        (tmp_path / name).write_text("earlier")
    begin_artefact(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt", CARD}
    (tmp_path / CARD).write_text(f"{MARK} 1.0 -->")
    begin_artefact(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt"}


def test_a_card_holds_no_path_command_or_address_of_this_machine() -> None:
    private = {
        "model": {"factory": "my.nets:make", "checkpoint": "/secret/dense.pt"},
        "data": {"loaders": "/secret/data.py:make", "folder": "/secret/images"},
        "latency": {"probe": "command", "command": "ssh secret@board", "table": "/secret/table.json"},
        "search": {"trials": 7, "space": "/secret/space.toml", "ray": {"address": "ray://secret:10001"}},
        "mask": {"file": "/secret/masks"},
        "output": {"folder": "/secret/out"},
    }
    text = _settings(RunSpec.of(private))
    assert "secret" not in text
    for kept in ('factory = "my.nets:make"', 'checkpoint = "dense.safetensors"', "trials = 7"):
        assert kept in text


def test_equal_scores_are_called_the_same() -> None:
    hits = torch.tensor([1.0, 0.0, 1.0])
    equal, better = (Evaluation(score, hits) for score in (0.5, 0.75))
    assert "the pruned model scores the same as the dense" in _difference(Scored("test", equal, equal))[0]
    assert "the pruned model is 0.2500 above the dense" in _difference(Scored("test", better, equal))[0]


def test_a_module_of_the_user_is_not_taken_for_a_package_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = types.ModuleType("optuna")
    own.__file__ = str(tmp_path / "optuna.py")
    monkeypatch.setitem(sys.modules, "optuna", own)
    assert licence_of(nn.Sequential(), "optuna:make") == "of the user, its licence is not known"


def test_the_formats_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    for name in ("model.pt2", ONNX):
        (tmp_path / name).touch()
    assert present_formats(tmp_path) == ("onnx", "pt2")


def test_the_licence_is_that_of_the_package_which_defines_the_model() -> None:
    assert re.fullmatch(r"optuna \S+, MIT.*", licence_of(nn.Sequential(), "optuna.nets:make"))
    for factory in (None, "nowhere.at_all:make"):
        assert licence_of(nn.Sequential(), factory) == "of the user, its licence is not known"
