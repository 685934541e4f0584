"""Model cards: written from a recipe alone, safe for any recipe, and never in place of a user's page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import CheckpointError
from autoprune.exporting import CARD, INT8, ONNX, RECIPE, save_pruned, update_extra, write_card
from autoprune.graph.plan import Plan

PLAN = Plan({"0": np.array([0, 2])})
NET = {"name": "tiny", "classes": 2, "input_shape": [1, 4, 4]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pruned(nn.Sequential(nn.Conv2d(1, 2, 3)), PLAN, tmp_path)
    return tmp_path


def card(folder: Path, **extra: Any) -> str:
    update_extra(folder, extra)
    path = write_card(folder)
    assert path == folder / CARD
    return path.read_text("utf-8")


def test_a_recipe_without_facts_gets_a_card_that_says_what_is_missing(folder: Path) -> None:
    text = card(folder)
    assert 'load_pruned(".", make_model)' in text
    assert "There is no `model.onnx` here. `autoprune export .` writes it." in text
    assert "The preparation of the inputs is not recorded here." in text
    assert re.search(r"\| `model\.safetensors` \| [\d,]+ \| `[0-9a-f]{64}` \|", text)
    assert "2 classes. Their names are not known." in card(folder, architecture=NET)
    text = card(folder, architecture={**NET, "classes": 0, "input_shape": []})
    assert "model(" not in text, "inputs of another structure than images are the user's to make"
    assert "The preparation of the inputs is not recorded here." in text


def test_a_card_is_replaced_but_not_a_page_of_the_users_own(folder: Path) -> None:
    assert "# A pruned model" in card(folder)
    assert "# Another" in card(folder, card={"title": "Another"})
    (folder / CARD).write_text("# My own page")
    assert write_card(folder) is None
    assert (folder / CARD).read_text() == "# My own page"


def test_the_weights_stay_as_the_facts_change(folder: Path) -> None:
    before = json.loads((folder / RECIPE).read_text())
    update_extra(folder, {"card": {"title": "Another"}})
    update_extra(folder, {"note": 1})
    after = json.loads((folder / RECIPE).read_text())
    assert after.pop("extra") == {"card": {"title": "Another"}, "note": 1}
    assert after == {key: value for key, value in before.items() if key != "extra"}


def test_texts_of_a_recipe_are_shown_as_they_are(folder: Path) -> None:
    """A recipe may come from anybody: no text of it becomes a tag, a link, a heading or code."""
    odd = "<script>x</script> [a](b)\n# c `d` | e\n```python\nf\x1b"
    names = {"title": odd, "about": [odd], "class_names": [odd], "commands": [odd], "settings": odd}
    text = card(folder, architecture=NET, card={**names, "data": {odd: odd}})
    fences = [line for line in text.splitlines() if line.startswith("```")]
    assert fences == ["```python", "```", "```sh", "```", "```toml", "```"]
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "\n# c" not in outside
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[a|\x1b", outside)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"card": {"scores": [{"part": 3}]}}, r"recipe\.json: extra\.card: scores\.0\.part: got 3"),
        ({"architecture": {"name": "x"}}, r"recipe\.json: extra\.architecture: classes is missing"),
    ],
)
def test_a_damaged_recipe_is_one_line(folder: Path, extra: dict[str, Any], message: str) -> None:
    update_extra(folder, extra)
    with pytest.raises(CheckpointError, match=message):
        write_card(folder)


def test_a_file_that_is_no_onnx_is_stated(folder: Path) -> None:
    (folder / ONNX).write_bytes(b"junk")
    assert "There is no `model.onnx` here: it cannot be read" in card(folder)
    (folder / INT8).touch()
    rows = [["bytes", "1,000", "300"], ["ms", "2", "1"]]
    text = card(folder, int8={"made": ["By ONNX Runtime."], "rows": rows, "notes": ["Slower here."]})
    assert "| bytes | 1,000 | 300 |\n| ms | 2 | 1 |\n\n- Slower here.\n" in text
    (folder / INT8).unlink()
    assert "Slower here." not in card(folder)


def test_a_format_that_failed_once_and_then_worked_is_a_file_of_the_card(folder: Path) -> None:
    facts = {"failed": {"model.pt2": "Branches cannot be exported"}}
    assert "There is no `model.pt2` here: Branches" in card(folder, card=facts)
    (folder / "model.pt2").touch()
    text = card(folder)
    assert "There is no `model.pt2`" not in text
    assert "| `model.pt2` | 0 |" in text


def test_the_size_of_tensors_is_that_of_the_files(folder: Path) -> None:
    torch.manual_seed(0)
    size = (folder / "model.safetensors").stat().st_size
    assert f"| `model.safetensors` | {size:,} |" in card(folder)
