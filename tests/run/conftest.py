"""All tests of runs share traces."""

from tests.kept_traces import kept_traces

__all__ = ["kept_traces"]
