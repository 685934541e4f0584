"""Every sampler proposes criteria along with keep ratios, and repeats itself after a kill."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.samplers import SAMPLERS
from autoprune.space import ChoiceSpace
from tests.samplers.search import Search, kill_somewhere

CRITERIA = ("l1", "obs", "taylor")
CASES = [(name, False) for name in SAMPLERS] + [("tpe", True)]


def search_of(name: str, several: bool) -> Search:
    return Search(name, 3, {"gp": 12, "ddpg": 9}.get(name, 24), several=several, criteria=CRITERIA)


@pytest.mark.parametrize(("name", "several"), CASES)
def test_a_search_of_criteria_repeats_itself_after_kills(name: str, several: bool) -> None:
    search = search_of(name, several)
    proposals = search.run()
    assert search_of(name, several).run(kill_somewhere) == proposals
    space = search.problem
    assert isinstance(space, ChoiceSpace)
    candidates = [space.candidate(np.array(list(each.values()))) for each in proposals]
    assert {name for each in candidates for name in each.criteria.values()} == set(CRITERIA)
    distinct = {(tuple(each.items()), tuple(each.criteria.items())) for each in candidates}
    assert len(distinct) == len(candidates)
