"""How the folder of a case is prepared before its command runs: one row of STEPS a kind of damage.

Each step of a case is a table, of which one key names a row here:

    apply({"json": "runs/tiny/best/recipe.json", "at": ["version"], "value": 99}, folder)
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autoprune.samplers import fact_key

_FACTS = ("proposal", "scores", "outcome", "lease", "interruptions", "deaths")

_RAW = "@raw@"
"""Stands in JSON for a text that `json` would not write, such as brackets nested 100,000 deep."""


def apply(step: Mapping[str, Any], folder: Path) -> None:
    """Do one step.

    Args:
        step: its kind and its arguments, with placeholders filled.
        folder: in which its paths are.

    Raises:
        ValueError: there is no such step, or the damaged place is no longer there.
    """
    kinds = [key for key in step if key in STEPS]
    if len(kinds) != 1:
        raise ValueError(f"{dict(step)}: expected one of {', '.join(STEPS)}")
    rest = {key: value for key, value in step.items() if key != kinds[0]}
    STEPS[kinds[0]](folder / str(step[kinds[0]]), **rest)


def _write(path: Path, text: str = "", hex: str = "", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes.fromhex(hex) if hex else text.encode(encoding, "surrogatepass"))


def _append(path: Path, text: str = "", hex: str = "") -> None:
    with path.open("ab") as file:
        file.write(bytes.fromhex(hex) or text.encode())


def _cut(path: Path, left: int | float) -> None:
    """Cut a file to a number of bytes or a share of its size. If it is negative, cut as many off the end."""
    size = path.stat().st_size
    os.truncate(path, int(left * size) if 0 < left < 1 else int(left) if left >= 0 else size + int(left))


def _json(path: Path, at: list[Any], value: Any = None, new: bool = False) -> None:
    path.write_text(_damaged(path.read_text("utf-8"), at, value, new), "utf-8")


def _damaged(text: str, at: list[Any], value: Any, new: bool) -> str:
    """Put a value in a place of a JSON text. The README names the marks of null and of nothing."""
    content = json.loads(text)
    marker = value if isinstance(value, dict) and len(value) == 1 else {}
    plain = None if "null" in marker else _RAW if {"raw", "nest"} & set(marker) else value
    if not at:
        content = plain
    else:
        holder = content
        for key in at[:-1]:
            holder = holder[key]
        if not new:
            _ = holder[at[-1]]  # the place must be there, or the case is out of date
        if "remove" in marker:
            del holder[at[-1]]
        else:
            holder[at[-1]] = plain
    written = json.dumps(content)
    if "nest" in marker:
        return written.replace(f'"{_RAW}"', "[" * marker["nest"] + "]" * marker["nest"])
    return written.replace(f'"{_RAW}"', str(marker.get("raw", "")))


def _attribute(
    path: Path,
    of: str | int,
    key: str,
    value: Any,
    at: list[Any] | None = None,
    new: bool = False,
    study: str = "tiny",
) -> None:
    """Damage an attribute of an SQLite study, or of its trial of a number."""
    table, column = "study_user_attributes", "study_id"
    if of != "study":
        is_fact = key in _FACTS
        table, column = f"trial_{'system' if is_fact else 'user'}_attributes", "trial_id"
        key = fact_key(key) if is_fact else key
    with closing(sqlite3.connect(path)) as file, file:
        (study_id,) = file.execute("SELECT study_id FROM studies WHERE study_name = ?", (study,)).fetchone()
        owner = study_id
        if of != "study":
            (owner,) = file.execute(
                "SELECT trial_id FROM trials WHERE study_id = ? AND number = ?", (study_id, of)
            ).fetchone()
        place = f"WHERE {column} = ? AND key = ?"
        found = file.execute(f"SELECT value_json FROM {table} {place}", (owner, key)).fetchone()
        if found is None and not new:
            raise ValueError(f"{path}: {of} has no attribute {key}")
        if found is None:
            file.execute(
                f"INSERT INTO {table} ({column}, key, value_json) VALUES (?, ?, ?)",
                (owner, key, json.dumps(value)),
            )
        elif isinstance(value, dict) and "remove" in value and not at:
            file.execute(f"DELETE FROM {table} {place}", (owner, key))
        else:
            text = _damaged(found[0], at or [], value, new)
            file.execute(f"UPDATE {table} SET value_json = ? {place}", (text, owner, key))


def _sql(path: Path, do: str) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        for statement in do.split(";"):
            file.execute(statement)


def _journal(path: Path, at: int, line: str) -> None:
    """Put a line in place of one of a journal's, counted from its beginning or its end."""
    lines = path.read_text("utf-8").splitlines()
    lines[at] = line
    path.write_text("\n".join([*lines, ""]), "utf-8")


def _tensor(path: Path, kind: str, name: str = "conv1.weight", saved: str = "torch") -> None:
    """Write the checkpoint dense.safetensors again with one tensor that is of another kind."""
    state: dict[Any, Any] = dict(load_file(path.with_name("dense.safetensors")))
    state[name] = ODD_TENSORS[kind](state[name])
    if saved == "torch":
        torch.save(state, path)
    else:
        save_file(state, path)


class _Opened:
    """What opens a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (os.environ["FAULTS_RAN"], "w")


def _pickled(path: Path) -> None:
    """Write a pickle that runs code when it is read."""
    torch.save({"conv1.weight": _Opened()}, path)


def _pt2(path: Path) -> None:
    """Write an archive of torch.export in which the weights are a pickle that runs code."""
    import zipfile

    hostile = io.BytesIO()
    pickle.dump(_Opened(), hostile)
    source = path.with_name("model.pt2")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path.with_name("new.pt2"), "w") as new:
        for item in old.infolist():
            is_pickle = item.filename.endswith(".pt") or "/weights/" in item.filename
            new.writestr(item, hostile.getvalue() if is_pickle else old.read(item))
    os.replace(path.with_name("new.pt2"), path)


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


def _copy(path: Path, to: str) -> None:
    """Copy a file or a folder, to a name next to it."""
    if path.is_dir():
        shutil.copytree(path, path.parent / to)
    else:
        shutil.copy(path, path.parent / to)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path, to: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)


STEPS: Mapping[str, Callable[..., None]] = {
    "write": _write,
    "append": _append,
    "cut": _cut,
    "json": _json,
    "attribute": _attribute,
    "sql": _sql,
    "journal": _journal,
    "tensor": _tensor,
    "pickled": _pickled,
    "pt2": _pt2,
    "fifo": _fifo,
    "socket": _bind,
    "link": _link,
    "folder": lambda path: path.mkdir(parents=True),
    "copy": _copy,
    "remove": _remove,
    "mode": lambda path, bits: path.chmod(bits),
}

ODD_TENSORS: Mapping[str, Callable[[Tensor], Any]] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "compressed": lambda tensor: tensor.flatten(1).to_sparse_csr(),
    "meta": lambda tensor: tensor.to("meta"),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "int64": lambda tensor: tensor.to(torch.int64),
    "int8": lambda tensor: tensor.to(torch.int8),
    "bool": lambda tensor: tensor > 0,
    "float64": lambda tensor: tensor.double(),
    "float16": lambda tensor: tensor.half(),
    "nan": lambda tensor: torch.full_like(tensor, float("nan")),
    "infinite": lambda tensor: torch.full_like(tensor, float("inf")),
    "huge": lambda tensor: torch.full_like(tensor, 3e38),
    "empty": lambda tensor: tensor[:0],
    "scalar": lambda tensor: tensor.sum(),
    "wider": lambda tensor: torch.cat([tensor, tensor]),
    "more axes": lambda tensor: tensor[None],
    "a list": lambda tensor: tensor.tolist(),
    "a number": lambda tensor: 3,
    "nothing": lambda tensor: None,
    "transposed": lambda tensor: tensor.transpose(0, -1),
    "a view": lambda tensor: torch.zeros(1).expand_as(tensor),
    "a gradient": lambda tensor: tensor.requires_grad_(),
    "a parameter": lambda tensor: torch.nn.Parameter(tensor),
}
