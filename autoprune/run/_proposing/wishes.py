"""The answers from which `autoprune init` makes a config: a model, data, a budget and a device.

Example:
    Wishes(model="resnet18", data="flowers", budget=("flops 50%",)).sections()
    # {"model": {"name": "resnet18"}, "data": {"name": "folder", "folder": "flowers"}, ...}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.config import Profile, find_profile
from autoprune.config.settings import BudgetSettings
from autoprune.cost import LATENCY, budget_keys
from autoprune.data import DATASETS
from autoprune.errors import ConfigError, shown_value, suggest, unknown
from autoprune.run._resolving.budget_amounts import check_amounts
from autoprune.zoo import PREFIX, model_names

_LIMIT = re.compile(r"(?:(?P<key>[a-z_-]+)\s*[ =<]+\s*)?(?P<amount>[0-9.].*)", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """What a user wants to prune, and how far.

    Attributes:
        model: a name, or a function "module:function" that makes the model.
        data: a named data set, the path of a folder of images, or a function "module:function".
        budget: limits, such as "flops 50%", "50%" or "latency 5 ms".
        checkpoint: a file of trained weights, or None.
        weights: the name of trained weights of torchvision or timm, or None.
        image_size: pixels a side for a folder of images, or None to choose it.
        device: the device of the search.
        profile: the length of the search.
        saw_validation: whether scores on images of the training are accepted.
    """

    model: str
    data: str
    budget: tuple[str, ...]
    checkpoint: str | None = None
    weights: str | None = None
    image_size: int | None = None
    device: str = "auto"
    profile: str = "balanced"
    saw_validation: bool = False

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return the sections of a config that follow from the answers alone.

        Raises:
            ConfigError: an answer is no model, no data, no limit or no profile.
        """
        profile = read_profile(self.profile).sections
        return {
            "model": read_model(self.model) | _given(checkpoint=self.checkpoint, weights=self.weights),
            "data": read_data(self.data) | _given(image_size=self.image_size) | profile.get("data", {}),
            "budget": read_budget(self.budget),
            **{name: each for name, each in profile.items() if name != "data"},
            "search": {"device": self.device, **profile["search"]},
        }


def read_model(answer: str) -> dict[str, Any]:
    """Return the keys of [model] for a name or a function.

    Raises:
        ConfigError: there is no such name. The message suggests the nearest one.
    """
    if ":" in answer:
        return {"factory": answer}
    if answer.startswith(PREFIX):
        return {"name": answer}
    names = model_names()
    if answer in names:
        return {"name": answer}
    hint = suggest(answer, names) or " `autoprune guide config` lists the names of the zoo."
    raise ConfigError(
        f'--model: unknown model "{answer}". Expected a name of the zoo or of torchvision, {PREFIX}NAME, or '
        f'"module:function" for a function of your own that returns the model.{hint}'
    )


def read_data(answer: str) -> dict[str, Any]:
    """Return the keys of [data] for a named set, a folder of images or a function.

    Raises:
        ConfigError: it is none of these.
    """
    if answer in DATASETS and not DATASETS[answer].streams:
        return {"name": answer}
    if Path(answer).expanduser().is_dir():
        return {"name": "folder", "folder": answer}
    if ":" in answer:
        return {"loaders": answer}
    named = [name for name, row in DATASETS.items() if not row.streams]
    raise ConfigError(
        f'--data: "{answer}" is no folder and no data set. Expected one of {", ".join(named)}, the path of a '
        'folder with train/ and val/, or "module:function" for a function of your own that returns '
        f"loaders.{suggest(answer, named)}"
    )


def read_budget(answers: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys of [budget] for limits such as "flops 50%". A bare share limits the FLOPs.

    Raises:
        ConfigError: a limit cannot be read.
    """
    limits: dict[str, Any] = {}
    for answer in answers:
        found = _LIMIT.fullmatch(answer.strip())
        if found is None:
            raise ConfigError(
                f'--budget: got {shown_value(answer)}, expected a limit such as "flops 50%", "params 2M" or '
                '"latency 5 ms".'
            )
        amount = found["amount"].strip()
        latency = LATENCY.removesuffix("_ms")
        unit = amount.lstrip("0123456789_,. ").lower()
        usual = latency if unit in budget_keys()[latency].unit.suffixes else "flops"
        key = (found["key"] or usual).lower().replace("-", "_")
        if key not in budget_keys():
            raise ConfigError(unknown("--budget", key, budget_keys(), kind="cost"))
        limits[key] = amount
    check_amounts(BudgetSettings(**limits))
    return limits


def read_profile(answer: str) -> Profile:
    """Return the profile of a config to write.

    Raises:
        ConfigError: there is no such profile, or it is that of a trial run.
    """
    profile = find_profile(answer, "--profile")
    if profile.is_trial_run:
        raise ConfigError(
            f'--profile: "{answer}" is a trial run, not a length of the search that the config describes. '
            "Give --smoke to try the config after it is written."
        )
    return profile


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
