"""Makes `python -m autoprune` the same as the command `autoprune`.

Before: the interpreter; after: `cli`.

    python -m autoprune search digits
"""

from __future__ import annotations

from autoprune.cli import main

if __name__ == "__main__":
    main()
