"""Looks at the tables of a database before anything is written to it.

Example:
    contents = look(engine)
    contents.require(create=True, shown="sqlite:///runs/fm.db")     # refuses a database of another program
    contents.is_new                                                 # True if Optuna's tables are missing
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from optuna.storages._rdb import models, storage
from sqlalchemy.pool import NullPool

from autoprune.errors import StudyError
from autoprune.support.files import open_regular

_REVISION = "alembic_version"
"""Table that holds the version of Optuna's tables."""

_WAL = 2
"""Byte 18 of an SQLite file in WAL mode."""


@dataclass(frozen=True)
class Contents:
    """The tables of a database.

    Attributes:
        columns: {table: its columns}.
        revision: version of Optuna's tables, or None if the database has none.
        is_file: whether the database is an SQLite file, rather than one on a server.
    """

    columns: Mapping[str, frozenset[str]]
    revision: str | None
    is_file: bool

    @property
    def is_new(self) -> bool:
        """Whether Optuna's tables are missing, or some of them after a process was killed as it made them."""
        return self.revision is None

    def require(self, *, create: bool, shown: str) -> None:
        """Refuse a database that Optuna's tables cannot be read from or made in.

        Args:
            create: whether tables may be made.
            shown: the storage's URL as messages show it.

        Raises:
            StudyError: it belongs to another program or another version of Optuna, or has no study.
        """
        foreign = self._foreign()
        if foreign is not None:
            raise StudyError(
                f"{shown}: it is a database of another program (table {foreign}). Nothing was changed. Name "
                "another one as search.storage."
            )
        if self.revision is not None and self.revision != _head():
            raise StudyError(
                f"{shown}: its tables are of another version of Optuna (got {self.revision}, expected "
                f"{_head()}). Nothing was changed. Name another search.storage, or copy it and upgrade the "
                "copy with `optuna storage upgrade`."
            )
        if self.is_new and not create:
            raise StudyError(f"{shown}: it holds no study. Check search.storage.")

    def _foreign(self) -> str | None:
        """Return the first table that another program must have made, or None if there is none."""
        known = {name: {column.name for column in table.columns} for name, table in _optunas().items()}
        for name, columns in sorted(self.columns.items()):
            # Tables of another revision may lack columns. `require` reports the revision then.
            if name in known and not known[name] <= columns and self.revision in (None, _head()):
                return name
            # Several programs may share a database on a server. A file belongs to one program.
            if self.is_new and self.is_file and name not in known and name != _REVISION:
                return name
        unknown = self.revision is not None and self.columns.keys().isdisjoint(known)
        return _REVISION if unknown else None


def look(engine: sqlalchemy.Engine) -> Contents:
    """Return the tables of a database. It is only read.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be read.
    """
    with engine.connect() as connection:
        found = sqlalchemy.inspect(connection)
        tables = {
            name: frozenset(column["name"] for column in found.get_columns(name))
            for name in found.get_table_names()
        }
        revision = None
        if _REVISION in tables and "version_num" in tables[_REVISION]:
            query = sqlalchemy.text(f"SELECT version_num FROM {_REVISION}")
            revision = connection.execute(query).scalar()
    return Contents(tables, None if revision is None else str(revision), engine.dialect.name == "sqlite")


def reading_engine(path: Path, timeout_s: float) -> sqlalchemy.Engine:
    """Return an engine that reads an SQLite file, and changes neither the file nor its folder."""
    return sqlalchemy.create_engine(
        "sqlite://", creator=functools.partial(connect_reading, path, timeout_s), poolclass=NullPool
    )


def connect_reading(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Connect to an SQLite file for reading.

    Raises:
        OSError: it is no regular file.
        sqlite3.Error: it cannot be opened.
    """
    with open_regular(path) as file:
        header = file.read(20)
    # In WAL mode, a reader leaves two files next to the database, unless it opens the database as immutable.
    # That is right only if nobody writes to it.
    unused = len(header) == 20 and header[18] == _WAL and not Path(f"{path}-wal").exists()
    mode = "mode=ro&immutable=1" if unused else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", timeout=timeout_s, uri=True)


def names_in_file(path: Path) -> list[str] | None:
    """Return the names of the studies in an SQLite file, or None if it cannot be read. It is only read."""
    try:
        with closing(connect_reading(path, timeout_s=1)) as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
            if "studies" not in tables:
                return []
            return [str(name) for (name,) in file.execute("SELECT study_name FROM studies")]
    except (sqlite3.Error, OSError):
        return None


def _optunas() -> Mapping[str, sqlalchemy.Table]:
    tables: Mapping[str, sqlalchemy.Table] = models.BaseModel.metadata.tables
    return tables


@functools.cache
def _head() -> str:
    """Return the version of the tables that the installed Optuna makes."""
    from alembic.script import ScriptDirectory  # takes a while to import

    folder = os.path.join(os.path.dirname(str(storage.__file__)), "alembic")
    return str(ScriptDirectory(folder).get_current_head())
