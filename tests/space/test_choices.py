"""The searched criterion: a choice for each keep ratio, which costs nothing and names no whole group."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.space import SHARE, Budget, ChoiceSpace, SearchSpace, ShareSpace, SpaceSpec, Tie, build_space
from tests.space.costs import chain, dense_macs, resnet

CRITERIA = ("l1", "obs", "taylor")


def base_space(share: float = 0.5) -> SearchSpace:
    net = resnet(2)
    return build_space(*net, Budget(macs=int(share * dense_macs(net))))


def shared_space() -> SearchSpace:
    net = resnet(2)
    return ShareSpace(build_space(*net, Budget(macs=dense_macs(net))), ["macs"])


def proposals(space: SearchSpace, count: int) -> np.ndarray:
    ladder = space.ladder
    return np.random.default_rng(0).uniform(ladder.low, ladder.high, (count, len(ladder.low)))


@pytest.mark.parametrize("base", [base_space(), shared_space()], ids=["plain", "shares"])
def test_choices_change_no_width_and_settled_proposals_stay(base: SearchSpace) -> None:
    space, count = ChoiceSpace(base, CRITERIA), len(base.variables)
    asked = proposals(space, 20)
    np.testing.assert_array_equal(space.decode(asked), base.decode(asked[:, :count]))
    settled = space.settle(asked)
    np.testing.assert_array_equal(space.settle(settled), settled)
    np.testing.assert_array_equal(space.decode(settled), space.decode(asked))
    for before, after in zip(asked, settled, strict=True):
        assert space.candidate(before) == space.candidate(after)
        assert space.candidate(before).criteria == space.candidate(after).criteria
    ratios = len(base.keep_ratios.variables)
    assert [variable.name for variable in space.variables][: count - ratios] == [SHARE] * (count - ratios)


def test_each_criterion_has_the_same_part_of_the_range() -> None:
    space = ChoiceSpace(base_space(), CRITERIA)
    levels = space.ladder.of_ratios(proposals(space, 3_000))[:, len(space.keep_ratios.variables) :]
    for level in range(3):
        assert (levels == level).mean() == pytest.approx(1 / 3, abs=0.02)


def test_only_narrowed_groups_have_a_criterion_and_a_tie_has_one() -> None:
    net = chain([16, 16, 16])
    tie = Tie("late", tuple(group.name for group in net[0][1:3]))
    spec = SpaceSpec(ties=(tie,))
    space = ChoiceSpace(build_space(*net, Budget(macs=int(0.9 * dense_macs(net))), spec), CRITERIA)
    wholes = 0
    for ratios in proposals(space, 50):
        candidate = space.candidate(ratios)
        narrowed = {name for name, width in candidate.items() if width < 16}
        assert candidate.criteria.keys() == narrowed & {
            name for each in space.variables for name in each.groups
        }
        assert len({candidate.criteria[name] for name in tie.groups if name in narrowed}) <= 1
        wholes += len(narrowed) < len(space.keep_ratios.variables)
    assert wholes > 0


def test_a_warm_start_has_the_first_criterion() -> None:
    space = ChoiceSpace(base_space(), CRITERIA)
    widths = space.keep_ratios.decode(proposals(space.keep_ratios, 1)[0])
    candidate = space.candidate(space.encode(widths))
    np.testing.assert_array_equal(list(candidate.values()), widths)
    assert set(candidate.criteria.values()) == {"l1"}


def test_a_candidate_goes_to_a_worker_with_its_criteria() -> None:
    space = ChoiceSpace(base_space(), CRITERIA)
    candidate = space.candidate(proposals(space, 1)[0])
    sent = pickle.loads(pickle.dumps(candidate))
    assert (sent, sent.criteria) == (candidate, candidate.criteria)


def test_a_tie_of_the_name_of_a_choice_is_refused() -> None:
    net = chain([16, 16, 16])
    names = [group.name for group in net[0]]
    spec = SpaceSpec(ties=(Tie(f"{names[1]}: criterion", (names[2],)),))
    with pytest.raises(ConfigError, match="is the name of a searched criterion"):
        ChoiceSpace(build_space(*net, Budget(macs=dense_macs(net) // 2), spec), CRITERIA)
