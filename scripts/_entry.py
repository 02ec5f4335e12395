"""Entry point of the scripts: run `marsretrieval run` on selected GPUs and append to a summary.

Called by _run.sh as: _entry.py COMMAND TASK MODEL [MODEL...] -- [GPU_IDS] [MODEL] [OPTIONS]
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import _summary
from _build import build_command, build_in_parts, has_ray, options_of_embed
from _calls import INTERRUPTED, call
from _devices import Stop, gpu_ids, require_gpus

ROOT = Path(__file__).resolve().parent.parent
SCRIPT_OPTIONS = ("-m", "--model", "-t", "--task")  # options that the script itself sets

USAGE = """\
Usage: bash scripts/{task}/SCRIPT.sh [GPU_IDS] {choice}[OPTIONS]

  GPU_IDS   such as 0 or 0,1,2,3; left out: CUDA_VISIBLE_DEVICES, else the CPU. cpu: the CPU.
{models}
  OPTIONS   go to 'marsretrieval run', such as --dry-run, --checkpoint FILE, --offline.

  MARSRETRIEVAL_DATA     folder of the datasets      ({data})
  MARSRETRIEVAL_RESULTS  results and embeddings      ({results})
  MARSRETRIEVAL_LOGS     summary.csv of each task    ({logs})
  MARSRETRIEVAL_MODEL    another model than the script's
  MARSRETRIEVAL_ENGINE   several GPUs: ray or shards (ray where it is installed)
"""


@dataclass(frozen=True)
class Folders:
    """Folders of the scripts.

    Attributes:
        data: Datasets.
        results: Results and embeddings.
        logs: Summaries and logs.
    """

    data: Path
    results: Path
    logs: Path

    @classmethod
    def from_environment(cls) -> Folders:
        def folder(name: str) -> Path:
            return Path(os.environ.get(f"MARSRETRIEVAL_{name.upper()}") or ROOT / name)

        return cls(folder("data"), folder("results"), folder("logs"))


def main(arguments: Sequence[str]) -> int:
    """Run a script.

    Args:
        arguments: COMMAND TASK MODEL [MODEL...] -- [GPU_IDS] [MODEL] [OPTIONS].

    Returns:
        Exit code.

    Raises:
        Stop: If the arguments are invalid or the embeddings cannot be built.
    """
    command, task, *remaining = arguments
    models, user_arguments = (
        remaining[: remaining.index("--")],
        remaining[remaining.index("--") + 1 :],
    )
    folders = Folders.from_environment()
    if user_arguments[:1] in (["-h"], ["--help"]):
        print(_usage(task, models, folders), end="")
        return 0
    positional, options = _split_arguments(user_arguments)
    ids = gpu_ids(positional[0] if positional else None, os.environ)
    model = _choose_model(positional[1:], models)
    _check_options(options)

    dry = "--dry-run" in options
    device = _device_options(positional, ids, options)
    if ids and not dry:
        require_gpus(ids, _diagnose(command, ids))
    run = [command, "run", "-m", model, "-t", task]
    for name, folder in (("--data", folders.data), ("--results", folders.results)):
        if not _is_given(name, options):
            run += [name, str(folder)]
    run += [*device, *options]
    logs = folders.logs / task
    if len(ids) > 1:
        if task == "geolocalization":
            _build_database(command, run, model, ids, options, logs, dry=dry)
        else:
            _say(f"this task needs one GPU: using {ids[0]}")
    if dry:
        return call(run, ids[:1]).returncode
    return _run(command, run, ids[:1], logs, as_json="--json" in options)


def _run(command: str, run: list[str], ids: list[str], logs: Path, *, as_json: bool) -> int:
    """Run the evaluation, print the tables, and append to the summary."""
    process = call(run if as_json else [*run, "--json"], ids, stdout=subprocess.PIPE)
    if not process.stdout.strip():
        return process.returncode
    output = json.loads(process.stdout)
    if as_json:
        sys.stdout.write(process.stdout.decode())
    elif output["results"]:
        call([command, "report", *output["results"]])
    for path in map(Path, output["results"]):
        result = json.loads(path.read_text(encoding="utf-8"))
        file = logs / "summary.csv"
        count = _summary.add(file, result["task"], _summary.rows_of(result, path.parent.name))
        _say(f"{file}: " + (f"rows added: {count}" if count else "this run is in it already"))
    return process.returncode


def _build_database(
    command: str,
    run: list[str],
    model: str,
    ids: list[str],
    options: list[str],
    logs: Path,
    *,
    dry: bool,
) -> None:
    """Build the embeddings on all GPUs, in the store that the run will use."""
    if _is_given("--store", options):
        _say("--store is given: no database is built")
        return
    plan = _plan([*run, "--dry-run", "--json"])
    if plan["status"] == "done":
        _say("the result is there: no database is built")
        return
    embed = build_command(command, model, plan, options_of_embed(options))
    engine = os.environ.get("MARSRETRIEVAL_ENGINE") or ("ray" if has_ray() else "shards")
    if engine not in ("ray", "shards"):
        raise Stop(f"MARSRETRIEVAL_ENGINE={engine}: unknown", "Use ray or shards.", code=2)
    _say(f"{'would build' if dry else 'building'} the database on GPUs {', '.join(ids)} ({engine})")
    if dry:
        engine_options = ["--engine", "ray"] if engine == "ray" else ["--shard", f"1/{len(ids)}"]
        continuation = (
            "" if engine == "ray" else f", and so on to {len(ids)}/{len(ids)}, one on each GPU"
        )
        _say(f"  {shlex.join([*embed, *engine_options])}{continuation}")
    elif engine == "ray":
        code = call([*embed, "--engine", "ray"], ids, stdout=sys.stderr).returncode
        if code:
            raise Stop("the database was not finished: run the same command to go on", code=code)
    else:
        build_in_parts(embed, ids, logs / "build" / Path(plan["result"]).parent.name, _say)


def _plan(run: list[str]) -> dict[str, Any]:
    """Return the plan of `run` without loading a model; exit with its code if it fails."""
    process = call(run, stdout=subprocess.PIPE)
    if process.returncode:
        sys.exit(process.returncode)
    plan: dict[str, Any] = json.loads(process.stdout)[0]
    return plan


def _diagnose(command: str, ids: list[str]) -> dict[str, Any]:
    process = call([command, "doctor", "--json"], ids, stdout=subprocess.PIPE)
    try:
        diagnosis: dict[str, Any] = json.loads(process.stdout)
    except ValueError as error:
        raise Stop("'marsretrieval doctor' failed", "Run it by itself.") from error
    return diagnosis


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into leading arguments and options, which begin with the first dash."""
    count = next(
        (index for index, argument in enumerate(arguments) if argument.startswith("-")),
        len(arguments),
    )
    return list(arguments[:count]), list(arguments[count:])


def _choose_model(positional: Sequence[str], models: Sequence[str]) -> str:
    """Return the model of the second argument, of MARSRETRIEVAL_MODEL, or of the script."""
    if positional and positional[0].isdigit():
        raise Stop(
            f"unexpected argument '{positional[0]}'",
            "GPU ids are one argument, with commas between them: 0,1,2,3.",
            code=2,
        )
    if len(positional) > 1 or (positional and len(models) == 1):
        raise Stop(
            f"unexpected argument '{positional[-1]}'",
            "Options begin with a dash; MARSRETRIEVAL_MODEL names another model.",
            code=2,
        )
    requested = positional[0] if positional else os.environ.get("MARSRETRIEVAL_MODEL", "")
    if not requested or len(models) == 1:
        return requested or models[0]
    fitting = [name for name in models if _normalize(requested) in _normalize(name)]
    exact = [name for name in fitting if _normalize(requested) == _normalize(name)]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if positional:
        raise Stop(
            f"no single model is meant by '{requested}'", f"One of: {', '.join(models)}.", code=2
        )
    return requested  # of the registry, a plugin or a class; marsretrieval reports unknown ones


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_given(name: str, options: Sequence[str]) -> bool:
    """Check whether the options contain ``--name VALUE`` or ``--name=VALUE``."""
    return any(option.partition("=")[0] == name for option in options)


def _check_options(options: Sequence[str]) -> None:
    for option in options:
        if option.split("=")[0] in SCRIPT_OPTIONS:
            raise Stop(
                f"{option}: the script sets model and task",
                "Set MARSRETRIEVAL_MODEL, or use 'marsretrieval run' itself.",
                code=2,
            )


def _device_options(
    positional: Sequence[str], ids: Sequence[str], options: Sequence[str]
) -> list[str]:
    if _is_given("--device", options):
        return []
    if ids:
        return ["--device", "cuda"]
    if positional[:1] != ["cpu"]:
        _say("no GPU ids given and none in CUDA_VISIBLE_DEVICES: running on the CPU")
    return ["--device", "cpu"]


def _usage(task: str, models: Sequence[str], folders: Folders) -> str:
    several = len(models) > 1
    listed = "".join(f"\n            {name}" for name in models[1:])
    return USAGE.format(
        task=task,
        choice="[MODEL] " if several else "",
        models=f"  MODEL     {models[0]} (default){listed}"
        if several
        else f"  (model: {models[0]})",
        data=folders.data,
        results=folders.results,
        logs=folders.logs,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as error:
        _say(f"error: {error}")
        sys.exit(error.code)
    except OSError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
