"""The costs of a candidate, computed from its widths alone: MACs, parameters, size and peak memory."""
