"""Imports packages that a single feature needs, and that `pip install autoprune` alone does not bring.

Example:
    pandas = load_extra("pandas", extra="plotly", purpose="a data frame of trials")
"""

from __future__ import annotations

import importlib
from typing import Any

from autoprune.errors import ConfigError, reason_of


def load_extra(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: the extra of this package that installs it.
        purpose: the feature that needs it, which starts the message.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f'{purpose} needs the package {package} ({reason_of(error)}): pip install "autoprune[{extra}]".'
        ) from None
