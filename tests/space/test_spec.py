"""Reading search spaces from TOML, and the files that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune import zoo
from autoprune.errors import BudgetError, ConfigError
from autoprune.space import Budget, Override, SpaceSpec, Tie, build_space, load_spec, tie_stages
from autoprune.tracing import trace
from tests.space.costs import chain, dense_macs
from tests.support.test_files import SPECIAL

SHIPPED = Path(__file__).parents[2] / "search_spaces"
MODELS = {
    "resnet20": ("resnet20", 32),
    "resnet56": ("resnet56", 32),
    "vgg16_bn": ("vgg16_bn", 32),
    "densenet40": ("densenet40", 32),
    "mobilenet_v3": ("mobilenet_v3_small", 64),
}


def test_a_file_reads_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        'low = 0.2\ndivisor = 4\nskip = ["fc"]\n'
        '[[tie]]\nname = "stem"\ngroups = ["conv*"]\n'
        '[[override]]\ngroups = ["layer3.*"]\nhigh = 0.5\n'
    )
    assert load_spec(path) == SpaceSpec(
        low=0.2,
        divisor=4,
        skip=("fc",),
        ties=(Tie("stem", ("conv*",)),),
        overrides=(Override(("layer3.*",), high=0.5),),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("divisr = 4", 'unknown key "divisr". Did you mean "divisor"'),
        ("low = 0.0", "expected 0 < low <= high <= 1"),
        ("divisor = 0", "divisor: got 0, expected an integer >= 1"),
        ('divisor = "auto"', 'write search.divisor = "auto" in the run'),
        ('divisor = "4"', "divisor: got '4', expected int"),
        ("skip = [1]", "expected a list of strings"),
        ('[[tie]]\ngroups = ["a"]', "the key name is missing"),
        ('[[tie]]\nname = "a"\ngroups = []', "tie: groups is empty, expected the names"),
        ("[[override]]\ngroups = []\nlow = 0.5", "override: groups is empty"),
        ('[[override]]\ngroups = ["a"]\nlow = 2.0', "expected 0 < low <= high <= 1"),
        ('[[override]]\ngroups = ["a"]\nlow = 0', "expected 0 < low <= high <= 1"),
        ('[[override]]\ngroups = ["a"]\nhigh = 0', "expected 0 < low <= high <= 1"),
        ("tie = [1]", "tie: got 1, expected a table of keys"),
        ('override = ["conv1"]', "override: got .conv1., expected a table of keys"),
        ("tie = " + "[" * 5_000 + "]" * 5_000, "nested too deep"),
        ("floor = " + "9" * 4_000, "floor: got an integer of"),
        ("low = nan", "expected 0 < low <= high <= 1"),
        ("low = ", "not valid TOML"),
    ],
)
def test_mistakes_get_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_spec(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_spec(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SpaceSpec(ties=(Tie("conv0", ("conv[12]",)),)), "conv0 is a group outside that tie"),
        (SpaceSpec(ties=(Tie("a", ("conv0",)), Tie("a", ("conv1",)))), "a names two ties"),
        (
            SpaceSpec(overrides=(Override(("conv*",), high=0.4), Override(("conv1",), low=0.5))),
            r"those that match conv1 give low 0\.5 and high 0\.4",
        ),
    ],
)
def test_what_would_change_other_groups_than_it_names_is_refused(spec: SpaceSpec, message: str) -> None:
    net = chain([16, 32, 32])
    with pytest.raises(ConfigError, match=message):
        build_space(*net, Budget(macs=dense_macs(net) // 2), spec)


def test_a_tie_may_have_the_name_of_a_group_in_it() -> None:
    net = chain([16, 32, 32])
    spec = SpaceSpec(ties=(Tie("conv1", ("conv[12]",)),))
    space = build_space(*net, Budget(macs=dense_macs(net) // 2), spec)
    assert [variable.groups for variable in space.variables] == [("conv0",), ("conv1", "conv2")]


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(BudgetError, match="expected macs or params of at least 1"):
        Budget()


def test_every_shipped_space_has_a_model_here() -> None:
    assert {path.stem for path in SHIPPED.glob("*.toml")} == set(MODELS)


LARGE = ("densenet40", "mobilenet_v3", "resnet56")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in MODELS],
)
def test_shipped_spaces_fit_their_models(family: str) -> None:
    name, size = MODELS[family]
    model = zoo.make_model(name, classes=10)
    prunable = trace(model, torch.randn(1, 3, size, size))
    dense = int(np.asarray(prunable.cost().macs))
    for share in (0.5, 0.25):
        budget = Budget(macs=int(share * dense))
        space = build_space(prunable.groups, prunable.cost, budget, load_spec(SHIPPED / f"{family}.toml"))
        low, high = (np.array([getattr(v, end) for v in space.variables]) for end in ("low", "high"))
        widths = space.decode(np.random.default_rng(0).uniform(low, high, (20, len(low))))
        usage = space.usage(widths)
        assert ((usage >= 0.98) & (usage <= 1)).all()
        np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_space_that_is_no_file_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = SPECIAL[kind]
    make(Path("space.toml"))
    with pytest.raises(ConfigError, match=message):
        load_spec("space.toml")


def test_the_groups_of_a_stage_share_one_ratio_unless_the_space_overrides_it() -> None:
    stages = {(28, 28): ("a", "b", "c", "d"), (14, 14): ("e", "f"), (7, 7): ("g",), (): ("h", "i")}
    spec = tie_stages(SpaceSpec(skip=("a",), ties=(Tie("mine", ("b", "f")),)), stages)
    assert spec.ties == (
        Tie("mine", ("b", "f")),
        Tie("stage 28x28", ("c", "d")),
        Tie("stage of vectors", ("h", "i")),
    )
