"""Shows the progress of long verbs in a terminal, in a notebook or as plain lines.

Example:
    with watching(True) as watch:               # a bar where there is a terminal or a notebook
        watch(Counted("moments", 128, 512))
    with Screen(console) as watch:              # on a console of your own
        ...
"""

from __future__ import annotations

from autoprune.progress._screen import Screen
from autoprune.progress._times import time_text
from autoprune.progress._watching import GIVEN_WATCH, Watch, watching

__all__ = ["GIVEN_WATCH", "Screen", "Watch", "time_text", "watching"]
