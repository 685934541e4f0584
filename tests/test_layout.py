"""The shape of the package: which module may import which, and how light `import autoprune` stays."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autoprune"

# "a: b c" says that a may import b and c and, with them, everything that they may import.
ARROWS = {
    "errors": "",
    "support": "errors",
    "config": "cost",
    "graph": "support",
    "cost": "graph",
    "rebuilding": "graph",
    "progress": "config",
    "trackers": "support",
    "tracing": "cost rebuilding progress",
    "nn": "tracing",
    "execution": "support",
    "data": "execution",
    "training": "config data",
    "reconstruction": "rebuilding progress",
    "criteria": "reconstruction execution",
    "masks": "training rebuilding",
    "space": "cost config",
    "sparsity": "training criteria space",
    "score": "training criteria space",
    "zoo": "nn",
    "exporting": "rebuilding",
    "latency": "exporting cost",
    "samplers": "space",
    "study": "samplers",
    "engines": "study",
    "reporting": "study latency",
    "flow": "tracing score sparsity masks reporting",
    "run._resolving": "flow engines zoo progress trackers",
    "run._measuring": "run._resolving",
    "run._checks": "run._measuring",
    "run._trials": "run._measuring",
    "run._proposing": "run._trials",
    "run": "run._checks run._proposing",
    "guide": "errors",
    "cli": "run guide",
}
HEAVY = ("ray", "onnx", "onnxruntime", "onnxscript", "matplotlib", "torchvision")


def reachable(name: str) -> set[str]:
    """Follow the arrows from `name`, which belongs to the result: a package's files may import each other."""
    found = {name}
    for target in ARROWS[name].split():
        found |= reachable(target)
    return found


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) for every module that a file imports, from relative imports too."""
    package = ["autoprune", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*prefix, *([node.module] if node.module else [])])
            for alias in node.names:
                inside = module == "autoprune" or alias.name.startswith("_")
                yield node.lineno, f"{module}.{alias.name}" if inside else module


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def noun(path: Path) -> str:
    return room(".".join(path.relative_to(PACKAGE).with_suffix("").parts))


def room(module: str) -> str:
    """Return the room of a module: the first folder of its name, or the first two if the map has them."""
    first, *rest = module.split(".")
    inner = f"{first}.{rest[0]}" if rest else first
    return inner if inner in ARROWS else first


def own_imports() -> Iterator[tuple[Path, str, str]]:
    """Yield (file, module, sentence) for every module of the package that a file of it imports."""
    for path in sources():
        for line, module in imported_modules(path):
            if module.startswith("autoprune."):
                yield path, module, f"{path.relative_to(PACKAGE)}:{line} imports {module}"


def test_imports_only_go_down() -> None:
    assert {noun(path) for path in sources()} - {"__main__"} == ARROWS.keys()
    allowed = {name: reachable(name) for name in ARROWS} | {"__main__": {"cli"}}
    assert [
        sentence
        for path, module, sentence in own_imports()
        if room(module.removeprefix("autoprune.")) not in allowed[noun(path)]
    ] == []


def test_private_modules_and_names_are_imported_in_their_own_folder_alone() -> None:
    def folder(path: Path) -> str:
        return ".".join(["autoprune", *path.relative_to(PACKAGE).parent.parts])

    assert [
        sentence
        for path, module, sentence in own_imports()
        if "._" in module and module.partition("._")[0] not in (folder(path), folder(path.parent))
    ] == []


def test_the_map_of_rooms_for_contributors_is_the_arrows() -> None:
    page = (PACKAGE.parent / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    lines = [f"{room:<14} -> {targets or '(nothing)'}" for room, targets in reversed(ARROWS.items())]
    assert "\n".join(lines) in page, "\n".join(lines)


def test_every_room_is_described_for_contributors() -> None:
    page = (PACKAGE.parent / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    rows = page.partition("| room | content |")[2].partition("\n\n")[0].splitlines()[2:]
    described = {name.strip() for row in rows for name in row.split("|")[1].split(",")}
    assert described == {name.partition("._")[0] for name in ARROWS}


def test_every_file_opens_with_a_docstring() -> None:
    bare = [str(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert not bare


def loaded_at_import(path: Path) -> Iterator[str]:
    """Yield the packages that importing a file loads by itself: those of its own top-level imports."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_heavy_packages_are_imported_only_in_their_users() -> None:
    heavy = {path.name: sorted(set(loaded_at_import(path)) & set(HEAVY)) for path in sources()}
    assert {name: found for name, found in heavy.items() if found} == {
        "ray_tune.py": ["ray"],
        "torchvision_nets.py": ["torchvision"],
    }


def test_neither_the_import_nor_the_help_loads_torch() -> None:
    code = (
        "import sys, autoprune; from autoprune.cli import main; sys.argv = ['autoprune', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('loaded', *[name for name in {('torch', 'numpy', 'optuna', *HEAVY)} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "resume" in run.stdout
    assert run.stdout.splitlines()[-1] == "loaded"


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Python would set the module as an attribute of the package instead of the function."""
    import autoprune

    assert not {noun(path) for path in sources()} & set(autoprune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = autoprune.serach  # type: ignore[attr-defined]  # a typing mistake
    assert set(autoprune.__all__) <= set(dir(autoprune))


def test_public_names_are_all_there() -> None:
    import autoprune

    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    literal = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id == "__all__"
    ]
    assert literal == [autoprune.__all__]
    assert all(callable(getattr(autoprune, name)) for name in autoprune.__all__)
