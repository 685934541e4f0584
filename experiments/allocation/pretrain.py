"""Train the dense net of signals.py.

    python -m experiments.allocation.pretrain

Writes signals.safetensors.
"""

from __future__ import annotations

from autoprune import run
from experiments.allocation.setups import spec_of

if __name__ == "__main__":
    run.train(config=spec_of("flops"), watch=print)
