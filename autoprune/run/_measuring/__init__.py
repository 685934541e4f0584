"""Measured once a study, before its first trial: statistics of channels, moments, times and warm starts.

All of it is stored with the study, so that a resumed search or one under another budget reads it again.
"""
