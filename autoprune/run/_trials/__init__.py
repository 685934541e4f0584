"""The trials of a study, from its creation to the race: scores, finalists and the trainings of entrants."""
