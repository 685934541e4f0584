"""The output error of a trained model as a curve over the width of each channel group.

Example:
    curves = error_curves(load_config("run.toml"), ["errors.png", "errors.csv"])
"""

from __future__ import annotations

import numpy as np

from autoprune.flow import measure_library
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.reconstruction import RATIOS
from autoprune.reporting import Curve, Curves
from autoprune.run._curve_outputs import Outputs, saved_curves, setting_of
from autoprune.run._measuring.moments import StudyMoments
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.problem import trace_dense
from autoprune.run._resolving.spec import ConfigSource
from autoprune.support.usercode import entry


@entry(watch=GIVEN_WATCH)
def error_curves(config: ConfigSource, outputs: Outputs = (), *, watch: Watch = True) -> Curves:
    """Compute the output error of the dense model at every width of each group, from unlabelled images.

    Args:
        config: a RunConfig, a mapping of sections, the path of a TOML file, or an embedded config's name, of
            which [model], [data] and score.moment_images are used.
        outputs: pictures (PNG, SVG, PDF) and tables (CSV) to write, by their suffixes.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        A curve for each group, and the files that were written.

    Raises:
        AutopruneError: model, weights or data cannot be loaded, or an output cannot be written.

    Example:
        curves = autoprune.error_curves("digits", ["curves.csv"])
    """
    spec = settle(config)
    setting = setting_of(spec, outputs)
    dense = load_dense(spec)
    prunable = trace_dense(dense, spec)
    with watching(watch) as show:
        moments = StudyMoments(prunable, dense.data, spec, setting, show)
        library = measure_library(prunable.model, prunable.searchable, moments, show)
    curves = [
        Curve(
            name,
            tuple(range(1, curve.width + 1)),
            tuple((np.arange(1, curve.width + 1) / curve.width).tolist()),
            tuple(curve.errors[1:].tolist()),
        )
        for name, curve in library.curves.items()
    ]
    found = Curves(
        "Output error by channels kept, the readers of a group refitted",
        "error",
        tuple(curves),
        axis="error: share of the output lost, summed over readers",
        ratios=RATIOS,
        notes=library.estimated,
    )
    return saved_curves(found, outputs)
