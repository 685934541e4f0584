"""The results of verbs, and what they leave: folders with model cards, pages, notes and logs of trackers.

A result goes on by itself (`result.finetune()`), so these modules call the verbs of run/.
"""
