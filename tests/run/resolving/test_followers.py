"""Functions under torchrun: other processes load the data of process 0, and a search refuses to run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import autoprune
from autoprune.errors import ConfigError
from autoprune.execution import ALONE
from autoprune.run import RunSpec
from autoprune.run._resolving.dense import given_dense
from autoprune.run._resolving.together import _loaded, _Opening
from autoprune.support.userfunction import current_imports
from tests.models import Residual


def in_a_dict(batch: dict[str, Any]) -> tuple[Any, Any]:
    return batch["image"], batch["label"]


def test_a_follower_prepares_the_batches_of_a_script_as_process_0_does() -> None:
    batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 3])}
    spec = RunSpec.of({"budget": {"flops": "50%"}, "task": {"prepare": f"{__name__}:in_a_dict"}})
    first = given_dense(Residual(), ([batch], [batch]), spec)
    assert first is not None
    other = _loaded(ALONE, _Opening(spec, current_imports()), ([batch], [batch]))
    assert other.fingerprint == first.data.fingerprint


@pytest.mark.parametrize("verb", ["search", "resume", "prune"])
def test_a_verb_that_processes_do_not_share_refuses_to_run_in_each_of_them(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in {**variables, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    given = {"study": "s"} if verb == "resume" else {"config": "digits"}
    with pytest.raises(ConfigError, match=f"^{verb}: torchrun started 2 processes. Run it without torchrun"):
        getattr(autoprune, verb)(**given)
