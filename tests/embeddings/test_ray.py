"""Builds with Ray equal local builds, with killed workers and drivers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marsretrieval.embeddings import (
    RayOptions,
    Target,
    build_store,
    build_stores,
    build_stores_with_ray,
    open_store,
)
from marsretrieval.embeddings.ray import _actors
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MissingDependencyError,
    StoreMismatchError,
    UsageError,
)
from tests.embeddings.processes import assert_equal_stores, wait_for
from tests.fakes import FakeEncoder, FakeSource

ray = pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (6,) * 24


class Slow(FakeSource):
    """A shard takes a twentieth of a second; who reads is written down, a line for each shard.

    The shard `deadly` kills who reads it; `held` is not read before the log has a file .go beside.
    """

    def __init__(self, log: Path, deadly: str = "", held: str = "", **options: Any) -> None:
        super().__init__(counts=COUNTS, **options)
        self.log = log
        self.deadly = deadly
        self.held = held

    def read(self, shard: Any, *, images: bool = True) -> Any:
        with self.log.open("a") as file:
            file.write(f"{shard.name} {os.getpid()}\n")
        if shard.name == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        while shard.name == self.held and not self.log.with_name(".go").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        yield from super().read(shard, images=images)


def target(path: Path, seed: int = 0) -> Target:
    return Target(partial(FakeEncoder, seed=seed), path)


def lines(log: Path) -> list[tuple[str, int]]:
    rows = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return [(name, int(pid)) for name, pid in rows]


@pytest.fixture(scope="module")
def complete_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    build_store(FakeEncoder(), FakeSource(counts=COUNTS), path)
    return path


@pytest.fixture(scope="module")
def two_workers() -> Iterator[RayOptions]:
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield RayOptions(workers=1)
    ray.shutdown()


def test_two_workers_build_the_same_stores_and_one_is_killed(
    tmp_path: Path, complete_store: Path, two_workers: RayOptions
) -> None:
    log, stores = tmp_path / "log", [tmp_path / "a", tmp_path / "b"]
    killed: list[int] = []

    def kill_one() -> None:
        """Return the worker that waits within a shard."""
        while "000012" not in dict(lines(log)):
            time.sleep(0.01)
        killed.append(dict(lines(log))["000012"])
        os.kill(killed[0], signal.SIGKILL)
        (tmp_path / ".go").touch()

    threading.Thread(target=kill_one, daemon=True).start()
    reports = build_stores_with_ray(
        [target(stores[0]), target(stores[1], seed=1)], Slow(log, held="000012"),
        options=two_workers,
    )  # fmt: skip
    assert [(report.rows, report.embedded, report.reused) for report in reports] == [
        (144, 144, 0)
    ] * 2
    pids = {pid for _, pid in lines(log)}
    assert os.getpid() not in pids and len(pids - set(killed)) >= 2
    assert {name for name, _ in lines(log)} == {f"{number:06d}" for number in range(24)}
    for seed, store in enumerate(stores):
        assert open_store(store).complete and open_store(store).verify() == []
        alone = tmp_path / f"alone-{seed}"
        build_store(FakeEncoder(seed=seed), FakeSource(counts=COUNTS), alone)
        assert_equal_stores(store, alone)
    assert reports[0].images_per_s and 0 <= (reports[0].device_idle or 0) <= 1
    # Continued without Ray, there is nothing left to do.
    assert build_stores([target(stores[0])], FakeSource(counts=COUNTS))[0].reused == 144
    again = build_stores_with_ray([target(stores[0])], FakeSource(counts=COUNTS))
    assert again[0].embedded == 0


DRIVER = """
import sys
from functools import partial
from pathlib import Path
from marsretrieval.embeddings import RayOptions, Target, build_stores_with_ray
from tests.embeddings.test_ray import Slow
from tests.fakes import FakeEncoder
report, = build_stores_with_ray(
    [Target(FakeEncoder, Path(sys.argv[1]))], Slow(Path(sys.argv[2]), held="000012"),
    options=RayOptions(workers=1),
)
print(report.embedded, report.reused)
"""


@pytest.mark.slow
def test_the_driver_is_killed_and_started_again(tmp_path: Path, complete_store: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    command = [sys.executable, "-c", DRIVER, str(store), str(log)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(driver, store, "shards/*.json", 5)
    driver.kill()
    driver.communicate(timeout=60)
    rows = open_store(store).rows
    assert 30 <= rows < 144 and "000012" in open_store(store).missing
    (tmp_path / ".go").touch()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    embedded, reused = map(int, done.stdout.split())
    assert embedded + reused == 144 and reused >= rows
    assert open_store(store).complete and open_store(store).verify() == []
    assert_equal_stores(store, complete_store)


CLUSTER = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from marsretrieval.embeddings import RayOptions, Target, build_stores_with_ray
from tests.embeddings.test_ray import Slow, lines
from tests.fakes import FakeEncoder

cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
)
second = cluster.add_node(num_cpus=1)
ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
cluster.wait_for_nodes()
store, log = Path(sys.argv[1]), Path(sys.argv[2])

def lose_a_machine():
    while len({pid for _, pid in lines(log)}) < 2 or "000012" not in dict(lines(log)):
        time.sleep(0.01)
    cluster.remove_node(second, allow_graceful=False)
    log.with_name(".go").touch()

threading.Thread(target=lose_a_machine, daemon=True).start()
report, = build_stores_with_ray(
    [Target(FakeEncoder, store)], Slow(log, held="000012"), options=RayOptions(workers=1)
)
print(report.embedded)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_lost_machine_without_replacement(tmp_path: Path, complete_store: Path) -> None:
    # What it was doing is done by the other one, once that has nothing else to do.
    store, log = tmp_path / "store", tmp_path / "log"
    command = [sys.executable, "-c", CLUSTER, str(store), str(log)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split()[-1] == "144", done.stderr
    assert open_store(store).complete and open_store(store).verify() == []
    assert_equal_stores(store, complete_store)


def nodes(*resources: dict[str, float]) -> Any:
    records = [{"Alive": True, "Resources": resource} for resource in resources]
    return SimpleNamespace(nodes=lambda: [*records, {"Alive": False, "Resources": {"CPU": 64}}])


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [
        ([{"CPU": 64.0}, {"CPU": 16.0, "GPU": 8.0}], None, (8, 2, 1.0)),  # not (64 + 16) / 8 CPUs
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}], None, (6, 4, 1.0)),
        ([{"CPU": 32.0, "GPU": 4.0}], 12, (2, 12, 1.0)),
        ([{"CPU": 4.0, "GPU": 8.0}], None, (4, 1, 1.0)),
        ([{"CPU": 6.0}, {"CPU": 6.0}], None, (2, 4, None)),  # not three, of which one has no room
        ([{"CPU": 2.0}], None, (1, 2, None)),
        ([{"CPU": 2.0}, {"CPU": 3.0}], 8, (1, 3, None)),
        ([{}, {"CPU": 16.0}], None, (4, 4, None)),
    ],
)
def test_number_of_actors_is_limited_by_memory(
    machines: list[dict[str, float]], workers: int | None, expected: tuple[int, int, float | None]
) -> None:
    count, resources = _actors(nodes(*machines), RayOptions(workers=workers), 8)
    assert (count, resources["num_cpus"], resources.get("num_gpus")) == expected


def test_cluster_without_a_free_cpu() -> None:
    with pytest.raises(UsageError, match="no machine of the cluster offers a CPU"):
        _actors(nodes({"GPU": 2.0}), RayOptions(), 100)
    count, resources = _actors(nodes({"CPU": 8.0, "GPU": 2.0}), RayOptions(gpus=False), 100)
    assert count == 2 and "num_gpus" not in resources


@pytest.mark.slow
def test_shards_that_kill_their_process_are_skipped_after_retries(
    tmp_path: Path, two_workers: RayOptions
) -> None:
    source = Slow(tmp_path / "log", deadly="000020")
    with pytest.raises(DataError, match=r"shards could not be read .*died 5 times"):
        build_stores_with_ray([target(tmp_path / "store")], source, options=two_workers)
    store = open_store(tmp_path / "store")
    assert "000020" in store.missing and store.rows >= 144 - 8 * 6
    assert [name for name, _ in lines(tmp_path / "log")].count("000020") == 5


def dying() -> FakeEncoder:
    os.kill(os.getpid(), signal.SIGKILL)
    return FakeEncoder()


@pytest.mark.slow
def test_model_that_kills_its_process_is_an_error(tmp_path: Path, two_workers: RayOptions) -> None:
    with pytest.raises(MarsRetrievalError, match="that loads the models died 5 times"):
        build_stores_with_ray([Target(dying, tmp_path)], FakeSource(), options=two_workers)


@pytest.mark.slow
def test_errors_equal_those_of_a_local_build(tmp_path: Path, two_workers: RayOptions) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    source = Slow(log, broken=frozenset({"000003"}))
    with pytest.raises(DataError, match=r"1 of 24 shards .*000003: .*end of file"):
        build_stores_with_ray([target(store)], source, options=two_workers)
    assert open_store(store).missing == ["000003"]
    with pytest.raises(StoreMismatchError, match="id: fake-0 in the store, fake-1 now"):
        build_stores_with_ray([target(store, seed=1)], Slow(log), options=two_workers)
    assert open_store(store).rows == 138
    (report,) = build_stores_with_ray(
        [target(store, seed=1)], Slow(log), options=two_workers, force=True
    )
    assert report.embedded == 144 and open_store(store).encoder["id"] == "fake-1"
    with pytest.raises(UsageError, match="pass a function"):
        build_stores_with_ray([Target(FakeEncoder(), store)], Slow(log))


def test_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray, which is not installed\n.*\[ray\]"):
        build_stores_with_ray([target(tmp_path)], FakeSource())


def test_ray_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise Exception("the current node timed out during startup")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(MarsRetrievalError, match=r"did not start .*timed out.*\n.*--engine local"):
        build_stores_with_ray([target(tmp_path)], FakeSource())
