"""The config that `autoprune init` proposes, from the wishes of a user and a look at model and data."""
