"""The moments that a study repairs and ranks by: measured once, from training images without their labels.

    moments = moments_of(run)
    moments()                                        # measured, or read from a file of the same fingerprint
    prepare_moments(study, moments)                  # kept beside the study's output; None if no rung repairs

Some criteria and warm starts read them before there is a study. The trials read the file whose hash the
study notes: the same in every process, and after a resume. If the file is gone they are measured once more,
and used only if their hash is the same.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from autoprune.criteria import Importance, plan_from_importance
from autoprune.data import VisionData
from autoprune.errors import CheckpointError
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import (
    LIMIT_BYTES,
    POSITIONS,
    Moments,
    load_moments,
    measure_model,
    repair_closed,
    save_moments,
)
from autoprune.run._events import Counted, Stage, Watcher, silent
from autoprune.run._run import Run
from autoprune.run._spec import RunSpec
from autoprune.run._study_file import FileNote, StudyFile
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.threads import cpu_threads
from autoprune.train import weights_hash
from autoprune.zoo import checkpoint_hash

_FILE = StudyFile("moments", "moments")


@dataclass
class StudyMoments:
    """Measures the moments of one model at the first call, and not again.

    Attributes:
        prunable: the traced model that is measured: the dense one, or the same with a supernet's weights.
        data: its training part gives the images.
        spec: the settings of the run.
        setting: the device and the threads of the trials.
        watch: is shown what is measured.
    """

    prunable: Prunable
    data: VisionData
    spec: RunSpec
    setting: Setting
    watch: Watcher = silent
    _measured: Moments | None = field(default=None, init=False)

    def __call__(self) -> Moments:
        """Return the moments: measured before, read from a file of the same fingerprint, or measured now.

        Raises:
            CheckpointError: that file is damaged.
            DataError: there is no image, or the model fails on one, or its activations are not finite.
        """
        if self._measured is None:
            path = self.path()
            if path.is_file():
                self._measured = load_moments(path)
                self.watch(Stage(f"moments: {path.name} is there, of the same model, data and settings"))
            else:
                self._measured = self._measure()
        return self._measured

    def path(self) -> Path:
        """Return the file in which they are kept, or would be: its name holds all that they rest on."""
        facts = {
            "model": [weights_hash(self.prunable.model), self.prunable.fingerprint],
            "data": [self.data.fingerprint, self.data.input_shape, self.data.plain is None],
            "images": [self.spec.score.moment_images, self.spec.data.batch_size, self.spec.search.seed],
            "sums": [POSITIONS, LIMIT_BYTES, self.setting.device],
        }
        return _FILE.path(self.spec, facts)

    def keep(self) -> Path:
        """Write them to their file, if they are not there already.

        Raises:
            CheckpointError: the file cannot be written, or one is there that is damaged.
        """
        path, measured = self.path(), self()
        if not path.is_file():
            save_moments(measured, path)
        return path

    def load(self, note: FileNote, study: str) -> Moments:
        """Return the moments that a note is about; see `find`."""
        path = self.find(note, study)
        if self._measured is None or path != self.path():
            self._measured = load_moments(path)
        return self._measured

    def find(self, note: FileNote, study: str) -> Path:
        """Return the file here that a note is about. If there is none, measure once more and write it.

        Args:
            note: of a study.
            study: its name.

        Raises:
            CheckpointError: this machine measures others, or they cannot be written.
        """
        found = _FILE.find(note, self.spec)
        if found is not None:
            return found
        self.watch(Stage(f"moments: no file here holds those of {study}; they are measured once more"))
        path = self.path()
        with saving(path, "moments") as partial:
            save_moments(self._measure(), partial)
            if checkpoint_hash(partial) != note.sha256:
                raise CheckpointError(
                    f"moments {path}: this machine measures other moments than those that the trials of {study} "
                    f"were scored with; {_FILE.recovery_advice(note)}"
                )
        return path

    def _measure(self) -> Moments:
        started = time.perf_counter()
        seed, images = self.spec.search.seed, self.spec.score.moment_images
        part = self.data.unchanged_train
        total = min(images, part.samples)
        self.watch(Stage(f"measuring moments of {total:,} images"))
        model = copy.deepcopy(self.prunable.model).to(self.setting.device)
        with cpu_threads(self.setting.threads):  # another number of them may round otherwise
            batches = self._counted(part.batches(seed, 0), total)
            measured = measure_model(model, batches, images=images, seed=seed, groups=self.prunable.groups)
        measured = measured.to("cpu")  # as they are when they are read from a file
        self.watch(Stage(_measured_text(measured, time.perf_counter() - started)))
        return measured

    def _counted(self, batches: Iterator[Any], total: int) -> Iterator[Tensor]:
        """Yield the inputs of batches, and show how many images are done."""
        seen = 0
        for inputs, _ in batches:
            yield inputs
            seen += len(inputs)
            self.watch(Counted("moments", min(seen, total), total))


def moments_of(run: Run, cut_from: Prunable | None = None) -> StudyMoments:
    """Return what measures the moments of a run's dense model, or of the same with a supernet's weights."""
    return StudyMoments(cut_from or run.prunable, run.dense.data, run.spec, run.setting, run.watch)


def prepare_moments(study: SearchStudy, moments: StudyMoments) -> tuple[FileNote, Moments] | None:
    """Return a study's moments and the note on their file, measured now if there is none.

    None if no rung asks for them.

    If several machines measure them at once, the first to end counts.

    Raises:
        CheckpointError: trials are scored with moments that are gone, and this machine measures others; or
            the file cannot be written.
        StudyError: the note is damaged.
    """
    if not moments.spec.is_repaired:
        return None
    note = _FILE.noted(study) or _FILE.note_once(study, moments.keep())
    return note, moments.load(note, study.name)


def try_repair(moments: StudyMoments, importance: Importance) -> float:
    """Repair a candidate with half of every group's channels, and return the seconds that the refit takes.

    Layers that a repair leaves as they were cut are shown. If no rung repairs, nothing is done in 0 seconds.
    """
    if not moments.spec.is_repaired:
        return 0.0
    prunable, measured = moments.prunable, moments()
    widths = {group.name: (group.width + 1) // 2 for group in prunable.searchable}
    plan = plan_from_importance(prunable, widths, importance)
    small = rebuild(prunable, plan)
    repaired = repair_closed(prunable, plan, small, measured)  # the first one finds what all share
    if repaired.left:
        moments.watch(Stage(f"repair: layers that stay as they are cut: {_listed(repaired.left)}"))
    started = time.perf_counter()
    repair_closed(prunable, plan, small, measured)
    return time.perf_counter() - started


def _measured_text(measured: Moments, seconds: float) -> str:
    """Say of how many layers there are moments, and which have none."""
    words = f"moments: {len(measured.layers)} layers measured in {seconds:.1f} s"
    return f"{words}; without any: {_listed(measured.left_out)}" if measured.left_out else words


def _listed(reasons: Mapping[str, str]) -> str:
    """Name the first of some layers, with its reason, and how many others there are."""
    name, reason = next(iter(reasons.items()))
    return f"{name} ({reason}){f' and {len(reasons) - 1} more' if len(reasons) > 1 else ''}"
