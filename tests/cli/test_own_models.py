"""Errors in user-defined model classes on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from tests.fakes import png_bytes

HEAD = """
import numpy as np

def mean(images):
    return np.array([[image.convert("L").resize((1, 1)).getpixel((0, 0)), 9.0, image.width]
                     for image in images])

"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write mine.py with a class `Mine` of this body, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write_class(body: str) -> None:
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        (tmp_path / "mine.py").write_text(f"{HEAD}class Mine:\n{body}")

    return write_class


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


IMAGES = "    def encode_images(self, images):\n        return mean(images)\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "    def encode_images(self, images):\n"
            "        if images[0].width != 64:\n"
            "            raise ValueError('only 64 pixels')\n"
            "        return mean(images)\n",
            "ValueError: only 64 pixels, at mine.py:11",
        ),
        (
            "    def encode_images(self, images):\n"
            "        return np.linalg.inv(np.zeros((3, 3)))\n",
            "at mine.py:10",
        ),
        (
            IMAGES + "    def encode_texts(self, texts):\n"
            "        if len(texts) > 1:\n            raise IndexError('too many')\n"
            "        return [[1, 2, 3]]\n",
            "IndexError: too many, at mine.py:13",
        ),
        (
            IMAGES + "    def encode_texts(self, texts):\n"
            "        return [[1, 2, len(text)] for text in texts]\n"
            "    def count_truncated(self, texts):\n        return 1 / 0\n",
            "ZeroDivisionError: division by zero, at mine.py:14",
        ),
        (
            IMAGES + "    @property\n    def fingerprint(self):\n        raise OSError('lost')\n",
            "OSError: lost, at mine.py:13",
        ),
        (
            IMAGES
            + "    @property\n    def device(self):\n        raise RuntimeError('no driver')\n"
            "    def __init__(self):\n        raise SystemExit(3)\n",
            "SystemExit: 3, at mine.py:15",
        ),
        (
            IMAGES
            + "    @property\n    def modalities(self):\n        raise RuntimeError('none')\n",
            "RuntimeError: none, at mine.py:13",
        ),
        (
            IMAGES
            + "    @property\n    def dimension(self):\n        raise RuntimeError('which')\n",
            "RuntimeError: which, at mine.py:13",
        ),
    ],
)
def test_check_names_the_line_in_the_users_code(write, body: str, words: str) -> None:
    write(body)
    result = call("models", "check", "mine:Mine", code=1)
    assert words in result.stdout + result.stderr


def test_a_class_that_ends_the_process_is_named(write) -> None:
    write("    def encode_images(self, images):\n        raise SystemExit(0)\n")
    assert "SystemExit: 0, at mine.py:10" in call("models", "check", "mine:Mine", code=1).stderr


def test_check_names_the_first_problem_on_stderr(write) -> None:
    write(IMAGES + "    def encode_texts(self, texts):\n        return [[1, 2, 3]] * len(texts)\n")
    error = call("models", "check", "mine:Mine", code=1).stderr
    assert "error: mine:Mine: " in error and "check again" in error


def test_embed_skips_an_image_that_the_class_cannot_embed(write, tmp_path: Path) -> None:
    write(
        "    def encode_images(self, images):\n"
        "        if any(image.width == 17 for image in images):\n"
        "            raise ValueError('17 pixels')\n"
        "        return mean(images)\n"
    )
    (tmp_path / "tiles").mkdir()
    for number in range(5):
        path = tmp_path / "tiles" / f"{number}.png"
        path.write_bytes(png_bytes(number, 17 if number == 3 else 24))
    arguments = ["embed", "-m", "mine:Mine", "--images", "tiles", "--store"]
    result = call(*arguments, "store", "--json")
    (skipped,) = json.loads(result.stdout)["skipped"]
    assert skipped["source"].endswith("3.png")
    assert "ValueError: 17 pixels, at mine.py:11" in skipped["reason"]
    assert "3.png" in call("store", "info", "store").stdout
    strict = call(*arguments, "strict", "--strict", code=1)
    assert "3.png" in strict.stderr and "17 pixels" in strict.stderr


def test_run_warns_of_vectors_that_change_with_the_batch(
    write,
    tiny_planet: Path,
    tmp_path: Path,
) -> None:
    write(
        "    def encode_images(self, images):\n"
        "        return mean(images) + [0, 0, 40 * len(images)]\n"
        "    def encode_texts(self, texts):\n"
        "        return [[len(text), 5 * max(map(len, texts)), 9] for text in texts]\n"
    )
    arguments = ["run", "-m", "mine:Mine", "-t", "landform", "--data", str(tiny_planet)]
    result = call(*arguments, "--resamples", "0")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2 and all(
        "batch and single vectors differ" in line for line in warnings
    )
    value = json.loads(next(tmp_path.glob("results/*/landform*.json")).read_text())
    assert [f"warning: mine-Mine: {line}" for line in value["model"]["warnings"]] == warnings
    again = call(*arguments, "--resamples", "0")
    assert "already done" in again.stderr and "warning" not in again.stderr
