"""A search that sparsifies its dense model first: the study's dense model is the sparse one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.errors import ConfigError
from autoprune.reporting import summarise, summary_notes
from autoprune.run import SearchResult, stored_spec
from autoprune.run._resolving.seen_validation import read_history
from autoprune.study import open_study
from autoprune.support.events import EpochDone, Event
from autoprune.training import weights_hash
from autoprune.zoo import load_checkpoint
from tests.flow.nets import DATA, net


def config(folder: Path, **sections: Any) -> dict[str, Any]:
    return {
        "budget": {"macs": "50%"},
        "search": {
            "trials": 2,
            "warm_starts": [],
            "sampler": "random",
            "criterion": "bn",
            "setting": "float32 contiguous",
            "study": "sparse",
            "storage": f"journal:///{folder}/study.log",
        },
        "score": {"rungs": ["calibrate"], "calibration_batches": 1},
        "sparsify": {"epochs": 2, "strength": 1e-2},
        "race": {"entrants": 1},
        "finetune": {"epochs": 1},
        "output": {"folder": str(folder)},
        **sections,
    }


class Stopped(BaseException):
    """Ends a search as a kill would."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A search that was stopped in its sparse training, and called again."""
    folder = tmp_path_factory.mktemp("sparse")

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise Stopped

    with pytest.raises(Stopped):
        autoprune.search(net(), DATA, config(folder), watch=stop)
    events: list[Event] = []
    result = autoprune.search(net(), DATA, config(folder), watch=events.append)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [2]
    return result


def test_the_study_began_with_the_sparse_model(searched: SearchResult) -> None:
    sparse = net()
    file = searched.output / "sparse.safetensors"
    load_checkpoint(sparse, file)
    study = open_study(searched.storage, searched.name)
    assert study.identity["model (its weights)"] == weights_hash(sparse) != weights_hash(net())
    assert stored_spec(study).model.checkpoint == str(file)
    note = read_history(file)
    assert note is not None
    assert note["config"]["sparsify"]["strength"] == note["facts"]["strength"] == 1e-2
    assert not list(searched.output.glob("*.training"))


def test_later_commands_take_the_model_that_the_search_was_given(searched: SearchResult) -> None:
    tuned = autoprune.finetune(searched.name, searched.storage, model=net(), data=DATA)
    assert tuned.dense_val_score == searched.summary.dense_score
    more = autoprune.resume(
        searched.name, searched.storage, model=net(), data=DATA, overrides=["search.trials=3"]
    )
    assert more.summary.dense_score == searched.summary.dense_score


def test_the_report_ranks_the_strengths_that_were_tried(tmp_path: Path) -> None:
    sparse = {"epochs": 2, "strength": [1e-4, 1e-1], "share": 0.25}
    result = autoprune.search(net(), DATA, config(tmp_path, sparsify=sparse))
    found = summarise(open_study(result.storage, result.name)).strengths
    assert sorted(each.strength for each in found) == [1e-4, 1e-1]
    assert found[0].cut_score >= found[1].cut_score
    assert all(each.cut_error is not None and each.cut_error > 0 for each in found)
    (line,) = [note for note in summary_notes(result.summary) if note.startswith("Penalties")]
    first, second = (f"bn-l1 {each.strength:g} {each.cut_score:.4f} ±" for each in found)
    assert "a cut of 25% of the channels" in line
    assert line.index(first) < line.index(second)


def test_a_sparse_model_of_other_settings_is_not_taken(searched: SearchResult) -> None:
    other = config(searched.output, sparsify={"epochs": 1, "strength": 1e-2})
    other["search"]["study"] = "another"
    with pytest.raises(ConfigError, match=r"sparse.safetensors: holds a sparse model of .*\. Remove it"):
        autoprune.search(net(), DATA, other)


def test_a_penalty_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="acts on BatchNorm scales, but Sequential does not fit"):
        autoprune.search(net(norm=False), DATA, config(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_the_stages_of_a_flow_make_a_search_sparsify(tmp_path: Path) -> None:
    stages = {"stages": ["sparsify", "select"]}
    result = autoprune.search(net(), DATA, config(tmp_path, sparsify={"epochs": 1}, flow=stages))
    assert (result.output / "sparse.safetensors").exists()
