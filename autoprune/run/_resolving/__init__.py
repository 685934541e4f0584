"""From a config, a model and data to a run: everything is read, checked and resolved once.

`settle` and `RunSpec` turn settings into typed values, `load_dense` and `build_problem` add the model, the
data and the search space, and `resolve` returns the `Run` that all verbs work on.
"""
