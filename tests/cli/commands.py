"""Run commands in this process with fake encoders."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.geo import tile_name
from tests.fakes import png_bytes

__all__ = ["MODEL", "ROOT", "call", "called", "tiles"]

MODEL = "tests.fakes:FakeEncoder"
ROOT = Path(__file__).resolve().parents[2]


def tiles(folder: Path, *, tars: int = 3, rows: int = 4, corrupt: bool = False) -> Path:
    """Write tars of tiles; each is a row eastwards from 1.0 E, rows go north from the equator."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(tars):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as tar:
            for row in range(rows):
                name = tile_name(1 + 0.2 * row, 0.2 * number)
                data = (
                    b"nothing" if corrupt and row == number == 0 else png_bytes(10 * number + row)
                )
                info = tarfile.TarInfo(f"{name}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


def call(*arguments: str | Path | float, code: int = 0) -> Result:
    # The fake encoders are in no registry, so that searching their stores has to be allowed.
    trusted = ["--trust"] if arguments[0] == "search" else []
    result = CliRunner().invoke(app, [*(str(argument) for argument in arguments), *trusted])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def called(*arguments: str | Path | float, code: int = 0) -> Any:
    """Call with --json; nothing but JSON is on stdout."""
    return json.loads(call(*arguments, "--json", code=code).stdout)
