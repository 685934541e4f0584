"""Checks before a verb begins: choices of names, consent to run code, unused settings and free memory."""
