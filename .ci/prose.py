"""Prints habits of the prose in docstrings and comments, room by room: a mirror for reviewers, not a gate.

python .ci/prose.py            # a table: how often per 1,000 words, and comment lines per 100 lines of code
python .ci/prose.py space      # each place in the room space, to be read and judged
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "autoprune"

HABITS = {
    "what": r"\bwhat\b",
    ";": r";",
    "where": r"\bwhere\b",
    "if": r"\bif\b",
    "own": r"^Own\b",
    "before/after": r"^(Before|After):|; after:",
    "tell/say": r"\b(tells?|told|says?|said)\b",
    "old words": r"\b(ere|anew|lest|dear|dearer|hence|thereof|whereof|so many|so much|as it were)\b",
    "asked/shall": r"\b(asked|shall|(is|are) to be)\b",
    "loose terms": r"\b(beside|turns?|grains?|idle|design|stopped trials?)\b|(?<!Pareto )\bfronts?\b",
}
"""{habit: pattern}. "if" is no fault: a text with many "where" and few "if" says "where" for "if"."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of docstrings, of strings that stand alone, and of comments."""
    source = path.read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            for number, line in enumerate(node.value.value.splitlines(), node.lineno):
                yield number, line.strip()
    yield from comments(source)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of comments, without those that steer a tool."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(type:|noqa)", token.string):
            yield token.start[0], token.string.lstrip("# ")


def code_lines(source: str) -> int:
    """Return the lines that hold code: neither blank, nor comments, nor docstrings."""
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    held: set[int] = set()
    begins = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in skipped:
            begins = begins or token.type == tokenize.NEWLINE
        elif not (begins and token.type == tokenize.STRING):
            held |= set(range(token.start[0], token.end[0] + 1))
            begins = False
    return len(held)


def count(paths: list[Path]) -> list[str]:
    """Return the cells of one row: words, habits per 1,000 words, comment lines per 100 lines of code."""
    lines = [line for path in paths for _, line in prose(path)]
    words = sum(len(re.findall(r"[A-Za-z']+", line)) for line in lines) or 1
    found = Counter(
        {name: sum(len(re.findall(each, line)) for line in lines) for name, each in HABITS.items()}
    )
    sources = [path.read_text("utf-8") for path in paths]
    noted = sum(1 for source in sources for _ in comments(source))
    density = 100 * noted / max(1, sum(map(code_lines, sources)))
    return [str(words), *(f"{1000 * found[name] / words:.1f}" for name in HABITS), f"{density:.1f}"]


def main(rooms: list[str]) -> None:
    """Print the table, or the places in the rooms that are named."""
    files: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        files.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    for path in (each for room in rooms for each in files[room]):
        for number, line in prose(path):
            habits = [name for name, each in HABITS.items() if name != "if" and re.search(each, line)]
            if habits:
                print(f"{path.relative_to(PACKAGE.parent)}:{number}: [{', '.join(habits)}] {line}")
    if not rooms:
        everything = [path for paths in files.values() for path in paths]
        rows = [["room", "words", *HABITS, "comments"]]
        rows += [[room, *count(paths)] for room, paths in files.items()] + [["all", *count(everything)]]
        for first, *rest in rows:
            cells = (f"{cell:>{max(8, len(name) + 2)}}" for name, cell in zip(rows[0][1:], rest, strict=True))
            print(f"{first:<16}{''.join(cells)}")


if __name__ == "__main__":
    main(sys.argv[1:])
