"""Images per second: the pipeline, a straightforward loop and the model alone.

    python -m benchmarks.embed.run --model mars-nano --images 1024
    python -m benchmarks.embed.run --model ViT-L-14 --device cuda --images 16384 --out l14.json
    python -m benchmarks.embed.run --model gme --random --device cuda --images 2048 --out gme.json

The loop reads, decodes and preprocesses one image after the other and calls the model whenever a
batch is full, in one thread. `forward` is the model alone on features that are ready in memory;
`decode` is reading, decoding and preprocessing alone, in threads on all CPUs, grey images in one
channel where the encoder accepts that; the loop decodes to RGB. All are measured in
turn in one run, several times: on a shared machine, only times of the same run are comparable. With
`--decode-in processes`, their start of about ten seconds is included: use many images.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.embed._models import Pretended, random_vit
from marsretrieval.datasets import ImageSource, Record, decode_image, decode_rgb, open_images
from marsretrieval.embeddings import DECODE_IN, build_store
from marsretrieval.encoders import Encoder, LoadOptions, load
from marsretrieval.system import hardware, usable_cpus

_SHARD = 512


def write_tiles(folder: Path, count: int, side: int) -> None:
    """Write square grey PNG tiles with the texture of orbital images (150 kB at 512 px)."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 6, (2 * side, 2 * side))
    for start in range(0, count, _SHARD):
        with tarfile.open(folder / f"{start // _SHARD:06d}.tar", "w") as tar:
            for number in range(start, min(start + _SHARD, count)):
                coarse = Image.fromarray(rng.integers(40, 200, (24, 24), dtype=np.uint8))
                relief = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
                x, y = rng.integers(0, side, 2)
                pixels = relief + grain[y : y + side, x : x + side]
                buffer = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
                info = tarfile.TarInfo(f"tile-{number:07d}.png")
                info.size = buffer.tell()
                tar.addfile(info, io.BytesIO(buffer.getvalue()))


def records(source: ImageSource) -> Iterator[Record]:
    for shard in source.shards():
        yield from (item for item in source.read(shard) if isinstance(item, Record))


def by_loop(encoder: Encoder, source: ImageSource, batch: int, out: Path) -> None:
    parts: list[Any] = []
    ready: list[Any] = []
    for record in records(source):
        ready.append(encoder.preprocess(decode_rgb(record.data, record.source)))
        if len(ready) == batch:
            parts.append(encoder.encode_preprocessed(ready))
            ready = []
    if ready:
        parts.append(encoder.encode_preprocessed(ready))
    np.save(out / "features.npy", np.concatenate(parts))


def forward_only(encoder: Encoder, features: list[Any], batch: int) -> None:
    for start in range(0, len(features), batch):
        encoder.encode_preprocessed(features[start : start + batch])


def decode_only(encoder: Encoder, source: ImageSource, workers: int) -> None:
    preprocess = encoder.preprocess
    to_image = decode_image if getattr(preprocess, "accepts_grey", False) else decode_rgb

    def decode(record: Record) -> None:
        preprocess(to_image(record.data, record.source))

    with ThreadPoolExecutor(workers) as pool:
        running: deque[Any] = deque()
        for record in records(source):
            running.append(pool.submit(decode, record))
            if len(running) > 8 * workers:
                running.popleft().result()


def rate(count: int, work: Callable[[], object]) -> float:
    """Run a method in a separate thread, as all methods.

    On a busy CPU, torch is several times slower in the main thread, which would favour the
    pipeline.
    """
    with ThreadPoolExecutor(1) as thread:
        start = time.perf_counter()
        thread.submit(work).result()
        return count / (time.perf_counter() - start)


def measure(encoder: Encoder, source: ImageSource, settings: argparse.Namespace) -> dict[str, Any]:
    count, batch, workers = settings.images, settings.batch, settings.workers
    sample = list(records(source))[: 4 * batch]
    features = [encoder.preprocess(decode_rgb(item.data, item.source)) for item in sample]
    forward_only(encoder, features, batch)  # warm up
    repeats = max(1, settings.images // len(features))
    rounds: list[dict[str, float]] = []
    for _ in range(settings.rounds):
        with tempfile.TemporaryDirectory() as out:
            reports = []

            def ours(into: Path = Path(out), keep: list[Any] = reports) -> None:
                store = into / "store"
                keep.append(
                    build_store(
                        encoder,
                        source,
                        store,
                        batch_size=batch,
                        workers=workers,
                        decode_in=settings.decode_in,
                    )
                )

            one = {
                "loop": rate(count, lambda: by_loop(encoder, source, batch, Path(out))),
                "pipeline": rate(count, ours),
                "forward": rate(
                    len(features) * repeats,
                    lambda: [forward_only(encoder, features, batch) for _ in range(repeats)],
                ),
                "decode": rate(count, lambda: decode_only(encoder, source, workers)),
                "device_idle": reports[0].device_idle,
            }
            one["share_of_forward"] = one["pipeline"] / one["forward"]
            rounds.append(one)
            print(json.dumps({name: round(value, 3) for name, value in one.items()}), flush=True)
    return {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mars-nano", help="catalogue id, or an open_clip ViT")
    parser.add_argument(
        "--random",
        action="store_true",
        help="the catalogue's model at full size with random weights (transformers models only)",
    )
    parser.add_argument("--pretend", type=float, help="images/s of a device that takes no CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=512, help="of a tile, pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=usable_cpus())
    parser.add_argument("--decode-in", choices=DECODE_IN, default="threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    if settings.model.startswith("ViT"):
        encoder: Encoder = random_vit(settings.model, settings.device)
    elif settings.random:
        from benchmarks.models.full_size import build_encoder

        encoder = build_encoder(settings.model, torch.device(settings.device))
    else:
        encoder = load(settings.model, LoadOptions(device=settings.device))
    if settings.pretend:
        encoder = Pretended(encoder, settings.pretend)
    with tempfile.TemporaryDirectory() as folder:
        write_tiles(Path(folder), settings.images, settings.side)
        figures = measure(encoder, open_images(Path(folder)), settings)
    report = {
        "model": encoder.id,
        "images": settings.images,
        "side": settings.side,
        "batch": settings.batch,
        "workers": settings.workers,
        "decode_in": settings.decode_in,
        "hardware": hardware(settings.device),
        "median": {name: round(value, 4) for name, value in figures.items()},
    }
    print(json.dumps(report, indent=2))
    if settings.out:
        settings.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
