"""Reports which trials of a study other processes hold, and the command that goes on with them.

report_held_elsewhere(study, watch)      # as a search begins
report_unended(study, watch)             # as it ends
"""

from __future__ import annotations

import socket

from autoprune.run._events import Stage, Watcher
from autoprune.study import SearchStudy, study_command


def report_held_elsewhere(study: SearchStudy, watch: Watcher) -> None:
    """Report the trials that another host holds: whether it still works on them cannot be seen from here."""
    held = study.held_elsewhere()
    if held:
        numbers, hosts = ", ".join(map(str, held)), ", ".join(sorted(set(held.values())))
        watch(
            Stage(
                f"trials held by other hosts ({hosts}): {numbers}. If those are gone, run them again "
                f"with `{study_command('resume', study.name, study.url, '--take-over')}`"
            )
        )


def report_unended(study: SearchStudy, watch: Watcher) -> None:
    """Report the trials that have not ended: another process runs them, or has given them back.

    Nobody goes on with them if that process dies.
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
            f"{trials} {', '.join(names)} had not ended when this search did, and the result is "
            f"without {them}. If no other process goes on with the study, run `{command}`"
        )
    )
