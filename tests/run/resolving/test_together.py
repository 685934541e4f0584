"""`torchrun -m autoprune finetune` and `train`: the files and scores of one process, also after kill -9."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.exporting import read_recipe
from tests.run.test_finetune import QUICK
from tests.torchrun import started, torchrun

STUDY = "digits"
FINETUNE = ("-m", "autoprune", "finetune", STUDY, "--storage", "sqlite:///study.db")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study."""
    folder = tmp_path_factory.mktemp("searched")
    places = [
        f"model.checkpoint={folder}/dense.safetensors",
        f"search.storage=sqlite:///{folder}/study.db",
        f"output.folder={folder}/alone",
        f"search.study={STUDY}",
        "finetune.epochs=3",
        "output.formats=[]",
    ]
    autoprune.search(config=load_config("digits", [*QUICK, *places]))
    return folder


@pytest.fixture(scope="module")
def pair(searched: Path) -> tuple[Path, str]:
    """The folder that two processes finetuned into, and what they printed."""
    done = torchrun(*FINETUNE, "--set", f"output.folder={searched}/pair", cwd=searched)
    assert done.returncode == 0, done.stderr
    return searched / "pair", done.stdout


def test_two_processes_write_and_print_what_one_does(searched: Path, pair: tuple[Path, str]) -> None:
    folder, printed = pair
    scores = read_recipe(folder / "best").extra
    stages: list[str] = []
    known = run.finetune(
        STUDY,
        f"sqlite:///{searched}/study.db",
        overrides=[f"output.folder={folder}"],
        watch=lambda event: stages.append(str(event)),
    )
    assert any("finetuned already" in stage for stage in stages)
    assert known.val_score == scores["val_score"]
    alone = run.finetune(STUDY, f"sqlite:///{searched}/study.db")
    assert sorted(path.name for path in folder.rglob("*")) == sorted(
        path.name for path in (searched / "alone").rglob("*")
    )
    assert printed.count("Finetuned: trial") == printed.count("epoch   3/3") == 1
    weights, expected = (weights_in(each) for each in (folder, searched / "alone"))
    torch.testing.assert_close(weights, expected, rtol=0.01, atol=0.01)
    assert scores["val_score"] == pytest.approx(alone.val_score, abs=0.02)
    assert scores["test_score"] == pytest.approx(alone.test_score, abs=0.02)


@pytest.mark.parametrize("killed", [(1,), (0, 1)], ids=str)
def test_a_killed_finetune_goes_on(searched: Path, pair: tuple[Path, str], killed: tuple[int, ...]) -> None:
    """It ends with the weights of a finetune that was never killed, whichever process died."""
    name = f"killed-{killed}"
    first = started(*FINETUNE, "--set", f"output.folder={name}", cwd=searched)
    assert first.stdout is not None
    assert first.stderr is not None
    for line in first.stdout:
        if line.startswith("epoch   1/3"):
            processes = processes_of(first.pid)
            for rank in killed:
                os.kill(processes[rank], signal.SIGKILL)
    errors = first.stderr.read()
    assert first.wait() == 1
    if killed == (1,):
        assert "another process of this training is gone. Run the same command again" in errors
    assert not (searched / name / "best").exists()
    again = torchrun(*FINETUNE, "--set", f"output.folder={name}", cwd=searched)
    assert again.returncode == 0, again.stderr
    assert "epoch   1/3" not in again.stdout
    assert "epoch   3/3" in again.stdout
    left, right = (weights_in(each) for each in (searched / name, pair[0]))
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best" / "model.safetensors")


def processes_of(launcher: int) -> dict[int, int]:
    """Return {rank: process} of a running torchrun. Linux only."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = {}
    for child in children:
        rank = re.search(r"(?:^|\0)RANK=(\d+)", Path(f"/proc/{child}/environ").read_text())
        if rank is not None:
            found[int(rank[1])] = int(child)
    return found


def test_two_processes_train_a_dense_model(tmp_path: Path) -> None:
    scores = []
    for name in ("alone", "pair"):
        given = ["model.checkpoint=dense.safetensors", "train.epochs=1", "search.setting=float32 contiguous"]
        folder = tmp_path / name
        folder.mkdir()
        if name == "alone":
            places = [given[1], given[2], f"model.checkpoint={folder}/dense.safetensors"]
            scores.append(run.train(load_config("digits", places)).val_score)
            continue
        options = [word for each in given for word in ("--set", each)]
        done = torchrun("-m", "autoprune", "train", "digits", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        found = re.search(r"Validation score (\d\.\d+)", done.stdout)
        assert found is not None
        scores.append(float(found[1]))
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    weights = [load_file(tmp_path / name / "dense.safetensors") for name in ("alone", "pair")]
    torch.testing.assert_close(*weights, rtol=0.02, atol=0.02)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {
        path.name for path in (tmp_path / "pair").iterdir()
    }


def test_a_process_that_cannot_load_the_data_says_so(searched: Path, tmp_path: Path) -> None:
    """Other processes end, and the message names the process and its machine."""
    copy = tmp_path / "copy"
    shutil.copytree(searched, copy)
    script = copy / "broken.py"
    script.write_text(
        "import os, sys\nfrom autoprune.errors import DataError\n"
        "from autoprune.run._resolving import together\n"
        "def broken(*given):\n    raise DataError('data.folder: missing')\n"
        "if os.environ['RANK'] == '1':\n    together._loaded = broken\n"
        "sys.argv = ['autoprune', *sys.argv[1:]]\nfrom autoprune.cli import main\nmain()\n"
    )
    done = torchrun("broken.py", *FINETUNE[2:], "--set", "output.folder=out", cwd=copy)
    assert done.returncode == 1
    assert re.search(r"autoprune: process 1 of 2, on \S+: data.folder: missing", done.stderr)
