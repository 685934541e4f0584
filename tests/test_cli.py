"""The command line as a user runs it, on scikit-learn's digits: the main job, kills, all kinds of mistakes.

Commands that are killed run in processes of their own, and all others in this one, through the same `main`.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import autoprune
from autoprune.cli import main
from autoprune.study import TrialRecord, open_study
from autoprune.support.leases import Lease
from autoprune.zoo import make_model
from tests import children
from tests.children import run_child
from tests.kept_traces import kept_traces

__all__ = ["kept_traces"]

ROOT = Path(__file__).parents[1]
QUICK = (
    "search.trials=4",
    "search.setting=float32 contiguous",
    "score.rungs=['calibrate', '2 steps']",
    "train.epochs=2",
    "finetune.epochs=2",
    "race.entrants=1",
)


TRIALS = 8
WHOLE = (f"search.trials={TRIALS}", "search.sampler=cmaes")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "140"}


def sets(*overrides: str) -> list[str]:
    """Return the options of a quick run. A test's own overrides replace them."""
    by_key = {override.partition("=")[0]: override for override in (*QUICK, *overrides)}
    return [word for override in by_key.values() for word in ("--set", override)]


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "autoprune", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def send_at(moment: str, number: signal.Signals, *arguments: str, cwd: Path) -> str:
    """Run a command that gets a signal at a moment (see `children.send_at`). Return all that it printed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "140")
        code, printed = run_child(children.send_at, moment, number, *arguments, cwd=cwd)
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in printed
    assert code == expected, printed
    return printed


def run_here(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Run a command in this process, in a folder. Return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.chdir(cwd)
        patched.setenv("COLUMNS", "140")
        patched.setattr(sys, "argv", ["autoprune", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
    code = left.value.code
    return code if isinstance(code, int) else 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `autoprune train` has trained the dense digits model, killed once on the way."""
    folder = tmp_path_factory.mktemp("workplace")
    arguments = ("train", "digits", *sets("train.epochs=3"))
    send_at("EpochDone(epoch=1,", signal.SIGKILL, *arguments, cwd=folder)
    code, printed, err = run_here(*arguments, cwd=folder)
    assert code == 0, err
    assert "epoch   1/3" not in printed
    assert "epoch   3/3" in printed
    assert (folder / "runs" / "digits" / "dense.safetensors").is_file()
    return folder


@pytest.fixture(scope="module")
def whole(workplace: Path) -> str:
    """Make the finished study "whole" in `workplace`, which several tests read. Return what it printed."""
    code, printed, err = run_here("search", "digits", *sets("search.study=whole", *WHOLE), cwd=workplace)
    assert code == 0, err
    return printed


def assert_refused(result: tuple[int, str, str], message: str) -> None:
    code, out, err = result
    assert code == 2, out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("autoprune: ")
    assert message in lines[0]


def write_loaders(folder: Path, module: str, body: str) -> None:
    """Write a module whose `make` should return loaders of 8 x 8 images; `body` may spoil them."""
    (folder / f"{module}.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "def part(count):\n"
        "    generator = torch.Generator().manual_seed(count)\n"
        "    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 10\n"
        "def loader(images, labels):\n"
        "    return DataLoader(TensorDataset(images, labels), batch_size=16)\n"
        f"{body}\n"
    )


def test_memory_that_runs_out_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, classes, in_channels):\n"
        "        super().__init__()\n"
        "        self.fc = torch.nn.Linear(64, classes)\n"
        "    def forward(self, images):\n"
        "        if self.training:\n"
        "            torch.empty(2**58)\n"
        "        return self.fc(images.flatten(1))\n"
    )
    (tmp_path / "run.toml").write_text(
        '[model]\nfactory = "greedy:Net"\ncheckpoint = "dense.safetensors"\n'
        '[data]\nname = "digits"\n[budget]\nflops = "50%"\n'
    )
    result = run_here("train", "run.toml", *sets(), cwd=tmp_path)
    assert_refused(result, "out of memory: ")
    assert "Lower data.batch_size" in result[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trails=3", '[search]: unknown key "trails". Did you mean "trials"?'),
        ("search.trials=few", "search.trials: got 'few', expected an integer >= 1"),
        ("search.sampler=tpee", 'Did you mean "tpe"?'),
        ("search.engine=seriel", 'Did you mean "serial"?'),
        ("search.pruner=medain", 'Did you mean "median"?'),
        ("search.warm_starts=['uniform', 'tailor']", 'Did you mean "taylor"?'),
        ("search.warm_starts=l1", "search.warm_starts: got 'l1', expected a list of strings"),
        ("search.evolution.population=1", "search.evolution.population: got 1, expected an integer >= 2"),
        ("search.criterion=l7", "search.criterion"),
        ("search.objectives=['score', 'latancy']", 'Did you mean "latency"?'),
        ("search.objectives=['macs']", 'expected "score" first'),
        ("score.rungs=['5 stepps']", "score.rungs"),
        ("model.name=digits_resnett", 'Did you mean "digits_resnet"?'),
        ("data.name=digit", 'Did you mean "digits"?'),
        ("task.metric=acuracy", 'Did you mean "accuracy"?'),
        ("budget.flops=0.1%", "is the smallest reachable"),
        ("budget.flops=150%", "less than the dense model's"),
        ("budget.latency=4 M", "budget.latency: got '4 M', expected a share"),
        ("data.val_fraction=0.0001", "data.val_fraction"),
        ("search.space=nowhere.toml", "cannot be read as a search space"),
        ("search.device=tpu", "device"),
        ("output.folder=/proc/here", "output.folder: /proc/here cannot be written"),
        ("search.storage=sqlite:////proc/here/a.db", "search.storage: /proc/here cannot be written"),
        ("model.checkpoint=nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_no_study(
    workplace: Path, tmp_path: Path, override: str, message: str
) -> None:
    checkpoint = f"model.checkpoint={workplace}/runs/digits/dense.safetensors"
    overrides = sets("train.when_missing=false", checkpoint, override)
    assert_refused(run_here("search", "digits", *overrides, cwd=tmp_path), message)
    assert list(tmp_path.rglob("*.db")) == []


def test_a_checkpoint_of_another_shape_is_named_with_both_shapes(workplace: Path, tmp_path: Path) -> None:
    state = load_file(workplace / "runs" / "digits" / "dense.safetensors")
    state["fc.weight"] = torch.zeros(7, state["fc.weight"].shape[1])
    save_file(state, tmp_path / "other.safetensors")
    result = run_here("search", "digits", *sets("model.checkpoint=other.safetensors"), cwd=tmp_path)
    assert_refused(result, "fc.weight")
    assert "(7, 32)" in result[2]
    assert "(10, 32)" in result[2]


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pt"])
def test_a_corrupt_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights at all")
    result = run_here("search", "digits", *sets(f"model.checkpoint={name}"), cwd=tmp_path)
    assert_refused(result, "corrupt")
    assert list(tmp_path.rglob("*.db")) == []


@pytest.mark.parametrize(
    ("module", "body", "message"),
    [
        (
            "with_nan",
            "def make():\n    x, y = part(64)\n    x[3, 0, 2, 2] = float('nan')\n"
            "    return loader(x, y), loader(*part(32))",
            "NaN",
        ),
        ("with_nothing", "def make():\n    return loader(*part(64)), loader(*part(0))", "empty"),
        ("without_make", "def made():\n    return None", 'has no "make"'),
        ("broken", "raise ValueError('broken on import')", "broken on import"),
    ],
)
def test_bad_loaders_of_the_users_own_are_refused(
    tmp_path: Path, module: str, body: str, message: str
) -> None:
    write_loaders(tmp_path, module, body)
    (tmp_path / "run.toml").write_text(
        f'[model]\nname = "digits_resnet"\n[data]\nloaders = "{module}:make"\n[budget]\nflops = "50%"\n'
        "[train]\nwhen_missing = true\nepochs = 1\n"
    )
    assert_refused(run_here("search", "run.toml", cwd=tmp_path), message)
    assert list(tmp_path.rglob("*.db")) == []


@pytest.mark.parametrize(
    ("body", "override", "message"),
    [
        ("def metric(o, t): raise ValueError('no AUC')", "task.metric=m:metric", "ValueError: no AUC"),
        (
            "def metric(o, t): return o.argmax(1) == t",
            "task.metric=m:metric",
            'task.metric: "m:metric" failed',
        ),
        ("def loss(o, t): return (o - 1) ** 2", "task.loss=m:loss", 'task.loss: "m:loss" failed'),
        ("def metric(o, t): return float('nan')", "task.metric=m:metric", "nan for the dense model"),
        (
            "def net(): return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Conv2d(8, 8, 3), "
            "torch.nn.Flatten(), torch.nn.Linear(128, 7))",
            "model.factory=m:net",
            "it has 7 outputs for data of 10 classes",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_refused_before_any_training(
    workplace: Path, tmp_path: Path, body: str, override: str, message: str
) -> None:
    (tmp_path / "m.py").write_text(f"import torch\n{body}\n")
    sys.modules.pop("m", None)
    model = "" if "factory" in override else 'name = "digits_resnet"\n'
    weights = "new" if "factory" in override else f"{workplace}/runs/digits/dense"
    (tmp_path / "run.toml").write_text(
        f'[model]\n{model}checkpoint = "{weights}.safetensors"\n[data]\nname = "digits"\n'
        'val_fraction = 0.2\nbatch_size = 64\n[budget]\nflops = "50%"\n[train]\nwhen_missing = true\n'
    )
    result = run_here("search", "run.toml", *sets(override), cwd=tmp_path)
    assert_refused(result, message)
    assert "epoch" not in result[1]
    assert list(tmp_path.rglob("*.db")) == []


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(run_here("search", "nowhere.toml", cwd=tmp_path), "no such config file")
    assert_refused(run_here("resume", "nothing", cwd=tmp_path), "no storage in runs/")
    assert_refused(
        run_here("export", "nothing", "--format", "tflite", cwd=tmp_path), "Known: onnx, pt2, safetensors"
    )
    assert_refused(run_here("bench", "nothing.onnx", cwd=tmp_path), "nothing.onnx: no such file")
    (tmp_path / "broken.pt2").write_text("no model")
    assert_refused(
        run_here("bench", "broken.pt2", "--trust", cwd=tmp_path), "broken.pt2: torch.export cannot load it"
    )


def test_a_locked_storage_and_a_file_that_is_none_are_refused(workplace: Path, tmp_path: Path) -> None:
    checkpoint = f"model.checkpoint={workplace}/runs/digits/dense.safetensors"
    (tmp_path / "text.db").write_text("this is no database at all, but a text of some length")
    overrides = sets(checkpoint, "search.storage=sqlite:///text.db")
    assert_refused(run_here("search", "digits", *overrides, cwd=tmp_path), "text.db")
    with sqlite3.connect(tmp_path / "locked.db") as lock:
        lock.execute("CREATE TABLE mine (number INTEGER)")
        lock.commit()
        lock.execute("BEGIN EXCLUSIVE")
        overrides = sets(checkpoint, "search.storage=sqlite:///locked.db?timeout=1")
        assert_refused(run_here("search", "digits", *overrides, cwd=tmp_path), "locked")


def test_help_lists_the_verbs_and_a_missing_argument_is_a_mistake(tmp_path: Path) -> None:
    code, out, _ = run_here("--help", cwd=tmp_path)
    assert code == 0
    assert all(
        verb in out
        for verb in ("search", "resume", "finetune", "export", "bench", "inspect", "train", "report")
    )
    assert "..." not in out.replace("COMMAND [ARGS]...", "")  # no verb's line is cut
    code, _, err = run_here("search", cwd=tmp_path)
    assert code == 2
    assert "CONFIG" in err


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    code, out, _ = run_here("--version", cwd=tmp_path)
    assert (code, out.split()) == (0, ["autoprune", metadata.version("autoprune")])


def test_inspect_shows_groups_costs_and_memory(tmp_path: Path) -> None:
    code, out, err = run_here("inspect", "digits", cwd=tmp_path)
    assert code == 0, err
    words = ("layer1.0.conv1", "model's output", "smallest reachable", "keep ratios are searched", "MB")
    assert all(word in out for word in words)
    assert list(tmp_path.iterdir()) == []


def proposals(folder: Path, study: str) -> list[TrialRecord]:
    return open_study(f"sqlite:///{folder}/runs/{study}.db", study).records()


@pytest.mark.parametrize("twice", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_and_equals_an_uninterrupted_one(
    workplace: Path, whole: str, twice: bool
) -> None:
    """kill -9 in mid-search, SIGTERM in mid-resume, then to the end; trial by trial the same as without."""
    name = "twice" if twice else "killed"
    killed = sets(f"search.study={name}", *WHOLE)
    send_at("rung of trial 2", signal.SIGKILL, "search", "digits", *killed, cwd=workplace)
    if twice:
        printed = send_at("TrialDone(number=3,", signal.SIGTERM, "resume", name, cwd=workplace)
        assert f"Terminated. Finished work is kept. Resume with: autoprune resume {name}" in printed
        assert "running" not in [record.state for record in proposals(workplace, name)]
    code, out, err = run_here("resume", name, cwd=workplace)
    assert code == 0, err
    assert "trial   0" not in out
    assert "Best: trial" in out
    one, other = proposals(workplace, name), proposals(workplace, "whole")
    assert len(one) == len(other) == TRIALS
    for first, second in zip(one, other, strict=True):
        assert (first.ratios, first.widths, first.seed) == (second.ratios, second.widths, second.seed)
        assert first.score == second.score
        assert (first.state, first.pruned) == (second.state, second.pruned)


@pytest.mark.slow
def test_ctrl_c_in_the_dense_training_leaves_no_study(tmp_path: Path) -> None:
    """The study does not exist yet: the same command continues the training."""
    arguments = ("search", "digits", *sets("train.epochs=40"))
    printed = send_at("EpochDone(epoch=2,", signal.SIGINT, *arguments, cwd=tmp_path)
    assert "Resume with: autoprune search digits --set" in printed
    assert list(tmp_path.rglob("*.db")) == []


@pytest.mark.slow
def test_ctrl_c_in_a_search_names_the_resume(workplace: Path, tmp_path: Path) -> None:
    checkpoint = f"model.checkpoint={workplace}/runs/digits/dense.safetensors"
    arguments = ("search", "digits", *sets(checkpoint, "search.trials=50"))
    printed = send_at("TrialDone(number=0,", signal.SIGINT, *arguments, cwd=tmp_path)
    assert "Resume with: autoprune resume digits\n" in printed


def descendants(pid: int) -> set[int]:
    """Return the numbers of all processes that a process started, and those started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in children}.union(*(descendants(int(child)) for child in children))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize("moment", ["engine processes", "trial   0"])
@pytest.mark.parametrize("then", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_is_left_of_an_interrupted_search(
    workplace: Path, tmp_path: Path, then: signal.Signals, moment: str
) -> None:
    """Workers that compute, and workers that are still importing.

    Under load either takes minutes, so only pytest's time limit ends the waits.
    """
    checkpoint = f"model.checkpoint={workplace}/runs/digits/dense.safetensors"
    engine = ("search.engine=processes", "search.workers=2", "search.trials=50")
    process = start("search", "digits", *sets(checkpoint, *engine), cwd=tmp_path)
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if moment in line:
            break
    while len(started := descendants(process.pid)) < 3:  # two workers and Python's resource tracker
        assert process.poll() is None
        time.sleep(0.01)
    if then in (signal.SIGINT, signal.SIGHUP):  # as a terminal sends it: to every process of the group
        for pid in started:
            os.kill(pid, then)
    process.send_signal(then)
    printed += process.communicate()[0]
    while any(is_running(pid) for pid in started):
        time.sleep(0.05)
    if then != signal.SIGKILL:  # a half-started worker of a killed search may complain
        assert "Traceback" not in printed
        assert "Resume with: autoprune resume digits\n" in printed
        assert process.returncode == 128 + then


def test_the_main_job_from_search_to_export(workplace: Path, whole: str) -> None:
    """Search, refuse another model, finetune through a kill, export three ways, load, report."""
    assert "Best: trial" in whole
    records = proposals(workplace, "whole")
    assert all(0.98 <= (record.macs or 0) / (1_123_648 // 4) <= 1.0 for record in records)
    assert_refused(
        run_here("search", "digits", *sets("search.study=whole"), cwd=workplace),
        "has a study of that name already",
    )
    assert_refused(
        run_here("export", "whole", cwd=workplace), "nothing to export yet. Run `autoprune finetune"
    )
    assert_refused(
        run_here("resume", "whole", "--set", "search.sampler=gp", cwd=workplace), "this key cannot change"
    )

    code, out, err = run_here("export", "whole", "--dense", "-o", "dense.onnx", cwd=workplace)
    assert code == 0, err
    assert re.search(r"Wrote dense\.onnx \(onnx, opset \d+\), largest difference to PyTorch", out)
    assert_refused(
        run_here("export", "whole", "--dense", "--format", "safetensors", cwd=workplace),
        "--dense: --format safetensors. Name a study, and one of onnx, pt2",
    )

    printed = send_at("EpochDone(epoch=1,", signal.SIGKILL, "finetune", "whole", cwd=workplace)
    assert "epoch   2/2" not in printed
    code, out, err = run_here("finetune", "whole", cwd=workplace)
    assert code == 0, err
    assert "epoch   1/2" not in out
    assert "pruned" in out
    code, out, _ = run_here("finetune", "whole", cwd=workplace)
    assert code == 0
    assert "the test part is not read again" in out

    for name in ("onnx", "pt2"):
        code, out, err = run_here("export", "whole", "--format", name, "-o", f"small.{name}", cwd=workplace)
        assert code == 0, err
        assert "largest difference to PyTorch" in out
        assert (workplace / f"small.{name}").is_file()
    code, out, err = run_here("export", "whole", "--format", "safetensors", "-o", "small", cwd=workplace)
    assert code == 0, err
    small = autoprune.load_pruned(workplace / "small", lambda: make_model("digits_resnet", 10, 1))
    best = open_study(f"sqlite:///{workplace}/runs/whole.db", "whole").best()
    assert sum(parameter.numel() for parameter in small.parameters()) == best.params
    assert small(torch.zeros(5, 1, 8, 8)).shape == (5, 10)

    models, quick = (
        ("dense.onnx", "small.onnx", "small.pt2", "small"),
        ("--tolerance", "0.9", "--limit", "1", "--trust"),
    )
    code, out, err = run_here("bench", *models, "--batch", "2", *quick, cwd=workplace)
    assert code == 0, err
    assert all(model in out for model in models)
    assert all(word in out for word in ("ratio", "ONNX", "PyTorch"))

    code, out, err = run_here("report", "whole", "-o", "report.png", cwd=workplace)
    assert code == 0, err
    assert (workplace / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "Finetuned: trial" in out
    assert f"is finetuned and exported to {workplace}/small." in out
    assert "Next:" not in out
    code, out, err = run_here("report", "whole", "--html", cwd=workplace)
    assert code == 0, err
    (page,) = re.findall(r"Report in (.*report\.html)\.", out)
    assert f"is finetuned and exported to {workplace}/small." in Path(page).read_text("utf-8")
    refused = run_here("report", "whole", "--html", "-o", "page.png", cwd=workplace)
    assert_refused(refused, "--output page.png: expected a name that ends in .html.")


def test_a_trial_is_picked_within_limits_and_retrained(workplace: Path, whole: str, tmp_path: Path) -> None:
    records = [record for record in proposals(workplace, "whole") if record.is_whole]
    most = sorted(record.params or 0 for record in records)[len(records) // 2]
    within = [record for record in records if (record.params or 0) <= most]
    wanted = max(within, key=lambda record: record.score or 0.0).number
    code, out, err = run_here("best", "whole", "--params", str(most), "--flops", "25%", cwd=workplace)
    assert code == 0, err
    assert f"Best: trial {wanted}" in out
    assert f"Next: autoprune finetune whole --trial {wanted}" in out
    refused = run_here("best", "whole", "--params", "1", cwd=workplace)
    assert_refused(refused, "no complete trial is within --params 1. The smallest: ")
    assert_refused(run_here("best", "whole", "--size", "much", cwd=workplace), "--size: got 'much'")

    quick = ("--set", "finetune.epochs=1", "--set", f"output.folder={tmp_path}")
    code, out, err = run_here("finetune", "whole", "--trial", str(wanted), *quick, cwd=workplace)
    assert code == 0, err
    assert f"Next: autoprune export {tmp_path}/trial-{wanted} --format onnx" in out
    code, out, err = run_here("export", f"{tmp_path}/trial-{wanted}", cwd=workplace)
    assert code == 0, err
    url = copy_of_whole(workplace, tmp_path)
    study = open_study(url, "whole")
    output = {**study.config, "output": {"folder": str(tmp_path)}}
    study.store_config(output)
    study.store_note("autoprune:finetuned", None)  # the copy's own folder holds no finetuned model
    assert_refused(
        run_here("export", "whole", "--storage", url, cwd=workplace),
        f"nothing in {tmp_path}/best yet. Finetuned so far: trial-{wanted}. Export one with `autoprune "
        f"export {tmp_path}/trial-{wanted}`",
    )
    assert_refused(run_here("finetune", "whole", "--trial", "99", cwd=workplace), "whole has trials 0 to 7")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.sampler=kl"], "KL divergence of 6 keep ratios"),
        (
            ["search.sampler=evolution", "search.evolution.population=2", "search.evolution.mutation=0.3"],
            "sampler evolution",
        ),
    ],
)
def test_samplers_with_measurements_or_rates_of_their_own(
    workplace: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    places = (f"search.storage=sqlite:///{tmp_path}/study.db", f"output.folder={tmp_path}")
    code, out, err = run_here(
        "search", "digits", *sets(*places, *overrides, "search.trials=5"), cwd=workplace
    )
    assert code == 0, err
    assert said in out
    records = open_study(f"sqlite:///{tmp_path}/study.db", "digits").records()
    assert [record.origin for record in records].count("sampler") == 4
    assert all(record.score is not None for record in records)


def test_another_model_is_refused_with_the_difference(workplace: Path, whole: str, tmp_path: Path) -> None:
    state = load_file(workplace / "runs" / "digits" / "dense.safetensors")
    state["fc.bias"] += 1
    save_file(state, tmp_path / "other.safetensors")
    other = ("--set", f"model.checkpoint={tmp_path}/other.safetensors", "--set", "search.trials=9")
    assert_refused(run_here("resume", "whole", *other, cwd=workplace), "cannot go on: model (its weights) is")
    assert len(proposals(workplace, "whole")) == TRIALS


def copy_of_whole(workplace: Path, folder: Path) -> str:
    """Copy the finished study; return the copy's URL."""
    with sqlite3.connect(workplace / "runs" / "whole.db") as study, sqlite3.connect(folder / "w.db") as copy:
        study.backup(copy)
    return f"sqlite:///{folder}/w.db"


def test_more_trials_on_worker_processes(workplace: Path, whole: str, tmp_path: Path) -> None:
    url = copy_of_whole(workplace, tmp_path)
    changed = (f"search.trials={TRIALS + 2}", "search.engine=processes", "search.workers=1")
    words = [word for override in changed for word in ("--set", override)]
    code, _, err = run_here("resume", "whole", "--storage", url, *words, cwd=workplace)
    assert code == 0, err
    study = open_study(url, "whole")
    assert study.records()[:TRIALS] == proposals(workplace, "whole")
    assert [record.score is not None for record in study.records()] == [True] * (TRIALS + 2)
    assert study.config["search"]["trials"] == TRIALS + 2


def test_trials_of_another_host_are_named_and_taken_over_on_request(
    workplace: Path, whole: str, tmp_path: Path
) -> None:
    url = copy_of_whole(workplace, tmp_path)
    study = open_study(url, "whole")
    trial = study.ask(TRIALS + 1)
    assert trial is not None
    study.store_fact(trial, "lease", Lease("gone-box", 7, "boot:1").to_json())
    arguments = ("resume", "whole", "--storage", url, "--set", f"search.trials={TRIALS + 1}")
    code, out, err = run_here(*arguments, cwd=workplace)
    assert code == 0, err
    assert f"trials held by other hosts (gone-box): {TRIALS}." in out
    assert f"autoprune resume whole --storage {url} --take-over" in out
    assert open_study(url, "whole").records()[-1].state == "running"
    code, out, err = run_here(*arguments, "--take-over", cwd=workplace)
    assert code == 0, err
    assert "held by other hosts" not in out
    assert open_study(url, "whole").records()[-1].score is not None
