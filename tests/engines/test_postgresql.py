"""A search on a real PostgreSQL server that is stopped like a machine without power, and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoprune.study import open_study
from tests.engines.toy import TRIALS, start
from tests.records import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Server:
    """A server of its own in a folder, reached by a socket there alone."""

    programs: Path
    folder: Path
    user: str

    def call(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, which refuse to run as root."""
        command = [str(self.programs / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder}"
        log = f"{self.folder}/log"
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End the server at once, as a power cut does."""
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        self.call("createdb", "-h", str(self.folder), "-U", self.user, database)
        return f"postgresql+psycopg://{self.user}@/{database}?host={self.folder}"


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("needs the programs of a PostgreSQL server (initdb)")
    programs = found[-1].parent if found else Path(str(on_path)).parent
    user = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        if shutil.which("setpriv") is None or "postgres" not in {each.pw_name for each in pwd.getpwall()}:
            pytest.skip("as root it needs setpriv and the user postgres")
        user = "postgres"
    # The path of a socket may have 107 characters, and its folders must be open to the other user.
    folder = Path(f"/tmp/autoprune-pg-{os.getpid()}")
    folder.mkdir()
    if os.getuid() == 0:
        shutil.chown(folder, user, user)
    made = Server(programs, folder, user)
    try:
        made.call("initdb", "-D", f"{folder}/data", "-U", user, "-A", "trust", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def finished(url: str) -> int:
    return sum(record.has_ended for record in open_study(url, "toy").records())


def test_a_search_goes_on_after_its_server_was_stopped_in_the_middle(server: Server) -> None:
    whole, stopped = server.url("whole"), server.url("stopped")
    assert start(whole, "tpe", "median").wait() == 0
    process = start(stopped, "tpe", "median")
    while finished(stopped) < TRIALS // 3 and process.poll() is None:
        time.sleep(0.01)
    server.stop()
    assert process.wait() != 0
    server.start()
    assert 0 < finished(stopped) < TRIALS, "the server was stopped after the end of the search"
    process = start(stopped, "tpe", "median")
    while finished(stopped) < 2 * TRIALS // 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(stopped, "tpe", "median").wait() == 0
    expected = [comparable(record) for record in open_study(whole, "toy").records()]
    assert len(expected) == TRIALS
    assert [comparable(record) for record in open_study(stopped, "toy").records()] == expected


def test_a_database_of_another_program_on_a_server_keeps_its_tables(server: Server) -> None:
    url = server.url("theirs")
    server.call(
        "psql", "-h", str(server.folder), "-U", server.user, "-c", "CREATE TABLE photos (a int)", "theirs"
    )
    assert start(url, "random", "none").wait() == 0
    assert finished(url) == TRIALS
