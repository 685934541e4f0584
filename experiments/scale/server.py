"""A PostgreSQL server of its own in a temporary folder, for tests and experiments.

Example:
    with postgresql() as server:            # Unavailable if the programs of a server are not installed
        url = server.new_database("whole")  # a user with a password owns it
        server.stop()
        server.start()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "pa55w0rd-of-the-test"
"""The password of the user that URLs name, for searches of files and outputs that must not hold it."""

USER = "pruner"


class Unavailable(Exception):  # noqa: N818  # it is a reason to skip a test
    """No server can be started here."""


@dataclass(frozen=True)
class Server:
    """A server on the loopback interface. Its administrator reaches it by a socket in its folder."""

    programs: Path
    folder: Path
    owner: str
    port: int
    durable: bool

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        if not self.durable:
            options += " -c fsync=off"
        self._call("pg_ctl", "-D", self._data, "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: "immediate" as a power cut does, "fast" as its administrator does."""
        self._call("pg_ctl", "-D", self._data, "-m", mode, "stop")

    def new_database(self, name: str) -> str:
        """Create a database, and return its URL with a user and a password."""
        self.sql(f"CREATE DATABASE {name} OWNER {USER}")
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the administrator, and return the values that it prints."""
        return self._call("psql", *self._as_owner, "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", statement)

    def dump(self, database: str) -> str:
        """Return the tables of a database with their content."""
        return self._call("pg_dump", *self._as_owner, database)

    def initialise(self) -> None:
        """Make the files of the server. Its administrator needs no password on the socket, all others do."""
        authentication = ["--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]
        self._call("initdb", "-D", self._data, "-U", self.owner, "-E", "UTF8", *authentication)

    @property
    def _as_owner(self) -> tuple[str, ...]:
        return ("-h", str(self.folder), "-p", str(self.port), "-U", self.owner)

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"

    def _call(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs, which refuse to run as root."""
        command = [str(self.programs / program), *arguments]
        if os.getuid() == 0:
            command = [
                "setpriv",
                f"--reuid={self.owner}",
                f"--regid={self.owner}",
                "--clear-groups",
                *command,
            ]
        # A server that starts would keep a pipe open, so its output goes to a file.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, timeout=120, check=False
            )
            output.seek(0)
            text = output.read().decode("utf-8", "replace").strip()
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {text}")
        return text


@contextlib.contextmanager
def postgresql(*, durable: bool = False) -> Iterator[Server]:
    """Start a server inside the block, and remove it with its data after it.

    Args:
        durable: whether commits are safe if the machine loses power, as on a server in use. A server whose
            processes are killed loses nothing either way.

    Raises:
        Unavailable: the programs of a server are not installed, or cannot be run as another user.
    """
    server = _prepared(durable)
    try:
        server.initialise()
        server.start()
        server.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):  # a test may have stopped it
                server.stop()
    finally:
        shutil.rmtree(server.folder)


def _prepared(durable: bool) -> Server:
    """Return a server with a folder and a free port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise Unavailable("needs the programs of a PostgreSQL server (initdb)")
    owner = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        if shutil.which("setpriv") is None or "postgres" not in {each.pw_name for each in pwd.getpwall()}:
            raise Unavailable("as root it needs setpriv and the user postgres")
        owner = "postgres"
    # The path of a socket may have 107 characters, and its folders must be open to the other user.
    folder = Path(tempfile.mkdtemp(prefix="autoprune-pg-", dir="/tmp"))
    if os.getuid() == 0:
        shutil.chown(folder, owner, owner)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Server(found[-1].parent if found else Path(str(on_path)).parent, folder, owner, port, durable)
