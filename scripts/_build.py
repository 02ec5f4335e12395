"""Build the geo-localization embeddings on several GPUs, with Ray or one process per GPU."""

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

# Options of `run` that have the same meaning for `embed`.
_WITH_VALUE = ("--checkpoint", "--prompts", "--dtype", "--batch-size", "--workers")
_FLAGS = ("--offline", "--trust-remote-code", "--strict")
_LOG_LINES = 5  # last lines to print of a failed process


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def options_of_embed(options: Sequence[str]) -> list[str]:
    """Select the options of `run` that affect the embeddings or how they are computed.

    Args:
        options: Options of `marsretrieval run`.

    Returns:
        Those that `marsretrieval embed` shares, with their values.
    """
    selected: list[str] = []
    remaining = iter(options)
    for option in remaining:
        name, equals, _ = option.partition("=")
        if name in _WITH_VALUE:
            selected += [option] if equals else [option, next(remaining, "")]
        elif option in _FLAGS:
            selected.append(option)
    return selected


def build_command(
    command: str, model: str, plan: Mapping[str, Any], options: Sequence[str]
) -> list[str]:
    """Compose the `marsretrieval embed` command.

    Args:
        command: Path of marsretrieval.
        model: Name of the model.
        plan: Plan of the run, as `run --dry-run --json` prints it.
        options: Options from `options_of_embed`.

    Returns:
        The command.
    """
    tiles = Path(plan["data"]) / "tiles"
    store = ["--images", str(tiles), "--store", plan["store"], "--vectors", plan["vectors"]]
    return [command, "embed", "-m", model, *store, "--device", "cuda", *options]


def build_in_parts(
    embed: Sequence[str], ids: Sequence[str], logs: Path, say: Callable[[str], None]
) -> None:
    """Run one process per GPU, each with its part of the shards.

    The first process shows its progress; the others write to files in `logs`. The subsequent run
    completes the parts of failed processes.

    Args:
        embed: Command from `build_command`.
        ids: GPU ids.
        logs: Folder for the logs.
        say: Function that prints a message.

    Raises:
        Stop: If all processes failed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    count = len(ids)
    shared = [] if "--workers" in embed else ["--workers", str(max(1, _cpus() // count))]
    running: list[tuple[subprocess.Popen[bytes], IO[bytes], Path]] = []
    try:
        for part, gpu_id in enumerate(ids, 1):
            path = logs / f"part-{part}-of-{count}.log"
            log = path.open("wb")
            process = subprocess.Popen(
                [*embed, *shared, "--shard", f"{part}/{count}"],
                env=environment([gpu_id]),
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
    failed = [(gpu_id, path) for gpu_id, (_, _, path) in zip(codes, running, strict=True) if gpu_id]
    for code, path in failed:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        say("\n".join([f"{path}: exit code {code}", *(f"  {line}" for line in lines)]))
    if len(failed) == count:
        raise Stop("the database could not be built on any of the GPUs", code=failed[0][0] or 1)
    if failed:
        say("the rest is made up on the first GPU")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
