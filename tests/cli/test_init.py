"""`autoprune init` as a user runs it: with flags, with answers in a terminal, and with each usual fault."""

from __future__ import annotations

import io
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from autoprune.config import load_config, parse_settings
from autoprune.errors import ConfigError
from autoprune.run import read_budget
from autoprune.run._proposing.commented_config import write_commented
from tests.test_cli import run_here

CLASSES = ("circle", "cross", "dot")


class Net(nn.Module):
    """A small net, for three classes unless it is given another number."""

    def __init__(self, classes: int = 3, in_channels: int = 3) -> None:
        super().__init__()
        first = [nn.Conv2d(in_channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()]
        self.body = nn.Sequential(*first, nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def net(classes: int, in_channels: int) -> nn.Module:
    return Net(classes, in_channels)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images whose class is their colour."""
    folder = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 24), ("val", 8)):
        for place, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                colour = [40, 40, 40 + number]
                colour[place] = 220
                Image.new("RGB", (20, 16), tuple(colour)).save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.save(Net(5).state_dict(), tmp_path / "five.pt")
    return tmp_path


def init(*words: str, cwd: Path) -> tuple[int, str, str]:
    return run_here("init", *words, cwd=cwd)


def answer(*lines: str, cwd: Path, words: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run `init` in a terminal, in which these lines are typed."""
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal, pytest.MonkeyPatch.context() as patched:
        os.write(master, "".join(f"{line}\n" for line in lines).encode())
        patched.setattr("sys.stdin", terminal)
        result = init(*words, cwd=cwd)
    os.close(master)
    return result


OWN = f"{__name__}:net"


def test_flags_give_a_commented_config_for_a_model_and_a_folder_of_ones_own(
    place: Path, pictures: Path
) -> None:
    words = ("--model", OWN, "--checkpoint", "five.pt", "--data", str(pictures), "--budget", "flops 50%")
    code, out, err = init("run.toml", *words, "--profile", "thorough", cwd=place)
    assert code == 0, err
    text = (place / "run.toml").read_text("utf-8")
    values = tomllib.loads(text)
    assert values["model"] == {"factory": OWN, "checkpoint": "five.pt", "new_head": True}
    assert values["data"] == {"name": "folder", "folder": str(pictures), "image_size": 16, "batch_size": 8}
    assert values["budget"] == {"flops": "50%"}
    assert values["search"]["trials"] == load_config({"search": {"profile": "thorough"}}).search.trials
    assert values["train"] == {"when_missing": True}
    parse_settings(values)
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            assert lines[number - 1].startswith("# "), line
    assert "The weights are for another number of classes than the 3 of the data: head is replaced" in out
    assert "72 training, 24 validation images of 3 x 16 x 16, 3 classes" in out
    assert re.search(r"On this machine: The training .* takes about .*200 trials take about", out)
    assert out.splitlines()[-1] == "Wrote run.toml. Next: autoprune search run.toml"


def test_answers_in_a_terminal_are_asked_again_until_they_are_right(place: Path) -> None:
    typed = (
        "digits_resnt",
        "digits_resnet",
        "",
        "digit",
        "digits",
        "flps 50%",
        "params 40%",
        "tpu",
        "cpu",
        "",
    )
    code, out, err = answer(*typed, cwd=place)
    assert code == 0, err
    assert 'unknown model "digits_resnt"' in out
    assert 'Did you mean "digits_resnet"?' in out
    assert '"digit" is no folder and no data set' in out
    assert 'unknown cost "flps"' in out
    values = tomllib.loads((place / "autoprune.toml").read_text("utf-8"))
    assert values["model"]["name"] == "digits_resnet"
    assert values["budget"] == {"params": "40%"}
    assert values["search"]["device"] == "cpu"
    assert "tpu" in out
    assert values["train"] == {"when_missing": True}
    assert "The model is trained first: no trained weights were named." in out


def test_questions_stay_out_of_a_document(place: Path) -> None:
    words = ("--json", "--data", "digits", "--budget", "50%", "--checkpoint", "none.pt", "--device", "cpu")
    typed = ("digits_resnt", "digits_resnet", "smoke", "thorough")
    code, out, err = answer(*typed, cwd=place, words=words)
    assert code == 2
    assert out == ""
    assert "Model (a name, or module:function)" in err
    assert 'unknown model "digits_resnt"' in err
    assert '"smoke" is a trial run' in err


def test_the_end_of_the_input_stops_it(place: Path) -> None:
    code, out, _ = answer("resnet20", "\x04", cwd=place)
    assert code == 130
    assert "Stopped: nothing is written." in out
    assert not (place / "autoprune.toml").exists()


def refused(result: tuple[int, str, str], message: str) -> None:
    code, _, err = result
    assert code == 2
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) == 1


def test_without_a_terminal_it_names_the_missing_flags(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("digits\n"))
    refused(init("--data", "digits", cwd=place), "missing --model and --budget. Give them, or run init in a")
    assert sorted(each.name for each in place.iterdir()) == ["five.pt"]


def test_an_existing_file_is_overwritten_only_by_force(place: Path) -> None:
    words = ("--model", "digits_resnet", "--data", "digits", "--budget", "50%")
    (place / "run.toml").write_text("mine", "utf-8")
    refused(init("run.toml", *words, cwd=place), "run.toml: exists already.*--force")
    assert (place / "run.toml").read_text("utf-8") == "mine"
    assert init("run.toml", *words, "--force", cwd=place)[0] == 0
    assert load_config(place / "run.toml").budget.flops == "50%"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--model": "resnet19"}, r'unknown model "resnet19".*Did you mean "resnet'),
        ({"--data": "flowers"}, r'--data: "flowers" is no folder and no data set'),
        ({"--budget": "much"}, r"--budget: got 'much', expected a limit such as"),
        ({"--budget": "macs 900T"}, r"budget\.macs"),
        ({"--budget": "flops 0.01%"}, r"budget\.flops"),
        ({"--checkpoint": "none.pt"}, r"none\.pt: there is no such file"),
        ({"--profile": "quick"}, r'--profile: unknown profile "quick"'),
        ({"--profile": "smoke"}, r'--profile: "smoke" is a trial run.*Give --smoke'),
        ({"--device": "tpu"}, r"search\.device"),
        ({"--image-size": "0"}, r"image_size"),
    ],
)
def test_a_mistake_ends_in_one_line_and_no_file(
    changes: dict[str, str], message: str, place: Path, pictures: Path
) -> None:
    words = {"--model": OWN, "--data": str(pictures), "--budget": "50%", **changes}
    refused(init(*(part for pair in words.items() for part in pair), cwd=place), message)
    assert sorted(each.name for each in place.iterdir()) == ["five.pt"]


def raw() -> tuple[list[Any], list[Any]]:
    """Return loaders of unnormalised images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 16, 16), generator=generator).float()
    return (
        [(images[:32], torch.arange(32) % 3), (images[32:], torch.arange(32) % 3)],
        [(images, torch.arange(64) % 3)],
    )


def test_unnormalised_images_are_found(place: Path) -> None:
    torch.save(Net(3).state_dict(), place / "three.pt")
    words = ("--model", OWN, "--checkpoint", "three.pt", "--data", f"{__name__}:raw", "--budget", "50%")
    refused(init(*words, cwd=place), "Pixels go from 0 to 255: divide the images by 255 and normalise them")


def test_weights_that_may_have_seen_the_validation_part_need_consent(place: Path) -> None:
    torch.save(Net(10, 1).state_dict(), place / "ten.pt")
    words = ("--model", OWN, "--checkpoint", "ten.pt", "--data", "digits", "--budget", "50%")
    code, out, err = init("run.toml", *words, cwd=place)
    assert code == 0, err
    assert "A search will refuse this: data:" in out
    assert "If it is trained: check the size, channels" in out
    assert load_config(place / "run.toml").data.checkpoint_saw_validation is False
    assert init("run.toml", *words, "--saw-validation", "--force", cwd=place)[0] == 0
    assert load_config(place / "run.toml").data.checkpoint_saw_validation is True


@pytest.mark.slow
def test_a_trial_run_follows_at_once(place: Path, pictures: Path) -> None:
    words = ("--model", OWN, "--checkpoint", "five.pt", "--data", str(pictures), "--budget", "flops 50%")
    code, out, err = init("run.toml", *words, "--smoke", cwd=place)
    assert code == 0, err
    assert "The trial run passed" in out
    assert sorted(each.name for each in place.iterdir()) == ["five.pt", "run.toml"]


def test_limits_are_read_as_people_write_them() -> None:
    assert read_budget(("flops 50%", "latency = 5 ms")) == {"flops": "50%", "latency": "5 ms"}
    assert read_budget(("40%",)) == {"flops": "40%"}
    assert read_budget(("3.5ms",)) == read_budget(("latency 3.5ms",)) == {"latency": "3.5ms"}
    with pytest.raises(ConfigError, match=r"budget\.flops: .*20 MFLOPs"):
        read_budget(("20 MFLOPs",))
    assert read_budget(("params<=2M", "peak-memory 1 MB")) == {"params": "2M", "peak_memory": "1 MB"}


def test_comments_are_wrapped_and_say_nothing_about_empty_sections() -> None:
    text = write_commented({"a": {"x": 1}, "b": {}}, {"a": "first", "a.x": "word " * 40}, heading="Head.")
    assert tomllib.loads(text) == {"a": {"x": 1}}
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("# Head.\n\n[a]\n# first\n# word word")
