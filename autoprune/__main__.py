"""Makes `python -m autoprune` the same as the command `autoprune`, as torchrun needs it.

Example:
    python -m autoprune search digits
    torchrun --nproc-per-node=2 -m autoprune finetune digits-25
"""

from __future__ import annotations

from autoprune.cli import main

if __name__ == "__main__":
    main()
