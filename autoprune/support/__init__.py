"""General tools that do not depend on pruning: files, threads, memory, schemas and calls of user code."""
