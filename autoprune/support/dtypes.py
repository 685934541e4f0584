"""Number formats by the names that users write.

Training uses them under autocast, with float32 parameters. Latency probes convert parameters and inputs.

    DTYPES["bfloat16"]      # torch.bfloat16
"""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
