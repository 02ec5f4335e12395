"""Package order and import rules of CONTRIBUTING.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import marsretrieval

ROOT = Path(marsretrieval.__file__).parent
MAX_LINES = 600

# A package may import from the packages below it in this list only.
PACKAGES = [
    "cli",
    "web",
    "report",
    "evaluation",
    "api",
    "mteb_tasks",
    "tasks",
    "inventory",
    "training",
    "search",
    "embeddings",
    "encoders",
    "datasets",
    "metrics",
    "plotting",
    "html",
    "geo",
    "results",
    "io",
    "system",
    "progress",
    "text",
    "errors",
    "lazy",
]
# Packages that must not import from others than these.
ALLOWED = {
    "report": {*PACKAGES} - {"encoders"},
    "web": {*PACKAGES} - {"report", "evaluation", "tasks", "metrics", "training"},
    "metrics": {"geo", "results", "errors", "lazy"},
    "plotting": {"geo", "io", "errors", "text", "lazy"},
    "html": {"text"},
    "geo": {"io", "text", "errors", "lazy"},
}


@cache
def modules() -> dict[str, Path]:
    """Map the dotted names of all modules to their files."""
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imports(name: str) -> Iterator[str]:
    """List the package's modules that a module imports, also inside functions and for types."""
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules() else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def graph() -> dict[str, set[str]]:
    return {
        name: {target for target in imports(name) if target in modules()} - {name}
        for name in modules()
    }


def package_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_from_packages_below(package: str) -> None:
    for name, targets in graph().items():
        if package_of(name) != package:
            continue
        for target in map(package_of, targets):
            if target in ("", package):  # the version, and the package itself
                continue
            assert PACKAGES.index(target) > PACKAGES.index(package), f"{name} imports {target}"
            assert target in ALLOWED.get(package, PACKAGES), f"{name} imports {target}"


def test_every_package_is_in_the_list() -> None:
    assert {package_of(name) for name in modules()} - {"", "__main__"} == {*PACKAGES}


def test_modules_have_no_import_cycles() -> None:
    inner = {name: targets for name, targets in graph().items() if not is_package(name)}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def is_package(name: str) -> bool:
    return modules()[name].stem == "__init__"


def test_no_file_is_too_long() -> None:
    counts = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules().values()
    }
    assert {name: lines for name, lines in counts.items() if lines > MAX_LINES} == {}


def test_modules_have_plain_names() -> None:
    """`__init__` and the docs define the public interface, not underscores in file names."""
    private = [path.name for path in modules().values() if path.name.startswith("_")]
    assert {*private} <= {"__init__.py", "__main__.py"}


@pytest.mark.parametrize(
    "package",
    sorted(
        name
        for name, path in modules().items()
        if "from marsretrieval.lazy import" in path.read_text(encoding="utf-8")
    ),
)
def test_lazy_packages_export_what_they_list(package: str) -> None:
    module = import_module(package)
    assert {*module.__all__} <= {*dir(module)}
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
