"""A server process: its address, busy ports, and the end by Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import marsretrieval as mr
from marsretrieval.api.inventory import create_inventory, open_inventory
from marsretrieval.errors import DataError, OutputError, UsageError
from marsretrieval.web.server import MapServer, ServeOptions


def test_a_busy_port_is_replaced_by_the_next(tile_store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = []
        server = MapServer(ServeOptions([tile_store], port=port), report=lines.append)
        assert server.port > port
        assert server.url == f"http://127.0.0.1:{server.port}/"
        assert f"note: port {port} is in use; using {server.port}" in lines


def test_other_addresses_get_a_token(tile_store):
    server = MapServer(ServeOptions([tile_store], host="0.0.0.0", port=0))
    assert f"#token={server.token}" in server.url
    assert len(server.token) >= 32


def test_wrong_options(tile_store, tmp_path):
    with pytest.raises(UsageError, match="--images"):
        MapServer(ServeOptions([tile_store], images=[tmp_path / "none"]))
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        MapServer(ServeOptions([tile_store], basemap=str(tmp_path / "none.png")))
    with pytest.raises(UsageError, match="--landform without --inventory"):
        MapServer(ServeOptions([tile_store], landform="dunes"))
    with pytest.raises(OutputError, match="cannot listen"):
        MapServer(ServeOptions([tile_store], host="203.0.113.7"))


def test_serve_prints_its_address_and_ends_with_ctrl_c(tile_store: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "cones.inventory"
    vector = np.eye(1, 128)[0]
    create_inventory(inventory, mr.open_store(tile_store), vector=vector, landform="cones").close()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "marsretrieval", "serve", str(tile_store), "--port", "0",
            "--no-open", "--json", "--device", "cpu", "--inventory", str(inventory),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            text += line
        url = json.loads(text)["url"]
        with urllib.request.urlopen(f"{url}api/v1/store", timeout=60) as response:
            info = json.load(response)
        assert info["tiles"] > 0 and "USGS" in info["basemap"]
        with urllib.request.urlopen(f"{url}api/v1/basemap", timeout=60) as response:
            assert response.headers["content-type"] == "image/jpeg"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert error.splitlines()[-1] == f"Stopped; all marks are saved in {inventory}."
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_killed_server_loses_no_confirmed_mark(tile_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "cones.inventory"
    tiles = [hit.id for hit in mr.open_store(tile_store, device="cpu").search("cones", k=200)]
    create_inventory(
        path, mr.open_store(tile_store), vector=np.eye(1, 128)[0], landform="cones"
    ).close()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "marsretrieval", "serve", str(tile_store), "--port", "0",
            "--no-open", "--json", "--device", "cpu", "--inventory", str(path),
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    confirmed: list[str] = []

    def mark_all(url: str) -> None:
        for tile in tiles:
            request = urllib.request.Request(
                f"{url}api/v1/marks/{urllib.parse.quote(tile)}", b'{"mark": "yes"}',
                {"content-type": "application/json"}, method="PUT",
            )  # fmt: skip
            try:
                with urllib.request.urlopen(request, timeout=60):
                    confirmed.append(tile)
            except OSError:
                return

    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        reader = threading.Thread(target=mark_all, args=(json.loads(text)["url"],))
        reader.start()
        while len(confirmed) < 20:
            time.sleep(0.001)
    finally:
        process.kill()
        process.communicate()
    reader.join()
    assert 20 <= len(confirmed) < len(tiles)
    with open_inventory(path) as inventory:
        saved = [mark.id for mark in inventory.files.marks]
    assert saved[: len(confirmed)] == confirmed
    assert len(saved) <= len(confirmed) + 1
