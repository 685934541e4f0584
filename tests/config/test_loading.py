"""Reading a run's configuration: defaults, overrides and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.config import load_config
from autoprune.config._loading import embedded_configs
from autoprune.errors import ConfigError

MINIMAL = {"model": {"name": "resnet20"}, "data": {"name": "digits"}, "budget": {"flops": "50%"}}


def test_three_sections_suffice() -> None:
    config = load_config(MINIMAL)
    assert (config.search.sampler, config.search.trials, config.search.engine) == ("gp", 60, "serial")
    assert (config.task.loss, config.task.metric, config.finetune.teacher) == (
        "cross_entropy",
        "accuracy",
        "dense",
    )


def test_the_embedded_default_is_read_by_name() -> None:
    assert "digits" in embedded_configs()
    assert load_config("digits").data.name == "digits"


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[model]\nname = "resnet20"\n[budget]\nmacs = "20M"\n[search]\ntrials = 5\n')
    config = load_config(path, ["search.trials=9", "search.sampler=random", "score.rungs=['calibrate']"])
    assert (config.search.trials, config.search.sampler) == (9, "random")
    assert config.score.rungs == ("calibrate",)
    assert config.budget.macs == "20M"


def test_overrides_leave_the_mapping_alone() -> None:
    source = {"search": {"trials": 5}}
    load_config(source, ["search.trials=9"])
    assert source == {"search": {"trials": 5}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("serch.trials=8", r'unknown section "serch"\. Did you mean "search"\?'),
        ("search.trails=8", r'\[search\]: unknown key "trails"\. Did you mean "trials"\?'),
        ("search.xyz=8", r"\[search\]: unknown key \"xyz\"\. Known: sampler, trials, objectives"),
        ("search.trials=many", r"search\.trials: got 'many', expected an integer >= 1 and <= 1,000,000\."),
        ("search.trials=0", r"search\.trials: got 0, expected an integer >= 1 and <= 1,000,000\."),
        (
            "search.trials=1000000000000000000000000000000",
            r"search\.trials: got 10+, expected an integer >= 1",
        ),
        (f"search.trials={'9' * 5000}", r"--set search\.trials=9+\.\.\.: cannot be read \(Exceeds the limit"),
        (
            f"search.trials={'[' * 3000}",
            r"--set search\.trials=\[+\.\.\.: .* \(its lists or tables are nested",
        ),
        ("search.trials=3\nother=4", r"--set search\.trials=3\nother=4: got 2 assignments, expected one"),
        ("search.trials=3\nfour", r"got several lines, expected one value"),
        ("search.workers=100000", r"search\.workers: got 100000, expected an integer >= 1 and <= 1,024"),
        ("latency.limit_seconds=1e300", r"limit_seconds: got 1e\+300, expected a number > 0 and <= 86,400"),
        (
            "output.folder=a\0b",
            r"output\.folder: got 'a\\x00b', expected a string of at most 4,096 printable",
        ),
        ("model.name=\x1b[31m", r"model\.name: got '\\x1b\[31m', expected a string of at most"),
        ("model.name=\udcff", r"model\.name: got '\\udcff', expected a string of at most"),
        (f"model.name={'x' * 5000}", r"model\.name: got 'x{30,100}\.\.\.x+', expected a string of at most"),
        ('model.frozen=["a\\u0000"]', r"model\.frozen: got 'a\\x00', expected a list of strings"),
        (
            "score.rungs=[]",
            r'score\.rungs: got \[\], expected a list of strings \(\["a", "b"\]\) of length >= 1\.',
        ),
        (
            "search.warm_starts=[uniform]",
            r"got '\[uniform\]', expected a list of strings \(\[\"a\", \"b\"\]\)\.",
        ),
        ("race.learning_rates=0.1", r"learning_rates: got 0\.1, expected a list of positive numbers"),
        ("budget.flops=[1]", r"budget\.flops: got \[1\], expected a share such as \"50%\" or an amount"),
        ("data.val_fraction=1.0", r"data\.val_fraction: got 1\.0, expected a number > 0 and < 1\."),
        ("finetune.teacher=me", r'finetune\.teacher: got \'me\', expected one of "dense", "none"\.'),
        (
            "search.storage={url = 'mysql://me:secret@host/db'}",
            r"search\.storage: got \{'url': 'mysql://me:\*\*\*@host/db'\}, expected a string of",
        ),
        ("model.checkpoint=3", r"model\.checkpoint: got 3, expected a string of at most 4,096 printable"),
        (
            "search.seed=99999999999999999999999",
            r"search\.seed: got 9+, expected an integer >= 0 and < 4,294,967,296",
        ),
        ("data.seed=4294967296", r"data\.seed: got 4294967296"),
        (
            "score.learning_rate=inf",
            r"score\.learning_rate: got inf, expected a number > 0 and <= 1,000,000\.",
        ),
        (
            "finetune.temperature=nan",
            r"finetune\.temperature: got nan, expected a number > 0 and <= 1,000,000\.",
        ),
        ("budget.flops=true", r"budget\.flops: got True, expected a share such as \"50%\""),
        ("budget.macs=inf", r"budget\.macs: got inf"),
        ("search.trials=true", r"search\.trials: got True, expected an integer"),
        ("train.learning_rate=true", r"train\.learning_rate: got True, expected a number"),
        ("data.augment=1", r"data\.augment: got 1, expected true or false"),
        ("search.evolution.population=1", r"search\.evolution\.population: got 1, expected an integer >= 2"),
        (
            "search.evolution.crossover=2.0",
            r"evolution\.crossover: got 2\.0, expected a number >= 0 and <= 1",
        ),
        ("search=3", r"expected section\.key=value"),
        ("a.b.c.d=3", r"expected section\.key=value"),
        ("score=", r"expected section\.key=value"),
        ("score.supernet.epochs=0", r"score\.supernet\.epochs: got 0, expected an integer >= 1 and"),
        (
            "supernet.budget_share=1.5",
            r"supernet\.budget_share: got 1\.5, expected a number >= 0 and <= 1",
        ),
        ("supernet.subnet=1", r'\[score\.supernet\]: unknown key "subnet"\. Did you mean "subnets"\?'),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_a_mistake_gets_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(MINIMAL, [override])
    assert "\n" not in str(caught.value).replace(override, "")
    assert len(str(caught.value)) < 500


def test_a_value_of_several_lines_is_one_assignment() -> None:
    command = "latency.command='''./time\n{onnx}'''"
    assert load_config(MINIMAL, [command]).latency.command == "./time\n{onnx}"
    assert load_config(MINIMAL, ["search.trials=3  # a few"]).search.trials == 3


def test_a_score_can_be_one_word(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('score = "supernet"\n[model]\nname = "resnet20"\n[supernet]\nepochs = 3\n')
    config = load_config(path)
    assert (config.score.rungs, config.score.supernet.epochs) == (("supernet",), 3)
    changed = load_config(path, ["score.calibration_batches=5"])
    assert (changed.score.rungs, changed.score.calibration_batches) == (("supernet",), 5)
    table = {**MINIMAL, "score": {"calibration_batches": 7, "rungs": ["calibrate"]}}
    for override in ("score=supernet", 'score = "supernet"', "score.rungs=['supernet']"):
        overridden = load_config(table, [override])
        assert (overridden.score.rungs, overridden.score.calibration_batches) == (("supernet",), 7)


def test_a_section_that_is_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search: got 3, expected a section \[search\]"):
        load_config({"search": 3})
    with pytest.raises(ConfigError, match=r"search: got 3, expected a section \[search\]"):
        load_config({"search": 3}, ["search.trials=3"])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such config file\. Embedded configs: digits"):
        load_config("nowhere.toml")
    with pytest.raises(ConfigError, match=r'digit: no such config file\. Did you mean "digits"\?'):
        load_config("digit")
    broken = tmp_path / "broken.toml"
    broken.write_text("[search\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        load_config(broken)
    with pytest.raises(ConfigError, match="cannot be read as a config file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"config file \(it is a folder, expected a regular file\)"):
        load_config(tmp_path)
