"""Collects the facts of a model card from a run: costs, scores with their intervals, data, origin, settings.

Example:
    scored = score_part(run, small, test=True)
    facts = card_of_trial(study, run, record, result.scores, scored, training="20 epochs")
"""

from __future__ import annotations

import copy
import functools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from autoprune.config.rungs import score_text
from autoprune.config.settings import RunConfig
from autoprune.cost import COSTS, LATENCY, Unit
from autoprune.exporting import CardCost, CardFacts, CardPreprocessing, CardScore
from autoprune.flow import FlowRecord, to_values
from autoprune.reporting import CostRow, cost_rows, paired_interval, summarise
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._results.page import changed
from autoprune.run._trials.new_study import environment
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Stage
from autoprune.support.toml import write_toml
from autoprune.training import Evaluation, measure

_OWN = __name__.partition(".")[0]
Interval = tuple[float, float]

_PRIVATE = (
    *("output.folder", "search.storage", "search.space", "search.ray.address", "data.folder", "mask.file"),
    *("latency.table", "latency.command"),
)
"""Paths, addresses and commands of this machine, which a card leaves out."""


@dataclass(frozen=True)
class Scored:
    """The evaluations of the small and the dense model on one part of the data.

    Attributes:
        part: "test" or "validation".
        small: of the small model.
        dense: of the dense model.
    """

    part: str
    small: Evaluation
    dense: Evaluation

    @property
    def scores(self) -> tuple[float | None, float | None]:
        """The scores of the small and the dense model. One that is not finite is None."""
        small, dense = (
            each.score if math.isfinite(each.score) else None for each in (self.small, self.dense)
        )
        return small, dense


def score_part(run: Run, small: nn.Module, *, test: bool) -> Scored | None:
    """Return the evaluations on the test or the validation part, or None if there is no such part."""
    part, loader = ("test", run.dense.data.test) if test else ("validation", run.dense.data.val)
    if loader is None:
        return None
    models = (small, copy.deepcopy(run.dense.model))
    found = [measure(model, loader, run.dense.task, run.setting) for model in models]
    for each in found:
        if not math.isfinite(each.score):
            run.watch(
                Stage(f"warning: task.metric is {each.score} on the {part} part, so no {part} score is kept")
            )
    return Scored(part, found[0], found[1])


def card_of_trial(
    study: SearchStudy,
    run: Run,
    record: TrialRecord,
    scores: Mapping[str, float | None],
    scored: Scored | None,
    *,
    training: str,
) -> CardFacts:
    """Return the facts of a card for the finetuned model of a trial.

    Args:
        study: the study.
        run: the resolved run, with the settings of the finetune.
        record: the trial.
        scores: the scores as `FinetuneResult.scores`.
        scored: the evaluations of both models on the part that the card shows with an interval.
        training: sentence on the training after the cut.
    """
    spec, facts = run.spec, study.facts
    number = [] if record.number == study.best().number else ["--trial", str(record.number)]
    again = " ".join(["autoprune", "finetune", study.name, *number])
    commands = ["autoprune search settings.toml", again]
    if spec.model.name is None and spec.model.factory is None:
        commands = ["# The model and the data were passed in Python:", *(f"# {each}" for each in commands)]
    rows = cost_rows(summarise(study), record)
    seeds = {"search": spec.search.seed, "trial": record.seed, "finetune": spec.finetune.seed}
    return _card(
        run,
        rows,
        scores,
        scored,
        origin=f"trial {record.number} of the search {study.name} ({record.origin})",
        training={"after the cut": training, "seeds": _seeds(run, seeds)},
        versions={**facts.environment, "setting": _words(facts.setting)},
        identity=study.identity,
        commands=commands,
    )


def card_of_flow(
    run: Run, record: FlowRecord, scores: Mapping[str, float | None], scored: Scored | None
) -> CardFacts:
    """Return the facts of a card for the small model of a flow."""
    spec, measured, last = run.spec, record.measured, record.stages[-1]
    rows = []
    for cost, value in last.cost.items():
        dense = measured.cost.get(cost)
        limit = run.budget.limits.get(cost)
        share = None if dense is None else value / dense
        limited = None if dense is None or limit is None else limit / dense
        met = None if limit is None else value <= limit
        rows.append(CostRow(cost, COSTS[cost].label, value, dense, share, limited, None, met))
    stages = [f"{each.stage} (pass {each.number}, {each.seconds:.0f} s)" for each in record.stages]
    named = spec.model.name is not None or spec.model.factory is not None
    commands = ["autoprune prune settings.toml"]
    facts = _card(
        run,
        rows,
        scores,
        scored,
        origin=f"the method {spec.flow.method}" if spec.flow.method else "a flow of stages",
        training={"stages": ", ".join(stages), "seeds": _seeds(run, {"finetune": spec.finetune.seed})},
        versions={**environment(run.setting.device), "setting": _words(run.setting.facts)},
        identity=record.identity,
        commands=commands if named else [f"# The model and the data were passed in Python: {commands[0]}"],
    )
    left = last.facts.get("remaining")
    notes = [] if left is None else [f"The costs count masked weights as well. Masks leave {_words(left)}."]
    return facts.model_copy(update={"notes": [*facts.notes, *notes]})


def _card(
    run: Run,
    rows: Sequence[CostRow],
    scores: Mapping[str, float | None],
    scored: Scored | None,
    *,
    origin: str,
    training: dict[str, str],
    versions: Mapping[str, str],
    identity: Mapping[str, str],
    commands: list[str],
) -> CardFacts:
    spec, data = run.spec, run.dense.data
    name = spec.model.name or spec.model.factory or type(run.dense.model).__name__
    main = next(
        (row for row in rows if row.limit is not None), next(row for row in rows if row.cost == "macs")
    )
    title = f"{name} at {main.share:.1%} of its {main.label}"
    about = [f"A pruned {name} with real, smaller layers, made by autoprune: {origin}, on {data.name}."]
    preprocessing = data.preprocessing
    return CardFacts(
        title=title,
        about=about,
        metric=spec.task.metric,
        costs=[_cost(row) for row in rows],
        scores=_scores(run, scores, scored),
        notes=[*_difference(scored), *_latency(spec, rows)],
        data=_data(run),
        class_names=list(data.class_names),
        preprocessing=None
        if preprocessing is None
        else CardPreprocessing(
            mean=list(preprocessing.mean), std=list(preprocessing.std), resize=preprocessing.resize
        ),
        origin=_origin(run, name),
        training=training,
        versions={key: str(value) for key, value in versions.items()},
        hashes=dict(identity),
        commands=commands,
        settings=_settings(spec),
        limits=_limits(run),
    )


def _cost(row: CostRow) -> CardCost:
    unit = COSTS[row.cost].unit
    share = "" if row.share is None else f"{row.share:.1%}"
    if row.interval is not None:
        share += f" (95% interval {row.interval[0]:.1%} to {row.interval[1]:.1%})"
    met = "" if row.met is None else ", met" if row.met else ", not met"
    return CardCost(
        label=row.label,
        small=_amount(unit, row.value),
        dense="" if row.dense is None else _amount(unit, row.dense),
        share=share,
        budget="" if row.limit is None else f"at most {row.limit:.1%}{met}",
    )


def _amount(unit: Unit, value: float) -> str:
    """Write an amount without the name of its unit if the label contains it: "1.12 M" of MACs, "174 kB"."""
    return unit.write(value).removesuffix(f" {unit.name}") if unit.is_whole else unit.write(value)


def _scores(run: Run, scores: Mapping[str, float | None], scored: Scored | None) -> list[CardScore]:
    data = run.dense.data
    images = {"test": 0 if data.test is None else data.test.samples, "validation": data.val.samples}
    interval = None if scored is None else _interval(scored.small.samples)
    shown = "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
    return [
        CardScore(
            part=part,
            small=score_text(scores[f"{key}_score"], None),
            dense=score_text(scores[f"dense_{key}_score"], None),
            interval=shown if scored is not None and scored.part == part else "",
            images=images[part],
        )
        for key, part in (("test", "test"), ("val", "validation"))
        if scores[f"{key}_score"] is not None
    ]


def _interval(samples: Tensor | None) -> Interval | None:
    """Return the 95% interval of the mean of values [n] over the draw of the images.

    For hits (0 and 1) it is Wilson's, which holds near 0 and 1 too. Otherwise it is the t interval.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    from scipy.stats import binomtest, ttest_1samp

    if samples is None or len(samples) < 2 or not samples.isfinite().all():
        return None
    values = samples.double().numpy()
    if np.isin(values, (0.0, 1.0)).all():
        ends = binomtest(int(values.sum()), len(values)).proportion_ci(0.95, method="wilson")
        return float(ends.low), float(ends.high)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = ttest_1samp(values, 0.0).confidence_interval(0.95)
    return float(found.low), float(found.high)


def _difference(scored: Scored | None) -> list[str]:
    """Return a sentence on the difference to the dense model, with its interval if that is known."""
    if scored is None or None in scored.scores:
        return []
    small, dense = scored.small, scored.dense
    shown = ""
    if small.samples is not None and dense.samples is not None:
        interval = paired_interval(small.samples.double().numpy(), dense.samples.double().numpy())
        if interval is not None:
            shown = f" (95% interval of the difference: {interval[0]:+.4f} to {interval[1]:+.4f})"
    gap = f"{abs(small.score - dense.score):.4f}"
    side = "above" if small.score > dense.score else "below"
    words = f"is {gap} {side}" if float(gap) else "scores the same as"
    return [f"On the {scored.part} part the pruned model {words} the dense model, on the same images{shown}."]


def _latency(spec: RunSpec, rows: Sequence[CostRow]) -> list[str]:
    timed = any(row.cost == LATENCY and row.interval is not None for row in rows)
    if not timed:
        predicted = any(row.cost == LATENCY for row in rows)
        opening = "Latency is predicted by a table" if predicted else "Latency was not measured"
        return [f"{opening}: time the files where they will run, with autoprune bench."]
    named = spec.latency
    return [
        f"Latency was timed side by side with the dense model: probe {named.probe}, batch {named.batch}, "
        f"{named.threads} thread{'s' if named.threads != 1 else ''}, {named.dtype}."
    ]


def _data(run: Run) -> dict[str, str]:
    data, settings = run.dense.data, run.spec.data
    parts = {"training": data.train, "validation": data.val, "test": data.test}
    sizes = ", ".join(f"{each.samples:,} {name}" for name, each in parts.items() if each is not None)
    shape = f" ({' x '.join(map(str, data.input_shape))})" if data.input_shape else ""
    classes = f", {data.classes} classes" if data.classes else ""
    return {
        "data set": data.name,
        "images": f"{sizes}{shape}{classes}",
        "augmentation": data.augmentation,
        "split": f"seed {settings.seed}, and {settings.val_fraction:.0%} of the training part are held out "
        "if the data have no validation part",
    }


def _origin(run: Run, name: str) -> dict[str, str]:
    spec, model = run.spec, run.dense.model
    code = licence_of(model, spec.model.factory)
    weights = spec.model.weights or ("a checkpoint" if spec.model.checkpoint else "given with the model")
    stated = getattr(model, "pretrained_cfg", None)
    licence = stated.get("license") if isinstance(stated, Mapping) else None
    return {
        "dense model": f"{name} ({type(model).__name__})",
        "dense weights": weights,
        "code": code,
        "licence of the weights": str(licence or "not known: it depends on the data and on who trained them"),
    }


def licence_of(model: nn.Module, factory: str | None) -> str:
    """Return the package that defines a model, with its version and its licence if they are known."""
    module = type(model).__module__ if factory is None else factory.partition(":")[0]
    top = module.partition(".")[0]
    unknown = "of the user, its licence is not known"
    if top == "torch":  # a container of torch says nothing on what it holds
        return unknown
    about = _package_of(module)
    if about is None:
        return unknown
    classifiers = [each for each in about.get_all("Classifier") or () if each.startswith("License ::")]
    known = [
        *(about.get_all("License-Expression") or ()),
        *(each.rpartition(" :: ")[2] for each in classifiers),
        *(about.get_all("License") or ()),
    ]
    licence = next((each for each in known if len(each) < 60), "licence not known")
    return f"{top} {about['Version']}, {licence}"


def _package_of(module: str) -> metadata.PackageMetadata | None:
    """Return the metadata of the installed package that holds the file of a module, or None.

    A user's own module may have the name of an installed package.
    """
    top = module.partition(".")[0]
    if top == _OWN:  # an editable installation lists no modules
        return metadata.metadata(_OWN)
    loaded = sys.modules.get(module) or sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if file is None:
        return None
    for name in metadata.packages_distributions().get(top, ()):
        package = metadata.distribution(name)
        if any(Path(str(package.locate_file(each))) == Path(file) for each in package.files or ()):
            return package.metadata
    return None


def _settings(spec: RunSpec) -> str:
    """Return the settings that differ from the defaults as TOML, without those of this machine."""
    values = changed(to_values(spec), to_values(RunConfig()))
    for key in _PRIVATE:
        *sections, name = key.split(".")
        functools.reduce(lambda found, section: found.get(section, {}), sections, values).pop(name, None)
    if "checkpoint" in values.get("model", {}):
        values["model"]["checkpoint"] = "dense.safetensors"
    for section in {"model", "data", "task"} & values.keys():
        values[section] = {key: each for key, each in values[section].items() if not _is_absolute(each)}
    return write_toml({name: each for name, each in values.items() if each != {}})


def _is_absolute(value: object) -> bool:
    return isinstance(value, str) and os.path.isabs(value)


def _limits(run: Run) -> list[str]:
    chosen = "The model was chosen by scores on the validation part, so that score is optimistic."
    unseen = "The test part was read once for this model, after all choices."
    if run.dense.data.test is None:
        unseen = "There was no test part."
    return [
        f"{chosen} {unseen}",
        f"Images of another source or kind than {run.dense.data.name} were not tried.",
        _exported(run),
        "Errors of the dense model are kept, and pruning may hurt rare classes more than the mean shows.",
    ]


def _exported(run: Run) -> str:
    part = f" hold {run.spec.model.target} alone, and" if run.spec.model.target else ""
    shape = run.dense.data.input_shape
    sizes = f"images of {shape[1]} x {shape[2]} pixels" if shape else "inputs of the traced sizes"
    return f"The exported files{part} take any batch size, and {sizes}."


def _seeds(run: Run, seeds: Mapping[str, int | None]) -> str:
    known = {**seeds, "train": run.spec.train.seed, "data": run.spec.data.seed}
    return ", ".join(f"{name} {seed}" for name, seed in known.items() if seed is not None)


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
