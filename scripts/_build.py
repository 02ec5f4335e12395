"""The database of geo-localization on several GPUs: with Ray, or one process a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from _calls import INTERRUPTED, environment, interrupts_left_to_programs
from _devices import Stop

__all__ = ["build_command", "build_in_parts", "has_ray", "options_of_embed"]

# Options of `run` that `embed` knows too, and with the same meaning.
_WITH_VALUE = ("--checkpoint", "--prompts", "--dtype", "--batch-size", "--workers")
_FLAGS = ("--offline", "--trust-remote-code", "--strict")
_TOLD = 5  # lines of a failed process


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def options_of_embed(options: Sequence[str]) -> list[str]:
    """Those of the options of `run` that change the vectors or how they are made."""
    found: list[str] = []
    rest = iter(options)
    for each in rest:
        name, equals, _ = each.partition("=")
        if name in _WITH_VALUE:
            found += [each] if equals else [each, next(rest, "")]
        elif each in _FLAGS:
            found.append(each)
    return found


def build_command(
    command: str, model: str, plan: Mapping[str, Any], options: Sequence[str]
) -> list[str]:
    tiles = Path(plan["data"]) / "tiles"
    store = ["--images", str(tiles), "--store", plan["store"], "--vectors", plan["vectors"]]
    return [command, "embed", "-m", model, *store, "--device", "cuda", *options]


def build_in_parts(
    embed: Sequence[str], ids: Sequence[str], logs: Path, say: Callable[[str], None]
) -> None:
    """One process a GPU, each with its part of the shards; what a process that dies leaves
    undone is made up by the run that follows. Raises Stop when all of them failed.

    The first shows its progress, the others write to files in `logs`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    count = len(ids)
    shared = [] if "--workers" in embed else ["--workers", str(max(1, _cpus() // count))]
    running: list[tuple[subprocess.Popen[bytes], IO[bytes], Path]] = []
    try:
        for part, each in enumerate(ids, 1):
            path = logs / f"part-{part}-of-{count}.log"
            log = path.open("wb")
            process = subprocess.Popen(
                [*embed, *shared, "--shard", f"{part}/{count}"],
                env=environment([each]),
                stdout=log,
                stderr=None if part == 1 and sys.stderr.isatty() else log,
            )
            running.append((process, log, path))
        with interrupts_left_to_programs():
            codes = [process.wait() for process, _, _ in running]
    finally:
        for process, log, _ in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
            log.close()
    if INTERRUPTED in codes:
        sys.exit(INTERRUPTED)
    failed = [(each, path) for each, (_, _, path) in zip(codes, running, strict=True) if each]
    for code, path in failed:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD:]
        say("\n".join([f"{path}: exit code {code}", *(f"  {line}" for line in lines)]))
    if len(failed) == count:
        raise Stop("the database could not be built on any of the GPUs", code=failed[0][0] or 1)
    if failed:
        say("the rest is made up on the first GPU")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
