"""Measure the code: sizes, names, docstrings and imports, by the syntax tree.

    python scripts/metrics/code_metrics.py [--json] [--executed]

With --executed, three commands run on a tiny synthetic planet and the source files that each
executes are counted.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "marsretrieval"
SOURCE = ROOT / "src" / PACKAGE
# Names that say nothing about the thing they stand for.
VAGUE = {
    "asked", "each", "found", "here", "kept", "known", "left", "mine", "place", "places", "seen",
    "shown", "some", "there", "told", "wanted", "whole",
}  # fmt: skip
SECTION = re.compile(r"^\s*(Args|Returns|Raises|Yields):", re.MULTILINE)
COUNT_FILES = """
import sys
from marsretrieval.cli import main
sys.argv[1:] = {arguments!r}
try:
    main()
except SystemExit:
    pass
files = {{getattr(module, "__file__", None) for module in list(sys.modules.values())}}
count = sum({source!r} in str(file) for file in files)
print(count, file=open({output!r}, "w"))
"""


def parse(folder: Path) -> dict[Path, ast.Module]:
    """Parse all Python files of a folder."""
    paths = sorted(folder.rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def sizes(trees: dict[Path, ast.Module]) -> dict[str, Any]:
    """Count files and lines, per package and in all."""
    lines: dict[str, list[int]] = defaultdict(list)
    for path in trees:
        count = len(path.read_text(encoding="utf-8").splitlines())
        parts = path.relative_to(SOURCE).parts
        for name in ("all", parts[0] if len(parts) > 1 else "root modules"):
            lines[name].append(count)
    return {
        name: {
            "files": len(counts),
            "lines": sum(counts),
            "median": statistics.median(counts),
            "p90": sorted(counts)[int(0.9 * (len(counts) - 1))],
            "max": max(counts),
        }
        for name, counts in sorted(lines.items())
    }


def vague_names(trees: Iterable[ast.Module]) -> tuple[float, dict[str, int]]:
    """Compute the share of vague names per 1,000 identifiers, and count each."""
    names: Counter[str] = Counter()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                names[node.id] += 1
            elif isinstance(node, ast.arg):
                names[node.arg] += 1
    vague = {name: names[name] for name in sorted(VAGUE) if names[name]}
    return 1000 * sum(vague.values()) / names.total(), vague


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public functions and methods that have parameters."""
    parents = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for parent in parents:
        if isinstance(parent, ast.ClassDef) and parent.name.startswith("_"):
            continue
        for node in parent.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            is_stub = any(text.endswith(("overload", "setter")) for text in decorators)
            if not node.name.startswith("_") and names - {"self", "cls"} and not is_stub:
                yield node


def imported_once(trees: dict[Path, ast.Module]) -> list[str]:
    """List the modules that exactly one other module imports."""
    importers: dict[str, set[Path]] = defaultdict(set)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                importers[str(node.module)].add(path)
                for alias in node.names:
                    importers[f"{node.module}.{alias.name}"].add(path)
    names = {
        path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in trees
    }
    return sorted(
        name
        for path, name in names.items()
        if path.stem != "__init__" and len(importers[name]) == 1
    )


def tests_with_private_imports(trees: dict[Path, ast.Module]) -> list[str]:
    """List the test modules that import a private name or module of the package."""
    private = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
                continue
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            if any(part.startswith("_") and part[:2] != "__" for part in parts):
                private.append(str(path.relative_to(ROOT)))
                break
    return private


def executed_files() -> dict[str, int]:
    """Count the source files that three commands import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = [sys.executable, "-m", PACKAGE]
        planet, store = str(folder / "planet"), str(folder / "tiles.store")
        tiles = str(folder / "planet" / "Mars-Global-Geolocalization" / "tiles")
        landforms = str(folder / "planet" / "Mars-Landforms")
        subprocess.run([*run, "data", "synth", "--out", planet, "--size", "tiny"], check=True)
        commands = {
            "run": ["run", "-m", "mars-nano", "-t", "landform", "--data", landforms,
                    "--results", str(folder / "results")],
            "embed": ["embed", "-m", "mars-nano", "--images", tiles, "--store", store],
            "search": ["search", "--store", store, "--text", "pitted cones", "-k", "5"],
        }  # fmt: skip
        counts = {}
        for command, arguments in commands.items():
            output = folder / "count"
            code = COUNT_FILES.format(arguments=arguments, source=str(SOURCE), output=str(output))
            subprocess.run([sys.executable, "-c", code], check=True)
            counts[command] = int(output.read_text())
        return counts


def main() -> None:
    """Print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--executed", action="store_true", help="count files that commands execute")
    arguments = parser.parse_args()
    source, tests = parse(SOURCE), parse(ROOT / "tests")
    functions = [node for tree in source.values() for node in public_functions(tree)]
    documented = sum(bool(SECTION.search(ast.get_docstring(node) or "")) for node in functions)
    classes = Counter(
        node.name
        for tree in source.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    share, names = vague_names(source.values())
    once, private = imported_once(source), tests_with_private_imports(tests)
    metrics: dict[str, Any] = {
        "sizes": sizes(source),
        "test lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests),
        "vague names per 1,000 identifiers": round(share, 1),
        "vague names": names,
        "public functions with parameters": len(functions),
        "of these with Args, Returns or Raises, %": round(100 * documented / len(functions)),
        "modules imported once": len(once),
        "class names used twice": sorted(name for name, count in classes.items() if count > 1),
        "test files with private imports": private,
    }
    if arguments.executed:
        metrics["files executed"] = executed_files()
    if arguments.json:
        print(json.dumps(metrics, indent=2))
        return
    for key, value in metrics.items():
        if key == "sizes":
            for package, counts in value.items():
                print(f"{package:14} {'  '.join(f'{k} {v:,.0f}' for k, v in counts.items())}")
        else:
            print(f"{key}: {value}")


if __name__ == "__main__":
    main()
