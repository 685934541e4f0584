"""Small tools that know nothing of pruning: files, threads, memory, schemas and calls of user code."""
