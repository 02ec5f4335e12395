"""Images decoded in processes: the same store, and clear errors if a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings import Target, build_store, build_stores, open_store
from marsretrieval.embeddings.pipeline import open_decoders
from marsretrieval.errors import MarsRetrievalError, UsageError
from tests.fakes import FakeEncoder, FakeSource, picture, thumbnail

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (5, 0, 19, 1, 8, 12)


def is_picture(image: Image.Image, row: int) -> bool:
    return picture(row).tobytes() == image.tobytes()


def upside_down(image: Image.Image) -> Any:
    """Preprocessing of another model that fails for some images; its output is large enough for a
    file."""
    pixels = thumbnail(image)[::-1]
    if is_picture(image, 2007):
        raise ValueError("too bright")
    return {"pixels": np.tile(pixels, (64, 1)), "size": image.size}


class Turned(FakeEncoder):
    preprocess = staticmethod(upside_down)  # type: ignore[assignment]

    def encode_preprocessed(self, features: Any) -> Any:
        return super().encode_preprocessed([feature["pixels"][-1] for feature in features])


def fatal(image: Image.Image) -> Any:
    if is_picture(image, 5003):
        os.kill(os.getpid(), signal.SIGKILL)
    return thumbnail(image)


class Homeless:
    """It can be pickled here and not unpickled in the worker."""

    def __call__(self, image: Image.Image) -> Any:
        return thumbnail(image)

    def __reduce__(self) -> Any:
        return int, ("no number",)


def docks(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"marsretrieval-{pid}-*"))


def test_processes_make_the_same_stores_as_threads(tmp_path: Path) -> None:
    source = FakeSource(
        counts=COUNTS,
        corrupt=frozenset({"tile-002003", "tile-002004", "tile-004000"}),
        unreadable=frozenset({"tile-005011"}),
    )
    stores = {}
    for kind in ("threads", "processes"):
        targets = [
            Target(FakeEncoder(), tmp_path / kind / "a"),
            Target(Turned(seed=1), tmp_path / kind / "b"),
        ]
        build_stores(targets, source, workers=2, decode_in=kind, batch_size=4, dtype="float32")
        stores[kind] = [open_store(target.path) for target in targets]
    for one, other in zip(*stores.values(), strict=True):
        assert one.load()[0] == other.load()[0]
        np.testing.assert_array_equal(one.load()[1], other.load()[1])
        assert one.set_hash == other.set_hash and one.skipped == other.skipped
    assert [item.id for item in other.skipped if "too bright" in item.reason] == ["tile-002007"]


def test_killed_worker_stops_the_build_and_finished_shards_remain(tmp_path: Path) -> None:
    class Deadly(FakeEncoder):
        preprocess = staticmethod(fatal)  # type: ignore[assignment]

    source = FakeSource(counts=(40,) * 8)
    with pytest.raises(MarsRetrievalError, match="decodes images died") as caught:
        build_store(Deadly(), source, tmp_path, workers=1, decode_in="processes", batch_size=4)
    assert "Finished shards are saved" in str(caught.value)
    assert not docks(os.getpid())
    partial = open_store(tmp_path)
    assert 80 <= partial.rows <= 200
    report = build_store(FakeEncoder(), source, tmp_path)
    assert report.rows == 320 and report.reused == partial.rows


def test_preprocessing_that_cannot_be_sent(tmp_path: Path) -> None:
    class Local(FakeEncoder):
        preprocess = property(lambda self: lambda image: thumbnail(image))  # type: ignore[assignment]

    with pytest.raises(UsageError, match="cannot be sent to a process"):
        build_store(Local(), FakeSource(), tmp_path / "a", workers=2, decode_in="processes")
    assert open_decoders([lambda image: 0], 16, "auto", gpu=True).images_per_task == 1

    class Lost(FakeEncoder):
        preprocess = property(lambda self: Homeless())  # type: ignore[assignment]

    with pytest.raises(MarsRetrievalError, match=r"cannot load the model's preprocessing .*int"):
        build_store(Lost(), FakeSource(), tmp_path / "b", workers=1, decode_in="processes")


@pytest.mark.parametrize(
    ("gpu", "workers", "images", "processes"),
    [
        (True, 16, None, True),
        (True, 16, 1_000_000, True),
        (True, 16, 600, False),  # over before they are started
        (True, 2, None, False),  # threads hardly wait for one another
        (False, 16, None, False),  # the model needs the CPUs
    ],
)
def test_choice_of_auto(gpu: bool, workers: int, images: int | None, processes: bool) -> None:
    decoders = open_decoders([thumbnail], workers, "auto", gpu=gpu, images=images)
    assert (decoders.images_per_task > 1) is processes
    decoders.close()


BUILD = """
import sys
from pathlib import Path
from marsretrieval.embeddings import build_store
from tests.fakes import FakeEncoder, FakeSource

if __name__ == "__main__":
    build_store(
        FakeEncoder(delay=0.02), FakeSource(counts=(6,) * 200), Path(sys.argv[1]),
        batch_size=4, workers=2, decode_in="processes",
    )
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_build_leaves_no_process_or_file(tmp_path: Path, how: signal.Signals) -> None:
    script, store = tmp_path / "build.py", tmp_path / "store"
    script.write_text(BUILD)
    build = subprocess.Popen(
        [sys.executable, str(script), str(store)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list((store / "shards").glob("*.json"))) < 3:
        assert build.poll() is None, build.communicate()[1]
        time.sleep(0.01)
    os.killpg(build.pid, how) if how == signal.SIGINT else build.kill()
    _, output = build.communicate(timeout=60)
    assert build.returncode != 0
    assert output.count("Traceback") <= 1  # of the build itself; none of its processes
    deadline = time.monotonic() + 30
    while docks(build.pid) or _members(build.pid):
        assert time.monotonic() < deadline, "a process or a folder is left"
        time.sleep(0.05)
    assert open_store(store).rows >= 18


def _members(group: int) -> list[int]:
    """List the running processes of a group."""
    output = subprocess.run(
        ["ps", "-e", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in output.splitlines()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and "Z" not in state]
