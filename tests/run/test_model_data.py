"""The folder of a saved model leads to the data of the flow or the study that made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import autoprune
from autoprune.errors import ConfigError, StudyError
from autoprune.exporting import INT8
from autoprune.run import Consent, FlowResult
from autoprune.run._checks.trust import UNTRUSTED
from autoprune.run._model_data import ModelData, find_data
from autoprune.support.events import silent
from tests.flow.nets import DATA, net, settings
from tests.test_cli import run_here

FLOW = {"flow": {"stages": ["select"]}, "sparsify": None, "repair": None, "finetune": None}
NAMED = {
    "model": {"factory": "tests.flow.nets:net"},
    "data": {"name": "digits", "val_fraction": 0.25, "checkpoint_saw_validation": True},
}


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> FlowResult:
    """A flow whose model and data its config names."""
    return autoprune.prune(config=settings(tmp_path_factory.mktemp("flow"), **FLOW, **NAMED), watch=None)


def found(folder: Path, consent: Consent = UNTRUSTED) -> ModelData:
    return find_data(folder, None, consent, silent, is_written=True)


def test_the_folder_of_a_flow_names_its_data(flow: FlowResult) -> None:
    data = found(flow.folder).dense.data
    assert data.val.samples == autoprune.data.load("digits", val_fraction=0.25).val.samples


def test_code_that_a_received_flow_names_does_not_run(flow: FlowResult, tmp_path: Path) -> None:
    values = json.loads((flow.folder / "flow.json").read_text())
    values["config"]["data"] = {**values["config"]["data"], "name": None, "loaders": "evil:make"}
    (tmp_path / "flow.json").write_text(json.dumps(values))
    with pytest.raises(StudyError, match=r'the flow names code: data.loaders = "evil:make". Give --trust'):
        found(tmp_path)
    with pytest.raises(ConfigError, match=r'data.loaders: no module "evil"'):
        found(tmp_path, Consent(trust=True))


def test_a_received_flow_downloads_nothing_outside_the_current_folder(
    flow: FlowResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads((flow.folder / "flow.json").read_text())
    values["config"]["data"] |= {"name": "fashion-mnist", "folder": str(tmp_path / "elsewhere")}
    (tmp_path / "flow.json").write_text(json.dumps(values))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(StudyError, match=r'the flow wants to write to ".*elsewhere", outside the current'):
        found(tmp_path)


def test_a_flow_on_data_of_a_caller_needs_a_config(tmp_path: Path) -> None:
    flow = autoprune.prune(net(), DATA, settings(tmp_path, **FLOW), watch=None)
    with pytest.raises(ConfigError, match=r"names no data to calibrate with. Add --config CONFIG\.toml"):
        found(flow.folder)


@pytest.mark.slow
def test_the_folder_of_a_flow_is_quantised_without_a_config(flow: FlowResult, tmp_path: Path) -> None:
    command = ("export", str(flow.folder), "--int8", "--images", "32", "--json")
    code, out, err = run_here(*command, cwd=tmp_path)
    assert (code, (flow.folder / INT8).is_file()) == (0, True), err
    report = json.loads(out)
    assert (report["metric"], report["images"]) == ("accuracy", 32)
    assert 0 <= report["score"] <= 1
