"""A server process: its address, busy ports, and the end by Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from marsretrieval.errors import OutputError, UsageError
from marsretrieval.web.server import MapServer, ServeOptions


def test_a_busy_port_is_replaced_by_the_next(tile_store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = []
        server = MapServer(ServeOptions([tile_store], port=port), tell=lines.append)
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
    with pytest.raises(UsageError, match="--basemap"):
        MapServer(ServeOptions([tile_store], basemap=tmp_path / "none.png"))
    with pytest.raises(OutputError, match="cannot listen"):
        MapServer(ServeOptions([tile_store], host="203.0.113.7"))


def test_serve_prints_its_address_and_ends_with_ctrl_c(tile_store: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-m", "marsretrieval", "serve", str(tile_store), "--port", "0",
            "--no-open", "--json", "--device", "cpu",
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
            assert json.load(response)["tiles"] > 0
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, 130)
        assert "Traceback" not in error
    finally:
        process.kill()
        process.communicate()
