"""The moments of layer inputs, by which a study repairs candidates and ranks channels.

They are measured once, from training images without labels. Some criteria and warm starts read them before
the study exists. All trials read the same file, whose hash the study stores. If the file is missing after a
resume, the moments are measured again, and used only if the hash is the same.

Example:
    moments = moments_of(run)
    moments()                                        # measured, or read from a file with the same fingerprint
    prepare_moments(study, moments)                  # None if no rung repairs
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.criteria import Importance, plan_from_importance
from autoprune.data import Batch, VisionData
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
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.study_file import FileNote, StudyFile
from autoprune.study import SearchStudy
from autoprune.support.atomic import saving
from autoprune.support.events import Counted, Stage, Watcher, silent
from autoprune.support.structures import samples_in
from autoprune.support.threads import cpu_threads
from autoprune.training import weights_hash
from autoprune.zoo import checkpoint_hash

MOMENTS = StudyFile("moments", "moments")


@dataclass
class StudyMoments:
    """Measures the moments of a model at the first call, and returns the same ones afterwards.

    Attributes:
        prunable: the traced model to measure, with the weights of the dense model or of a supernet.
        data: the data, whose training part provides the images.
        spec: the settings of the run.
        setting: the device and the threads of the trials.
        watch: called with events that report the progress.
        earlier: the file of an earlier study that holds the same moments, if there is one.
    """

    prunable: Prunable
    data: VisionData
    spec: RunSpec
    setting: Setting
    watch: Watcher = silent
    earlier: Path | None = None
    _measured: Moments | None = field(default=None, init=False)

    def __call__(self) -> Moments:
        """Return the moments, read from the file with the same fingerprint or measured now.

        Raises:
            CheckpointError: the file is damaged.
            DataError: there is no image, the model fails on one, or its activations are not finite.
        """
        if self._measured is None:
            path = self.path()
            if self.earlier is not None and not path.is_file():
                path = self.earlier
            if path.is_file():
                self._measured = load_moments(path)
                self.watch(Stage(f"moments: using {path.name}, of the same model, data and settings"))
            else:
                self._measured = self._measure()
        return self._measured

    def path(self) -> Path:
        """Return the path of their file, which may not exist. Its name hashes model, data and settings."""
        score, data = self.spec.score, self.spec.data
        # Without a limit the name stays the same as in earlier versions.
        limit = [] if data.most_samples is None else [f"of {data.most_samples}"]
        facts = {
            "model": [weights_hash(self.prunable.model), self.prunable.fingerprint],
            "data": [self.data.fingerprint, self.data.input_shape, self.data.plain is None],
            "images": [score.moment_images, data.batch_size, self.spec.search.seed, *limit],
            "sums": [POSITIONS, LIMIT_BYTES, self.setting.device],
        }
        return MOMENTS.path(self.spec, facts)

    def keep(self) -> Path:
        """Write the moments to their file unless it exists, and return its path.

        Raises:
            CheckpointError: the file cannot be written, or the existing one is damaged.
        """
        path, measured = self.path(), self()
        if not path.is_file():
            save_moments(measured, path)
        return path

    def load(self, note: FileNote, study: str) -> Moments:
        """Return the moments of a study's note, as `find` locates them."""
        path = self.find(note, study)
        if self._measured is None or path != self.path():
            self._measured = load_moments(path)
        return self._measured

    def find(self, note: FileNote, study: str) -> Path:
        """Return the file of a study's note. If it is missing here, measure the moments again and write it.

        Args:
            note: the note on the file.
            study: name of the study.

        Raises:
            CheckpointError: this machine measures other moments, or cannot write them.
        """
        found = MOMENTS.find(note, self.spec)
        if found is not None:
            return found
        self.watch(Stage(f"moments: the file of {study} is missing here, so they are measured again"))
        path = self.path()
        with saving(path, "moments") as partial:
            save_moments(self._measure(), partial)
            if checkpoint_hash(partial) != note.sha256:
                raise CheckpointError(
                    f"moments {path}: this machine measures other moments than those that the trials of "
                    f"{study} were scored with. {MOMENTS.recovery_advice(note)}"
                )
        return path

    def _measure(self) -> Moments:
        started = time.perf_counter()
        seed, images = self.spec.search.seed, self.spec.score.moment_images
        part = self.data.unchanged_train
        total = min(images, part.samples)
        self.watch(Stage(f"measuring moments of {total:,} images"))
        model = copy.deepcopy(self.prunable.model).to(self.setting.device)
        with cpu_threads(self.setting.threads):  # their number changes the rounding, and so the hash
            batches = self._counted(part.batches(seed, 0), total)
            measured = measure_model(model, batches, images=images, seed=seed, groups=self.prunable.groups)
        measured = measured.to("cpu")  # the device to which a file loads them
        self.watch(Stage(_measured_text(measured, time.perf_counter() - started)))
        return measured

    def _counted(self, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """Yield batches, and report how many images are done."""
        seen = 0
        for batch in batches:
            yield batch
            seen += samples_in(batch[0])
            self.watch(Counted("moments", min(seen, total), total))


def moments_of(run: Run, cut_from: Prunable | None = None) -> StudyMoments:
    """Return the moments of a run's dense model, to be measured at the first call.

    Args:
        run: the resolved run.
        cut_from: the traced model with the weights of a supernet, if candidates are cut from one.
    """
    return StudyMoments(cut_from or run.prunable, run.dense.data, run.spec, run.setting, run.watch)


def noted_moments(study: SearchStudy, spec: RunSpec) -> Path | None:
    """Return the file of a study's moments, or None if it has none or the file is not here."""
    note = MOMENTS.noted(study)
    return None if note is None else MOMENTS.find(note, spec)


def prepare_moments(study: SearchStudy, moments: StudyMoments) -> tuple[FileNote, Moments] | None:
    """Return the moments of a study and the note on their file, and measure them if there is no note yet.

    If several machines measure at the same time, the first one to finish writes the note.

    Returns:
        The note and the moments, or None if no rung repairs.

    Raises:
        CheckpointError: the file of earlier trials is missing and this machine measures other moments, or
            the file cannot be written.
        StudyError: the note is damaged.
    """
    if not moments.spec.is_repaired:
        return None
    note = MOMENTS.noted(study) or MOMENTS.note_once(study, moments.keep())
    return note, moments.load(note, study.name)


def try_repair(moments: StudyMoments, importance: Importance) -> float:
    """Repair a candidate with half of every group's channels, and return the seconds of the refit.

    Layers that a repair cannot refit are reported. If no rung repairs, the function returns 0 at once.
    """
    if not moments.spec.is_repaired:
        return 0.0
    prunable, measured = moments.prunable, moments()
    widths = {group.name: (group.width + 1) // 2 for group in prunable.searchable}
    plan = plan_from_importance(prunable, widths, importance)
    small = rebuild(prunable, plan)
    # Not timed: the first repair also computes what all later ones share.
    repaired = repair_closed(prunable, plan, small, measured)
    if repaired.left:
        moments.watch(Stage(f"repair: layers that cannot be refitted: {_listed(repaired.left)}"))
    started = time.perf_counter()
    repair_closed(prunable, plan, small, measured)
    return time.perf_counter() - started


def _measured_text(measured: Moments, seconds: float) -> str:
    """Return a line that counts the measured layers and names those without moments."""
    words = f"moments: {len(measured.layers)} layers measured in {seconds:.1f} s"
    return f"{words}, none for {_listed(measured.left_out)}" if measured.left_out else words


def _listed(reasons: Mapping[str, str]) -> str:
    """Return the first of some layers, with its reason, and the number of others."""
    name, reason = next(iter(reasons.items()))
    return f"{name} ({reason}){f' and {len(reasons) - 1} more' if len(reasons) > 1 else ''}"
