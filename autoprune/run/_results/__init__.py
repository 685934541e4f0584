"""The results of verbs, and the files that they write: model cards, pages, notes and logs of trackers.

A result goes on by itself (`result.finetune()`), so these modules call the verbs of run/.
"""
