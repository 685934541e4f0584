"""Reports the trials of a study that other processes run, and the command that takes them over.

Example:
    report_held_elsewhere(study, watch)      # at the start of a search
    report_unended(study, watch)             # at its end
"""

from __future__ import annotations

import socket

from autoprune.study import SearchStudy, study_command
from autoprune.support.events import Stage, Watcher


def report_held_elsewhere(study: SearchStudy, watch: Watcher) -> None:
    """Report the trials that other hosts hold. This host cannot check whether their processes still run."""
    held = study.held_elsewhere()
    if held:
        numbers, hosts = ", ".join(map(str, held)), ", ".join(sorted(set(held.values())))
        watch(
            Stage(
                f"trials held by other hosts ({hosts}): {numbers}. If those hosts are gone, run the trials "
                f"again with `{study_command('resume', study.name, study.url, '--take-over')}`"
            )
        )


def report_unended(study: SearchStudy, watch: Watcher) -> None:
    """Report the trials that another process still runs or has returned to the queue.

    If that process dies, the trials stay unfinished until somebody resumes the study.
    """
    unended = study.unended()
    if not unended:
        return
    names = [
        f"{number} (waiting)" if lease is None else f"{number} (process {lease.pid} on {lease.host})"
        for number, lease in unended.items()
    ]
    is_foreign = any(lease is not None and lease.host != socket.gethostname() for lease in unended.values())
    command = study_command("resume", study.name, study.url, *(["--take-over"] if is_foreign else []))
    trials, them = ("trials", "them") if len(names) > 1 else ("trial", "it")
    watch(
        Stage(
            f"{trials} {', '.join(names)} had not ended when this search did, so the result does not "
            f"include {them}. If no other process works on the study, run `{command}`"
        )
    )
