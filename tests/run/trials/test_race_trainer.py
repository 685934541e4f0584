"""The trainer of a race scores a candidate after the epochs of a stage, and no others."""

from __future__ import annotations

from pathlib import Path

import autoprune
from autoprune.criteria import importance
from autoprune.execution import Setting
from autoprune.run._resolving.dense import given_dense
from autoprune.run._resolving.ranking import encode_ranking
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.race_plan import RaceStage
from autoprune.run._trials.race_trainer import RaceTrainer
from autoprune.run._trials.retraining import retrain, training_state
from autoprune.run._trials.scoring import ScoreParts
from autoprune.score import cut_model, plan_of
from tests.run.trials.test_race import CONFIG, EPOCHS, make_net, make_parts


def test_a_training_that_is_beyond_a_stage_has_the_score_of_its_epoch(tmp_path: Path) -> None:
    spec = RunSpec.of({**CONFIG, "output": {"folder": str(tmp_path)}})
    dense, setting = given_dense(make_net(), make_parts(), spec), Setting("cpu", "float32", False, 1)
    assert dense is not None
    prunable = autoprune.trace(dense.model, dense.example_inputs)
    ranked = importance(prunable, "l1")
    widths = {group.name: group.width // 2 for group in prunable.searchable}
    trainer = RaceTrainer(ScoreParts(dense, prunable, spec, setting, encode_ranking(ranked)))
    next(iter(trainer(widths, RaceStage(EPOCHS))))
    early = next(iter(trainer(widths, RaceStage(2))))
    small = cut_model(prunable, plan_of(prunable, widths, ranked, {}), None)
    whole = retrain(small, dense, spec, setting, state=training_state(spec, widths))
    assert early.score == whole.records[1].score
    assert early.error == whole.records[1].standard_error
