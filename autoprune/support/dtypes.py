"""The number formats that models are trained in, scored in and timed in, by the names that users write.

Before: a config's names; after: `precision` computes in them under autocast, the parameters staying float32;
`latency` converts parameters and inputs to them, as a deployed model's are.

    DTYPES["bfloat16"]      # torch.bfloat16
"""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
