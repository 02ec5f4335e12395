"""Milliseconds of the map's requests over a synthetic planet.

    python -m benchmarks.web.speed --folder planet --rows 200000
    python -m benchmarks.web.speed --folder planet --rows 1400000 --out figures.json

The server runs in a process of its own and is asked over HTTP on loopback, with example tiles (no
model). Reported are medians and the 95th percentile over `--rounds` searches with different tiles,
the server's own steps of a search, and its memory: private pages, and those of the mapped index,
without the libraries and weights of a model.
`two passes` is the time of a separate exact search, which the server does without: it takes the
hits from the scores of the raster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from PIL import Image

from benchmarks.search.generate import generate
from marsretrieval.embeddings import open_store
from marsretrieval.inventory import Inventory
from marsretrieval.search import approximate_scores, exact_from_approximate, exact_topk
from marsretrieval.search.index.find import index_of, make_index
from marsretrieval.system import hardware, package_versions

API = "/api/v1"
THUMBNAILS = 60


def lap(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
    }


def memory(pid: int) -> dict[str, float]:
    """Return private and file-backed resident memory in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {
        "own_mb": int(values["RssAnon"]) // 1024,
        "mapped_mb": int(values["RssFile"]) // 1024,
    }


def thumbnails(folder: Path) -> dict[str, float]:
    """Measure images of a small store of 512 x 512 pixels, cold and from the server's cache."""
    from marsretrieval.api import build_store

    images = folder / "images"
    store = folder / "images.store"
    if not store.exists():
        images.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for number in range(THUMBNAILS):
            base = rng.normal(128, 40, (64, 64)).clip(0, 255).astype(np.uint8)
            picture = Image.fromarray(base).resize((512, 512), Image.Resampling.BICUBIC)
            noise = rng.normal(0, 6, (512, 512))
            pixels = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(images / f"{number:03d}.png")
        build_store("mars-nano-untrained", images, store, device="cpu")
    names = open_store(store).ids(range(THUMBNAILS))
    with Server([str(store)]) as server:
        client = server.client

        def fetch_one(name: str) -> None:
            client.get(f"{API}/tiles/{name}/image?size=160").raise_for_status()

        def fetch() -> None:
            with ThreadPoolExecutor(6) as pool:  # as browsers do
                list(pool.map(fetch_one, names))

        client.get(f"{API}/events").raise_for_status()  # ends when the model is loaded
        return {"cold": round(lap(fetch), 1), "cached": round(lap(fetch), 1)}


class Server:
    """`marsretrieval serve` as a process."""

    def __init__(self, arguments: list[str]) -> None:
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "marsretrieval", "serve", *arguments, "--port", "0",
             "--no-open", "--json", "--offline"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            if not line:
                assert self.process.stderr is not None
                raise SystemExit(self.process.stderr.read())
            text += line
        self.start_s = round(time.perf_counter() - start, 2)
        self.client = httpx.Client(base_url=json.loads(text)["url"], timeout=120)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait()


def requests(folder: Path, rounds: int) -> dict[str, Any]:
    store = open_store(folder / "store")
    index_of(store, build=True)
    path = folder / "speed.inventory"
    if not path.exists():
        query = np.load(folder / "queries.npy")[0]
        Inventory.create(path, store, landform="clusters", query=query).close()
    rng = np.random.default_rng(1)
    names = store.ids(rng.choice(store.rows, rounds + 1, replace=False))
    times: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = work()
        times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return value

    with Server([str(folder / "store"), "--inventory", str(path)]) as server:
        client = server.client

        def post(route: str, body: dict[str, Any]) -> Any:
            response = client.post(f"{API}/{route}", json=body)
            response.raise_for_status()
            return response.json()

        first = lap(lambda: post("searches", {"like": [names[0]]}))
        for number, name in enumerate(names[1:]):

            def query_to_raster(name: str = name) -> Any:
                answer = post("searches", {"like": [name]})
                client.get(f"{API}/searches/{answer['key']}/raster").raise_for_status()
                return answer

            answer = measure("query to response and raster", query_to_raster)
            for step, value in answer["ms"].items():
                times.setdefault(f"server: {step}", []).append(value)
            key, hits = answer["key"], answer["hits"]
            measure(
                "200 more hits", lambda key=key: client.get(
                    f"{API}/searches/{key}/hits?offset=200&limit=200"
                ).raise_for_status(),
            )  # fmt: skip
            body = {"mark": "yes" if number % 2 else "no", "search": key, "rank": 1, "score": 0.5}
            measure(
                "mark, durable", lambda tile=hits[0]["id"], body=body: client.put(
                    f"{API}/marks/{tile}", json=body
                ).raise_for_status(),
            )  # fmt: skip
        first_learn = lap(lambda: post("learn", {}))
        for _ in range(max(3, rounds // 3)):
            measure("learn and rank again", lambda: post("learn", {}))
        used = memory(server.process.pid)
        start_s = server.start_s
    return {
        "start_s": start_s,
        "first_search": round(first, 1),
        "first_learn": round(first_learn, 1),
        **{name: spread(values) for name, values in times.items()},
        **used,
    }


def passes(folder: Path, rounds: int) -> dict[str, Any]:
    """Compare one pass over the codes with two."""
    index = make_index(open_store(folder / "store"))  # a small store is searched without one
    one, two = [], []
    for query in np.load(folder / "queries.npy")[: max(rounds, 3)]:

        def once(query: Any = query) -> None:
            scores = approximate_scores(index, query)
            exact_from_approximate(index, query, scores.scores, scores.bound, 200)

        def twice(query: Any = query) -> None:
            exact_topk(index, query, 200)
            approximate_scores(index, query)

        one.append(lap(once))
        two.append(lap(twice))
    return {"one pass": spread(one[1:]), "two passes": spread(two[1:])}


def write_figures(figures: dict[str, Any], out: Path | None) -> None:
    """Print figures as JSON, and write them to a file if one is named."""
    text = json.dumps(figures, indent=1)
    if out:
        out.write_text(text + "\n")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    generate(settings.folder, settings.rows, settings.dimension)
    figures = {
        "rows": settings.rows,
        "dimension": settings.dimension,
        "requests_ms": requests(settings.folder, settings.rounds),
        "hits_ms": passes(settings.folder, settings.rounds),
        f"{THUMBNAILS}_thumbnails_ms": thumbnails(settings.folder),
        "machine": hardware(),
        "packages": package_versions(),
    }
    write_figures(figures, settings.out)


if __name__ == "__main__":
    main()
