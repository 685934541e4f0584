"""Embedded configs, one TOML file each. `config.load_config("digits")` reads them by name.

Each file is also an example of a user's own config:

    autoprune search digits
"""
