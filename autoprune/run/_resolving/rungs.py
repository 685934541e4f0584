"""Parses the rungs that [score] names.

Example:
    parse_rungs(ScoreSettings(rungs=("calibrate", "50 steps")))[1].steps     # 50
"""

from __future__ import annotations

import re

from autoprune.config.rungs import RUNGS
from autoprune.config.settings import MOST, ScoreSettings
from autoprune.errors import ConfigError, suggest
from autoprune.score import Rung
from autoprune.support.rows import quoted

_FINETUNE = re.compile(r"([0-9]{1,7}) +(step|epoch)s?")


def parse_rungs(settings: ScoreSettings) -> tuple[Rung, ...]:
    """Parse rungs such as "calibrate", "repair", "supernet" or "50 steps", from cheap to expensive.

    Each finetune continues the one before it, with its own optimiser and schedule, so every finetune makes
    the whole training longer. Rungs that train nothing make sense only before the first finetune.

    Raises:
        ConfigError: a rung is unknown, or a rung that trains nothing follows one that `RUNGS` does not allow.
    """
    rungs: list[Rung] = []
    for text in settings.rungs:
        name = text.strip()
        if name in RUNGS:
            if rungs and rungs[-1].name not in RUNGS[name].follows:
                behind = "".join(f', or follow "{each}"' for each in RUNGS[name].follows)
                raise ConfigError(
                    f'score.rungs: got "{name}" after "{rungs[-1].name}". Rungs go from cheap to '
                    f'expensive, so "{name}" can only be the first{behind}.'
                )
            rungs.append(Rung(name))
            continue
        found = _FINETUNE.fullmatch(name)
        if found is None or int(found[1]) > MOST:
            raise ConfigError(
                f'score.rungs: got "{text}", expected {quoted(RUNGS)}, or a finetune of at most '
                f'{MOST:,} steps or epochs, such as "50 steps".{suggest(name, RUNGS)}'
            )
        length, in_steps = int(found[1]), found[2] == "step"
        rungs.append(Rung(text, steps=length if in_steps else None, epochs=None if in_steps else length))
    return tuple(rungs)
