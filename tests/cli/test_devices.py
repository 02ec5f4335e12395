"""Tests of --device: devices that the machine does not have are refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from marsretrieval import build_store, load_model, open_store
from marsretrieval.cli.app import app
from marsretrieval.errors import UsageError
from tests.cli.commands import MODEL, tiles

COMMANDS = (
    "serve {store} --port 0 --no-open",
    "search --store {store} --similar-to nothing",
    "inventory new {store}.inventory --store {store} --similar-to nothing",
    "embed -m mars-nano --images {images} --store {store}.new",
    "run -m mars-nano -t all --data nowhere",
    "models check mars-nano",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    build_store(MODEL, tiles(folder / "tiles", tars=1), folder / "store")
    return folder / "store"


@pytest.mark.parametrize("device", ["tpu", "gpu9", "cuda:99", "-1", "", "meta", "cpu:3"])
@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_devices_are_refused_with_the_list(command: str, device: str, store: Path) -> None:
    words = command.format(store=store, images=store.parent / "tiles").split()
    result = CliRunner().invoke(app, [*words, f"--device={device}"])
    assert result.exit_code == 2, (result.stdout, result.stderr)
    message, remedy = result.stderr.splitlines()[-2:]
    assert message in (
        f"error: unknown device '{device}'",
        f"error: device '{device}' is not available",
    )
    assert remedy.strip().startswith("Devices of this machine: auto, cpu")


def test_a_dry_run_may_plan_for_another_machine(store: Path, tmp_path: Path) -> None:
    command = f"embed -m {MODEL} --images {store.parent / 'tiles'} --store {tmp_path / 'new'}"
    result = CliRunner().invoke(app, [*command.split(), "--dry-run", "--device", "cuda:99"])
    assert result.exit_code == 0, result.output
    assert "does not check that there is a device 'cuda:99'" in result.stderr
    result = CliRunner().invoke(app, [*command.split(), "--dry-run", "--device", "gpu9"])
    assert result.exit_code == 2 and "unknown device 'gpu9'" in result.stderr


def test_python_refuses_unknown_devices(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device 'gpu9'"):
        open_store(store, device="gpu9")
    with pytest.raises(UsageError, match="'cuda:99' is not available"):
        load_model("mars-nano", device="cuda:99")
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        build_store("mars-nano", tmp_path, tmp_path / "store", device="tpu")
    assert list(tmp_path.iterdir()) == []
