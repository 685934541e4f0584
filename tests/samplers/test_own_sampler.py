"""A sampler of the user's own, as the docstring of `autoprune.samplers` shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune import samplers
from autoprune.config import load_config
from autoprune.errors import ConfigError
from autoprune.run._checks.checks import check_names
from autoprune.run._resolving.spec import RunSpec
from autoprune.samplers import EvolutionRates, check_sampler, find_sampler
from tests.own_rows import install_example, tiny_search
from tests.samplers.search import Search, kill_somewhere


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return install_example(samplers, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["wide", "make_wide"])
def test_it_repeats_its_proposals_wherever_the_search_is_killed(module: str, name: str) -> None:
    whole = Search(f"{module}:{name}", 4, 20)
    killed = Search(f"{module}:{name}", 4, 20)
    assert killed.run(kill_somewhere) == whole.run()
    assert find_sampler(f"{module}:{name}").learns_from_pruned == (name == "wide")


def test_traits_of_a_spec_count(module: str) -> None:
    check_sampler(f"{module}:wide", 2, EvolutionRates(), 20)
    with pytest.raises(ConfigError, match=r'make_wide" takes one .* "random", "tpe", "gp", "nsga2"'):
        check_sampler(f"{module}:make_wide", 2, EvolutionRates(), 20)


def test_a_config_names_it(module: str) -> None:
    result = tiny_search(sampler=f"{module}:wide")
    assert [record.origin for record in result.summary.records] == ["sampler", "sampler"]
    assert len({tuple(record.widths.values()) for record in result.summary.records}) == 2


BROKEN = """
from optuna.samplers import RandomSampler
from autoprune.samplers import SamplerSpec

class Broken(RandomSampler):
    def sample_relative(self, study, trial, search_space):
        raise ValueError("no idea")

def number(context): return 3
def broken(context): return Broken()
def exits(context): raise SystemExit
unknown = SamplerSpec(broken, needs=("kll",))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "number\" failed: TypeError: it gave an int, expected a sampler of Optuna's"),
        ("exits", 'exits" failed: SystemExit'),
        ("broken", 'broken" failed: ValueError: no idea'),
        ("missing", 'module "broken_samplers" has no "missing"'),
    ],
)
def test_its_errors_are_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "broken_samplers.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        Search(f"broken_samplers:{name}", 4, 2).run()


def test_a_statistic_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_samplers.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r'needs a statistic: unknown name "kll"\. Did you mean "kl"'):
        check_names(RunSpec.of(load_config("digits", ["search.sampler=broken_samplers:unknown"])))
