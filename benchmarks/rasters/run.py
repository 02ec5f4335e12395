"""A raster of the size of a HiRISE image to tiles, a store and a search: time and peak memory.

    python -m benchmarks.rasters.run [--width 20000] [--height 40000] [--dtype uint16]
        [--folder TMP] [--skip-embed]

The raster is made in windows, tiled and compressed as published products are, with no-data at its
slanted edges. Each step is the command itself in a process of its own, start included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

BLOCK = 512
CRS = "+proj=eqc +lat_ts=-5 +lon_0=180 +R=3396000 +units=m +no_defs"


def write_raster(path: Path, width: int, height: int, dtype: str) -> None:
    """Write a synthetic image in rows of blocks: craters on noise, no-data outside of a slant."""
    rng = np.random.default_rng(0)
    craters = np.column_stack(
        [rng.uniform(0, width, 4000), rng.uniform(0, height, 4000), rng.pareto(2, 4000) * 20 + 5]
    )
    top = np.iinfo(dtype).max if dtype == "uint8" else 1023
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=dtype, nodata=0,
        crs=CRS, transform=rasterio.Affine(0.25, 0, -2_450_000, 0, -0.25, -270_000),
        tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1,
        bigtiff="IF_SAFER",
    ) as file:  # fmt: skip
        columns = np.arange(width, dtype=np.float32)
        for first in range(0, height, BLOCK):
            rows = np.arange(first, min(first + BLOCK, height), dtype=np.float32)[:, None]
            band = rng.normal(0.5, 0.04, (len(rows), width)).astype(np.float32)
            near = craters[np.abs(craters[:, 1] - first - BLOCK / 2) < craters[:, 2] + BLOCK / 2]
            for x, y, radius in near:
                low, high = max(0, int(x - radius)), min(width, int(x + radius) + 1)
                distance = np.hypot(columns[low:high] - x, rows - y) / radius
                shade = (columns[low:high] - x) / radius * 0.3
                band[:, low:high] += np.where(distance < 1, shade, 0)
            values = np.clip(band * top, 1, top).astype(dtype)
            slant = width * 0.1 * (rows / height)
            values[(columns < slant) | (columns > width * 0.9 + slant)] = 0
            file.write(values, 1, window=Window(0, first, width, len(rows)))


def measure(arguments: list[str]) -> dict[str, float]:
    """Run a command; return its seconds and the peak of its resident memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "marsretrieval", *arguments],
                               stdout=subprocess.DEVNULL)  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: status {status}")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    """Write the raster, run the commands and print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=20_000)
    parser.add_argument("--height", type=int, default=40_000)
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint16")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--skip-embed", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="rasters-"))
    try:
        path = folder / "ESP_020245_2190_RED.tif"
        started = time.perf_counter()
        write_raster(path, options.width, options.height, options.dtype)
        made_s = round(time.perf_counter() - started, 1)
        own_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        result: dict[str, object] = {
            "raster": f"{options.width} x {options.height} {options.dtype}",
            "raster_mb": round(path.stat().st_size / 1e6),
            "make": {"seconds": made_s, "peak_mb": own_mb},
        }
        tiles, store = str(folder / "tiles"), str(folder / "own.store")
        result["tiles 512 px"] = measure(["data", "tiles", str(path), "--out", tiles])
        manifest = json.loads((folder / "tiles" / f"{path.stem}.json").read_text())
        result["count"] = {key: manifest[key] for key in ("tiles", "empty", "tar_bytes")}
        result["again"] = measure(["data", "tiles", str(path), "--out", tiles])
        grid = str(folder / "grid")
        result["tiles 0.002 deg"] = measure(
            ["data", "tiles", str(path), "--out", grid, "--delta", "0.002"]
        )
        if not options.skip_embed:
            result["embed"] = measure(
                ["embed", "-m", "mars-nano", "--images", tiles, "--store", store]
            )
            result["search to gpkg"] = measure(
                ["search", "--store", store, "--text", "crater", "-k", "100",
                 "-o", str(folder / "hits.gpkg")]
            )  # fmt: skip
        print(json.dumps(result, indent=2))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
