"""The marsretrieval command as forks of one process that has imported it.

Tests of shell scripts start the command dozens of times. A fork has its own arguments, environment,
folder and streams, as a new process has, without the time of the imports.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

__all__ = ["warm_command"]

IMPORTED = (
    "marsretrieval.cli.app",
    "marsretrieval.cli.embed",
    "marsretrieval.cli.report",
    "marsretrieval.cli.run",
    "marsretrieval.cli.search",
    "marsretrieval.datasets.folder",
    "marsretrieval.datasets.parquet",
    "marsretrieval.datasets.webdataset",
    "marsretrieval.embeddings.pipeline",
    "marsretrieval.encoders.custom",
    "marsretrieval.evaluation",
    "marsretrieval.evaluation.runner",
    "marsretrieval.report.overview",
    "marsretrieval.report.render",
    "marsretrieval.report.result_files",
    "marsretrieval.report.tables",
    "marsretrieval.search.topk",
    "marsretrieval.tasks.ablation",
    "marsretrieval.tasks.geolocalization",
    "marsretrieval.tasks.landform",
    "marsretrieval.tasks.paired_image_text",
    "pyarrow.compute",
    "pyarrow.parquet",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(request)
    code = connection.recv(1)
sys.exit(code[0] if code else "the command was killed")
"""


@contextmanager
def warm_command() -> Iterator[Path]:
    """Start the process that forks.

    Yields:
        Path of a program that does what marsretrieval does.
    """
    with tempfile.TemporaryDirectory() as folder:  # short: addresses have at most 107 bytes
        address, program = f"{folder}/socket", Path(folder) / "marsretrieval"
        program.write_text(CLIENT.format(python=sys.executable, address=address))
        python = Path(folder) / "python"  # the scripts look for it beside the command
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        for path in (program, python):
            path.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        server = subprocess.Popen(
            [sys.executable, __file__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert server.stdin and server.stdout
        try:
            assert server.stdout.readline() == b"ready\n"
            yield program
        finally:
            server.terminate()
            server.communicate()


def _serve(address: str) -> None:
    for name in IMPORTED:
        import_module(name)
    for name in ("pandas", "pydantic"):  # which other libraries use where they are installed
        with suppress(ImportError):
            import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            connection.sendall(bytes([_run(connection)]))
            os._exit(0)
        connection.close()


def _reap(number: int, frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(connection: socket.socket) -> int:
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(2**16)
    arguments, folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    try:
        import_module("marsretrieval.cli").main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
