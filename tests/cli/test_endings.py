"""Exit behaviour: signals, closed pipes, full disks, unexpected errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marsretrieval.cli import main
from marsretrieval.cli.app import app

CODE = """
import sys, time
from pathlib import Path
from marsretrieval.cli.app import app
from marsretrieval.io import atomic_path

folder = Path(sys.argv[1])

@app.command("work")
def work() -> None:
    with atomic_path(folder / "out.txt"):
        print("ready", flush=True)
        time.sleep(30)

sys.argv = ["marsretrieval", "work"]
app()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP"), (signal.SIGINT, "interrupted")],
)
def test_signals_stop_cleanly(tmp_path: Path, number: signal.Signals, word: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert word in errors and "completed work is saved" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_interrupt_while_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("marsretrieval.cli.app.app", interrupt)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted: completed work is saved")


def test_interrupt_while_options_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("marsretrieval.cli.help.Group.parse_args", interrupt, raising=False)
    result = CliRunner().invoke(app, ["tasks"])
    assert result.exit_code == 130 and result.stderr.startswith("interrupted: completed work")


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors with a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_stream_is_not_an_error(closed: str, tmp_path: Path) -> None:
    program = "from marsretrieval.cli import main; main()"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" models list nano {closed}', sys.executable, program],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_stdout_is_reported_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "marsretrieval", "tasks"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_closed_pipe_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "marsretrieval", "tasks"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("odd\nthing"), "error: unexpected RuntimeError: odd thing"),
        (MemoryError(), "error: out of memory"),
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied"),
    ],
)
def test_unexpected_error_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def fail(*values: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("marsretrieval.report.render.console", fail)
    done = CliRunner().invoke(app, ["models", "list"])
    assert done.exit_code == 1
    assert done.stderr.startswith(text) and "Traceback" not in done.stderr
    monkeypatch.setenv("MARSRETRIEVAL_TRACEBACK", "1")
    assert CliRunner().invoke(app, ["models", "list"]).exception is error


def test_verify_of_damaged_data_reports_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"none")
    done = CliRunner().invoke(app, ["data", "verify", str(tmp_path / "images"), "--workers", "1"])
    assert done.exit_code == 1
    error = done.stderr.splitlines()[-2]
    assert error == f"error: {tmp_path / 'images'}: unreadable-image 1"
