"""Embedded configs, one TOML file each; `config.load_config("digits")` reads them by name.

Before: nothing; after: `config`. Each file shows what a user's own file may hold:

    autoprune search digits
"""
