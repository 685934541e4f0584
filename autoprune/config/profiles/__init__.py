"""Profiles of a search, one TOML file each, which fill the keys that decide how long a search takes."""
