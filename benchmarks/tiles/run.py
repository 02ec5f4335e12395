"""Time the cutting of a quad, compared with a straightforward method on the same file.

    python -m benchmarks.tiles.run [--pixels 47420] [--source TIFF] [--folder TMP] [--zip]

The straightforward method does per tile what the published code does: open the file, warp the tile
out of it bilinearly, write an RGB PNG with `optimize`; in as many processes as there are CPUs.
This package is timed as a command, including its start: the median of RUNS runs, since a short run
is more sensitive to other load. The stages alone are lower bounds.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

from benchmarks.tiles.generate import FULL_PIXELS, write_quad, write_zip
from marsretrieval.datasets.ctx import Quad, Tile, TileSpec, tile_rows
from marsretrieval.datasets.ctx.quad import ZipStream, geotiff_in
from marsretrieval.datasets.ctx.resample import COLUMN_BLOCK, ROW_BLOCK, axis, resample
from marsretrieval.datasets.ctx.tiling import encode
from marsretrieval.system import usable_cpus
from tests.datasets.ctx.quads import warped

QUAD = Quad(-4, -4)
SPEC = TileSpec()
RUNS = 5


@dataclass
class Taken:
    """Return wall and CPU seconds and the peak memory of the process in MB."""

    wall: float
    cpu: float
    peak_mb: float | None = None


def straightforward_tile(job: tuple[Path, Tile, Path]) -> None:
    source, tile, folder = job
    bounds = (tile.west, tile.south, tile.east, tile.north)
    pixels = np.maximum(warped(source, bounds, SPEC.size), 1)
    Image.fromarray(pixels).convert("RGB").save(folder / f"{tile.name}.png", optimize=True)


def straightforward(source: Path, tiles: list[Tile], folder: Path) -> Taken:
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    before, started = os.times(), time.perf_counter()
    with context.Pool(usable_cpus()) as pool:
        for _ in pool.imap_unordered(
            straightforward_tile, [(source, tile, folder) for tile in tiles]
        ):
            pass
        pool.close()
        pool.join()
    wall, after = time.perf_counter() - started, os.times()
    spent = sum(after[:4]) - sum(before[:4])
    return Taken(wall, spent)


def ours(source: Path, out: Path, *options: str) -> Taken:
    command = [sys.executable, "-m", "marsretrieval", "data", "tiles", str(source)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(out), *options], stdout=subprocess.DEVNULL)
    peak = 0.0
    while True:
        # The value of wait4 includes this process's memory before the fork.
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            line = next(item for item in lines if item.startswith("VmHWM"))
            peak = max(peak, int(line.split()[1]) / 1000)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"data tiles failed: exit code {process.returncode}")
    return Taken(wall, usage.ru_utime + usage.ru_stime, peak)


def stages(source: Path, archive: Path | None) -> Iterator[tuple[str, Taken]]:
    """Time the stages separately, on all CPUs if a stage can use them."""
    with rasterio.open(source) as file:
        pixels = file.width
    step = pixels / 20 / SPEC.size
    rows = min(pixels, round(pixels / 20) + 2 * round(step) + 4)
    buffer = bytearray(rows * pixels)

    def read() -> None:
        with source.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    read()
    yield "read", timed(read)
    if archive is not None:

        def inflate() -> None:
            with ZipStream(archive, geotiff_in(archive)) as member:
                member.finish()

        yield "inflate the zip (1 core)", timed(inflate)
    band = np.frombuffer(buffer, dtype=np.uint8).reshape(rows, pixels)
    side = pixels / 20
    starts = [min(int(column * side), pixels - rows) for column in range(20)]
    window = [np.ascontiguousarray(band[:, start : start + rows]) for start in starts[:4]]
    y = axis(rows, 2.0, step, SPEC.size, ROW_BLOCK)
    x = axis(rows, 2.0, step, SPEC.size, COLUMN_BLOCK)
    resampled = [resample(item, y, x, no_data=None).pixels for item in window]

    def over(work: Callable[[Any], Any], items: Iterable[Any]) -> Callable[[], None]:
        def run() -> None:
            with ThreadPoolExecutor(usable_cpus()) as pool:
                list(pool.map(work, items))

        return run

    numbers = range(400)
    yield "resample", timed(over(lambda i: resample(window[i % 4], y, x, no_data=None), numbers))
    yield "encode", timed(over(lambda i: encode(resampled[i % 4], "png"), numbers))


def timed(work: Callable[[], None]) -> Taken:
    cpu, started = time.process_time(), time.perf_counter()
    work()
    return Taken(time.perf_counter() - started, time.process_time() - cpu)


def differences(folder: Path, tar: Path) -> str:
    """Compare every tile with that of the straightforward method."""
    equal = worst = count = 0
    with tarfile.open(tar) as file:
        for member in file:
            if not member.name.endswith(".png"):
                continue
            content = file.extractfile(member)
            assert content is not None
            actual = np.asarray(Image.open(io.BytesIO(content.read())))
            expected = np.asarray(Image.open(folder / member.name).convert("L"))
            difference = int(np.abs(actual.astype(np.int16) - expected).max())
            worst, equal, count = max(worst, difference), equal + (difference == 0), count + 1
    return f"{equal}/{count} bit-equal, greatest difference {worst}"


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    work_folder = Path(tempfile.mkdtemp(dir=folder, prefix="tiles-"))
    try:
        yield work_folder
    finally:
        shutil.rmtree(work_folder)


def _zip_of(source: Path, folder: Path) -> Path:
    beside = source.with_name(QUAD.zip_name)
    return beside if beside.exists() else write_zip(source, QUAD, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=FULL_PIXELS)
    parser.add_argument(
        "--source",
        type=Path,
        help="a quad that benchmarks.tiles.generate made, and its zip beside it",
    )
    parser.add_argument("--folder", type=Path, help="where to work; needs the quad twice over")
    parser.add_argument("--zip", action="store_true", help="the zip too (minutes to pack)")
    arguments = parser.parse_args()
    tiles = [tile for row in tile_rows(QUAD, SPEC) for tile in row]
    with workplace(arguments.folder) as folder:
        source = arguments.source or write_quad(folder, QUAD, arguments.pixels)
        with rasterio.open(source) as file:
            pixels = file.width
        archive = _zip_of(source, folder) if arguments.zip else None
        load = os.getloadavg()[0]
        print(
            f"{platform.machine()}, {usable_cpus()} CPUs, load {load:.1f} at the start; "
            f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}\n"
            f"quad of {pixels:,} pixels, {source.stat().st_size / 1e9:.2f} GB, "
            f"page cache warm, {len(tiles)} tiles of {SPEC.size}\n"
        )
        for name, spent in stages(source, archive):
            print(f"floor: {name:<26} {spent.wall:7.2f} s wall {spent.cpu:7.2f} s CPU", flush=True)
        runs = {"ours": (source,), "ours --exact": (source, "--exact")}
        if archive is not None:
            runs["ours from the zip"] = (archive,)
        medians = {}
        for number, (name, (path, *options)) in enumerate(runs.items()):
            out = folder / f"ours{number}"
            times = []
            for _ in range(RUNS):
                shutil.rmtree(out, ignore_errors=True)
                times.append(ours(path, out, *options))
            medians[name] = sorted(times, key=lambda run_time: run_time.wall)[RUNS // 2]
            walls = ", ".join(f"{item.wall:.2f}" for item in times)
            print(f"{name}: {walls} s, load {os.getloadavg()[0]:.1f}", flush=True)
        published = folder / "published"
        slow = straightforward(source, tiles, published)
        results = [("straightforward", slow, "")]
        for number, name in enumerate(runs):
            tar = folder / f"ours{number}" / f"{QUAD.name}.tar"
            results.append((name, medians[name], differences(published, tar)))
        print(f"\nload {os.getloadavg()[0]:.1f} at the end\n")
        print("| route | wall, s | CPU, s | tiles/s | ratio (wall) | ratio (CPU) | peak | pixels |")
        print("|---|---|---|---|---|---|---|---|")
        for name, spent, pixels in results:
            peak = f"{spent.peak_mb:.0f} MB" if spent.peak_mb else ""
            print(
                f"| {name} | {spent.wall:.2f} | {spent.cpu:.2f} | {len(tiles) / spent.wall:.1f} "
                f"| {slow.wall / spent.wall:.1f}x | {slow.cpu / spent.cpu:.1f}x | {peak} "
                f"| {pixels} |"
            )
        print(json.dumps({name: vars(spent) for name, spent, _ in results}))


if __name__ == "__main__":
    main()
