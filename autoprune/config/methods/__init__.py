"""Presets of [flow], one TOML file for each method. `autoprune methods` lists them."""
