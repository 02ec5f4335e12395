"""Compare exact search with faiss, warm and as complete processes, in one run.

    python -m benchmarks.search.run --folder planet                      # 100,000 x 256, a minute
    python -m benchmarks.search.run --folder planet --full --out figures.json

`--full` is 1,400,000 x 1024 and needs 14 GB of disk and 20 GB of memory for the published method.
All methods are measured in turn within each round, since on a shared machine only such times are
comparable; medians over the rounds. `limit` is the time to read the bytes that a method must
read, at the speed at which two threads read memory in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.search.generate import generate
from marsretrieval.embeddings import open_store
from marsretrieval.geo import Box
from marsretrieval.search import SearchIndex, drop_index, exact_topk, make_index, open_index
from marsretrieval.system import hardware, package_versions, usable_cpus

BOXES = {"60x60": Box(100, -30, 160, 30), "10x10": Box(130, 0, 140, 10)}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_speed(codes: Any) -> float:
    """Measure memory bandwidth of all CPUs in bytes per second, by the faster of two reductions."""
    flat = codes.reshape(-1)
    flat = flat[: len(flat) // 8 * 8]
    speeds = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for numbers, reduce in ((flat, np.max), (flat.view(np.int64), np.bitwise_or.reduce)):
            parts = np.array_split(numbers, 32 * usable_cpus())
            took = seconds(lambda reduce=reduce, parts=parts: list(pool.map(reduce, parts)))
            speeds.append(flat.nbytes / took)
    return float(max(speeds))


def process(*arguments: object) -> dict[str, float]:
    """Run a process and measure its wall time, CPU time and memory.

    Memory is the peak, with shared file pages, and the private memory at the end; the process
    prints both on its last line.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    answer = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    peak, own = map(int, answer.split())
    return {
        "s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gb": peak * 1024 / 1e9,
        "own_gb": own * 1024 / 1e9,
    }


def stored_best(index: SearchIndex, queries: Any, k: int) -> list[set[int]]:
    """Search the stored vectors with faiss, block by block."""
    scores: list[Any] = []
    rows: list[Any] = []
    for start in range(0, index.rows, 100_000):
        block = index.stored[start : start + 100_000].astype(np.float32)
        nearest = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores.append(nearest[0])
        rows.append(index.row_of[start + nearest[1]])
    score, row = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
    best = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return [set(item) for item in np.take_along_axis(row, best, axis=1)]


def common(actual: Any, expected: list[set[int]]) -> float:
    """Return the lowest recall of the expected rows over all queries."""
    pairs = zip(actual, expected, strict=True)
    return min(len(want & set(rows.tolist())) / len(want) for rows, want in pairs)


def warm(settings: argparse.Namespace, index: SearchIndex, queries: Any) -> dict[str, Any]:
    folder, k = settings.folder, settings.k
    features = np.asarray(np.load(folder / "published" / "features.npy", mmap_mode="r"))
    store = open_store(folder / "store")
    one = queries[:1]
    metric = faiss.METRIC_INNER_PRODUCT

    def plain(query_vectors: Any, count: int, **options: Any) -> Callable[[], Any]:
        return lambda: exact_topk(store, query_vectors, count, index="ignore", **options)

    def ours(
        query_vectors: Any, count: int, kernel: str = "auto", **options: Any
    ) -> Callable[[], Any]:
        return lambda: exact_topk(index, query_vectors, count, kernel=kernel, **options)

    codes, half, full = index.codes.nbytes, index.stored.nbytes, features.nbytes
    ten = len(queries)
    methods: dict[str, tuple[Callable[[], Any], float]] = {
        f"faiss.knn, float32, 1 query, k={k}": (
            lambda: faiss.knn(one, features, k, metric=metric), full),
        f"faiss.knn, float32, {ten} queries, k={k}": (
            lambda: faiss.knn(queries, features, k, metric=metric), full),
        f"without index, numpy, 1 query, k={k}": (plain(one, k), half),
        f"without index, numpy, {ten} queries, k={k}": (plain(queries, k), half),
    }  # fmt: skip
    for kernel in settings.kernels:
        methods |= {
            f"index, {kernel}, 1 query, k=100": (ours(one, 100, kernel), codes),
            f"index, {kernel}, 1 query, k={k}": (ours(one, k, kernel), codes),
            f"index, {kernel}, {ten} queries, k={k}": (ours(queries, k, kernel), codes),
        }
    positions = store.positions()
    for name, box in BOXES.items():
        share = int(box.contains(positions[:, 0], positions[:, 1]).sum()) / index.rows
        methods[f"without index, box {name}, 1 query, k=100"] = (
            plain(one, 100, region=box),
            share * half,
        )
        methods[f"index, box {name}, 1 query, k=100"] = (
            ours(one, 100, region=box), share * codes)  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in methods}
    limits: dict[str, list[float]] = {name: [] for name in methods}
    speeds = []
    for number in range(settings.rounds + 1):
        speed = read_speed(index.codes)
        for name, (work, size) in methods.items():
            took = seconds(work)
            if number:  # the first round warms up
                times[name].append(took)
                limits[name].append(size / speed)
        if number:
            speeds.append(speed)
            print(f"round {number}: reading {speed / 1e9:.1f} GB/s", file=sys.stderr, flush=True)
    expected = stored_best(index, queries, k)
    equal = common(exact_topk(index, queries, k).rows, expected)
    originals = faiss.knn(queries, features, k, metric=metric)[1]
    return {
        "read_gb_s": statistics.median(speeds) / 1e9,
        "methods": {
            name: {
                "ms": 1e3 * statistics.median(took),
                "least_ms": 1e3 * min(took),
                "limit_ms": 1e3 * statistics.median(limits[name]),
            }
            for name, took in times.items()
        },
        "same_set_as_faiss_on_stored_vectors": equal,
        "same_set_as_faiss_on_float32": common(
            exact_topk(index, queries, k).rows, [set(rows.tolist()) for rows in originals]
        ),
    }


def whole(settings: argparse.Namespace, count: int) -> dict[str, Any]:
    """Time complete processes: one for all queries, and one per query with the published method."""
    folder, k = settings.folder, settings.k
    with tempfile.TemporaryDirectory() as out:

        def ours() -> dict[str, float]:
            into = Path(out) / "ours.npy"
            return process("benchmarks.search.ours", folder, count, k, "auto", into)

        def published(query: int) -> dict[str, float]:
            into = Path(out) / f"{query}.npy"
            return process("benchmarks.search.published", folder, query, k, into)

        ours(), published(0)  # load the files into the page cache
        own_seconds, theirs = [], []
        for query in range(count):
            own_seconds.append(ours())
            theirs.append(published(query))
            print(
                f"{own_seconds[-1]['s']:.2f} s, {theirs[-1]['s']:.2f} s",
                file=sys.stderr,
                flush=True,
            )
            # The published method fills the page cache: read the files of the store again.
            ours()
    total, total_cpu = (sum(item[clock] for item in theirs) for clock in ("s", "cpu_s"))
    median, cpu = (
        statistics.median(item[clock] for item in own_seconds) for clock in ("s", "cpu_s")
    )
    return {
        "ours_s": median,
        "ours_least_s": min(item["s"] for item in own_seconds),
        "ours_cpu_s": cpu,
        "published_s": total,
        "published_least_s": len(theirs) * min(item["s"] for item in theirs),
        "published_cpu_s": total_cpu,
        "ratio": total / median,
        "ratio_cpu": total_cpu / cpu,
        "ours_peak_gb": max(item["peak_gb"] for item in own_seconds),
        "published_peak_gb": max(item["peak_gb"] for item in theirs),
        "ours_own_gb": max(item["own_gb"] for item in own_seconds),
        "published_own_gb": max(item["own_gb"] for item in theirs),
    }


def commands(settings: argparse.Namespace, tile: str) -> dict[str, float]:
    """Time `marsretrieval search` by example tile, to the terminal and to files."""
    verb = [sys.executable, "-m", "marsretrieval", "search", "--store", settings.folder / "store"]
    command = [*verb, "--similar-to", tile, "-k", str(settings.k)]
    medians = {}
    with tempfile.TemporaryDirectory() as out:
        for name in ("", "hits.csv", "hits.gpkg"):
            into = ["-o", Path(out) / name] if name else []
            call = partial(subprocess.run, [*command, *into], check=True, capture_output=True)
            times = [seconds(call) for _ in range(settings.rounds + 1)][1:]
            medians[name or "to the terminal"] = statistics.median(times)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the data; kept")
    parser.add_argument("--full", action="store_true", help="1,400,000 x 1024, k=20,000")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("-k", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", nargs="+", default=["numpy", "numkong"])
    parser.add_argument("--skip-processes", action="store_true")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    if settings.full:
        settings.rows, settings.dimension, settings.k = 1_400_000, 1024, 20_000
    faiss.omp_set_num_threads(usable_cpus())
    generate(settings.folder, settings.rows, settings.dimension)
    store = settings.folder / "store"
    drop_index(store)
    build = seconds(lambda: make_index(open_store(store)))
    index = open_index(store)
    assert index is not None
    queries = np.load(settings.folder / "queries.npy")
    report: dict[str, Any] = {
        "rows": settings.rows,
        "dimension": settings.dimension,
        "k": settings.k,
        "index_s": build,
        "index_gb": index.bytes / 1e9,
        "store_gb": sum(entry.bytes for entry in open_store(store).entries) / 1e9,
        "hardware": hardware(),
        "versions": package_versions(),
        "warm": warm(settings, index, queries),
    }
    if not settings.skip_processes:
        report["commands"] = commands(settings, *index.ids([0]))
        report["processes"] = whole(settings, len(queries))
    if settings.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    if settings.out:
        settings.out.write_text(json.dumps(report, indent=2) + "\n")


def show(report: dict[str, Any]) -> None:
    warm = report["warm"]
    print(f"{report['rows']:,} x {report['dimension']}, reading at {warm['read_gb_s']:.1f} GB/s")
    print(f"index: made in {report['index_s']:.1f} s, {report['index_gb']:.2f} GB "
          f"beside {report['store_gb']:.2f} GB")  # fmt: skip
    print(f"{'warm, in one process':48} {'ms':>8} {'least':>8} {'limit':>8}")
    for name, item in warm["methods"].items():
        print(f"{name:48} {item['ms']:8.1f} {item['least_ms']:8.1f} {item['limit_ms']:8.2f}")
    print(f"same set as faiss on the stored vectors: {warm['same_set_as_faiss_on_stored_vectors']}")
    print(f"same set as faiss on float32: {warm['same_set_as_faiss_on_float32']}")
    if "processes" in report:
        for name, took in report["commands"].items():
            print(f"marsretrieval search --similar-to, k={report['k']}, {name:20} {took:8.2f} s")
        times = report["processes"]
        print("whole processes   ours, all queries in one   published, one a query   ratio")
        print(f"  wall, s         {times['ours_s']:24.2f} {times['published_s']:24.1f} "
              f"{times['ratio']:7.0f}")  # fmt: skip
        print(f"  least, s        {times['ours_least_s']:24.2f} {times['published_least_s']:24.1f} "
              f"{times['published_least_s'] / times['ours_least_s']:7.0f}")  # fmt: skip
        print(f"  CPU, s          {times['ours_cpu_s']:24.2f} {times['published_cpu_s']:24.1f} "
              f"{times['ratio_cpu']:7.0f}")  # fmt: skip
        print(f"  peak memory, GB {times['ours_peak_gb']:24.2f} {times['published_peak_gb']:24.2f}")
        print(f"  of its own, GB  {times['ours_own_gb']:24.2f} {times['published_own_gb']:24.2f}")


if __name__ == "__main__":
    main()
