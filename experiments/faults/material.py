"""What the cases damage: a trained digits net, small finished studies, their pruned models, a latency table.

It is made by the verbs themselves, once for each worker, then copied for each of its cases.

    material = Material.make(root, run)
    folders = material.fresh()               # work/, outside/ and tmp/, as they were made
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

RUN = """
[model]
name = "digits_resnet"
checkpoint = "dense.safetensors"

[data]
name = "digits"
batch_size = 64
val_fraction = 0.2

[budget]
flops = "40%"

[search]
trials = 2
study = "tiny"
sampler = "random"
warm_starts = []
setting = "float32 contiguous"

[score]
rungs = ["calibrate", "2 steps"]
calibration_batches = 2

[train]
epochs = 1

[race]
entrants = 1

[finetune]
epochs = 1
"""

CLOCK = '''
def tick(model, inputs):
    """Say milliseconds that follow from the parameters alone, at once."""
    return 1 + sum(each.numel() for each in model.parameters()) / 10_000
'''

VICTIM = "a file of somebody else's\n"

TABLE = """
import torch

import autoprune
from autoprune.latency import LatencySetting
from autoprune.latency.table._measure import measure_table
from autoprune.zoo import make_model

model = make_model("digits_resnet", classes=10, in_channels=1)
prunable = autoprune.trace(model, torch.zeros(1, 1, 8, 8))
measure_table(prunable, LatencySetting("clock:tick"), limit_seconds=1, levels=3).save("table.json")
"""

FOREIGN = """
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(storage="sqlite:///foreign.db", study_name="foreign")
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
"""

BUDGET = """
[budget]
flops = "40%"

[search]
"""

TIMED = """
[budget]
flops = "40%"
latency = "80%"

[latency]
probe = "clock:tick"
table = "table.json"
limit_seconds = 0.1

[search]
divisor = 1
"""

COMMANDS = (
    ["train", "run.toml"],
    ["search", "run.toml"],
    ["finetune", "tiny"],
    ["export", "tiny"],
    ["export", "tiny", "--format", "pt2"],
    [
        "search",
        "run.toml",
        "--set",
        "search.storage=journal:///runs/paper.log",
        "--set",
        "search.study=paper",
    ],
    [FOREIGN],
    [TABLE],
    ["search", "timed.toml", "--set", "search.study=timed"],
)
"""The command lines that make the material, in order."""

Tree = dict[str, str]
"""Path -> its kind and a hash of its content."""


@dataclass(frozen=True)
class Folders:
    """Where one case runs.

    Attributes:
        root: holds all of them.
        work: the current folder of the command, with the material.
        outside: holds a file of somebody else's, and the mark of code that ran.
        temporary: TMPDIR of the command.
    """

    root: Path

    @property
    def work(self) -> Path:
        """The current folder."""
        return self.root / "work"

    @property
    def outside(self) -> Path:
        """A folder that no command may write to."""
        return self.root / "outside"

    @property
    def temporary(self) -> Path:
        """The folder of temporary files, empty again after every command."""
        return self.root / "tmp"

    @property
    def ran(self) -> Path:
        """The file that code of a received file makes if it runs."""
        return self.outside / "ran"

    def make(self) -> None:
        """Make the folders, with a file of somebody else's outside."""
        for folder in (self.work, self.outside, self.temporary):
            folder.mkdir(parents=True)
        (self.outside / "victim.txt").write_text(VICTIM)

    def tree(self) -> Tree:
        """Describe every file in them. Only regular files are opened."""
        found: Tree = {}
        for folder, folders, files in os.walk(self.root):
            for name in sorted([*folders, *files]):
                path = Path(folder) / name
                found[str(path.relative_to(self.root))] = _described(path)
        return found


def _described(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link {os.readlink(path)}"
    if not stat.S_ISREG(mode):
        return f"kind {stat.S_IFMT(mode):o}"
    try:
        return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    except PermissionError:
        return "unreadable"


@dataclass(frozen=True)
class Material:
    """The material as it was made, and the folders that each case finds it in.

    Studies hold absolute paths, and are signed: the folders of all cases are at the place where it was made.
    """

    root: Path

    @classmethod
    def make(
        cls,
        root: Path,
        run: Callable[[list[str], Path], None],
        commands: Sequence[list[str]] = COMMANDS,
    ) -> Material:
        """Make it under a root.

        Args:
            root: a new folder.
            run: runs one command line, or Python code if it is a single word, in a folder.
            commands: the command lines.
        """
        material = cls(root)
        folders = material.folders
        folders.make()
        (folders.work / "run.toml").write_text(RUN)
        (folders.work / "timed.toml").write_text(RUN.replace(BUDGET, TIMED))
        (folders.work / "clock.py").write_text(CLOCK)
        for command in commands:
            run(command, folders.work)
        for database in folders.work.rglob("*.db"):
            with closing(
                sqlite3.connect(database)
            ) as file:  # a forked child leaves its last writes in the log
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copytree(folders.root, root / "material")
        return material

    @property
    def folders(self) -> Folders:
        """Where cases run."""
        return Folders(self.root / "case")

    def fresh(self) -> Folders:
        """Return the folders with the material as it was made."""
        if self.folders.root.exists():
            _remove(self.folders.root)
        shutil.copytree(self.root / "material", self.folders.root)
        return self.folders


def _remove(folder: Path) -> None:
    """Remove a folder in which a case may have forbidden that."""
    for inner, _, _ in os.walk(folder):
        os.chmod(inner, 0o700)
    shutil.rmtree(folder)
