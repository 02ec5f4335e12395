"""Behind every script of this folder: GPU ids and a model to `marsretrieval run`, and a summary.

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
OURS = ("-m", "--model", "-t", "--task")  # options that the script itself sets

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
class Places:
    data: Path
    results: Path
    logs: Path

    @classmethod
    def of_environment(cls) -> Places:
        def place(name: str) -> Path:
            return Path(os.environ.get(f"MARSRETRIEVAL_{name.upper()}") or ROOT / name)

        return cls(place("data"), place("results"), place("logs"))


def main(arguments: Sequence[str]) -> int:
    command, task, *rest = arguments
    models, given = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    places = Places.of_environment()
    if given[:1] in (["-h"], ["--help"]):
        print(_usage(task, models, places), end="")
        return 0
    positional, options = _split(given)
    ids = gpu_ids(positional[0] if positional else None, os.environ)
    model = _model(positional[1:], models)
    _refuse_ours(options)

    dry = "--dry-run" in options
    device = _device_options(positional, ids, options)
    if ids and not dry:
        require_gpus(ids, _examine(command, ids))
    run = [command, "run", "-m", model, "-t", task]
    for name, place in (("--data", places.data), ("--results", places.results)):
        if not _is_given(name, options):
            run += [name, str(place)]
    run += [*device, *options]
    logs = places.logs / task
    if len(ids) > 1:
        if task == "geolocalization":
            _build(command, run, model, ids, options, logs, dry=dry)
        else:
            _say(f"this task needs one GPU: using {ids[0]}")
    if dry:
        return call(run, ids[:1]).returncode
    return _run(command, run, ids[:1], logs, as_json="--json" in options)


def _run(command: str, run: list[str], ids: list[str], logs: Path, *, as_json: bool) -> int:
    """Run, show the tables, keep the summary."""
    done = call(run if as_json else [*run, "--json"], ids, stdout=subprocess.PIPE)
    if not done.stdout.strip():
        return done.returncode
    told = json.loads(done.stdout)
    if as_json:
        sys.stdout.write(done.stdout.decode())
    elif told["results"]:
        call([command, "report", *told["results"]])
    for path in map(Path, told["results"]):
        result = json.loads(path.read_text(encoding="utf-8"))
        file = logs / "summary.csv"
        count = _summary.add(file, result["task"], _summary.rows_of(result, path.parent.name))
        _say(f"{file}: " + (f"rows added: {count}" if count else "this run is in it already"))
    return done.returncode


def _build(
    command: str,
    run: list[str],
    model: str,
    ids: list[str],
    options: list[str],
    logs: Path,
    *,
    dry: bool,
) -> None:
    """The database on all GPUs, where the run on one of them will look for it."""
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
        how = ["--engine", "ray"] if engine == "ray" else ["--shard", f"1/{len(ids)}"]
        rest = "" if engine == "ray" else f", and so on to {len(ids)}/{len(ids)}, one on each GPU"
        _say(f"  {shlex.join([*embed, *how])}{rest}")
    elif engine == "ray":
        code = call([*embed, "--engine", "ray"], ids, stdout=sys.stderr).returncode
        if code:
            raise Stop("the database was not finished: run the same command to go on", code=code)
    else:
        build_in_parts(embed, ids, logs / "build" / Path(plan["result"]).parent.name, _say)


def _plan(run: list[str]) -> dict[str, Any]:
    """What `run` would do, before any model is loaded; its own message where it cannot."""
    done = call(run, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    plan: dict[str, Any] = json.loads(done.stdout)[0]
    return plan


def _examine(command: str, ids: list[str]) -> dict[str, Any]:
    done = call([command, "doctor", "--json"], ids, stdout=subprocess.PIPE)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise Stop("'marsretrieval doctor' failed", "Run it by itself.") from error
    return found


def _split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """(leading arguments, options from the first dash on)."""
    count = next((at for at, each in enumerate(given) if each.startswith("-")), len(given))
    return list(given[:count]), list(given[count:])


def _model(asked: Sequence[str], models: Sequence[str]) -> str:
    """The second argument, else MARSRETRIEVAL_MODEL, else the script's own."""
    if asked and asked[0].isdigit():
        raise Stop(
            f"unexpected argument '{asked[0]}'",
            "GPU ids are one argument, with commas between them: 0,1,2,3.",
            code=2,
        )
    if len(asked) > 1 or (asked and len(models) == 1):
        raise Stop(
            f"unexpected argument '{asked[-1]}'",
            "Options begin with a dash; MARSRETRIEVAL_MODEL names another model.",
            code=2,
        )
    wanted = asked[0] if asked else os.environ.get("MARSRETRIEVAL_MODEL", "")
    if not wanted or len(models) == 1:
        return wanted or models[0]
    fitting = [each for each in models if _letters(wanted) in _letters(each)]
    exact = [each for each in fitting if _letters(wanted) == _letters(each)]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if asked:
        raise Stop(
            f"no single model is meant by '{wanted}'", f"One of: {', '.join(models)}.", code=2
        )
    return wanted  # any model of the catalogue, a plugin, a class: marsretrieval says if unknown


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_given(name: str, options: Sequence[str]) -> bool:
    """Whether an option stands among those of the user, as ``--name VALUE`` or ``--name=VALUE``."""
    return any(option.partition("=")[0] == name for option in options)


def _refuse_ours(options: Sequence[str]) -> None:
    for each in options:
        if each.split("=")[0] in OURS:
            raise Stop(
                f"{each}: the script sets model and task",
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


def _usage(task: str, models: Sequence[str], places: Places) -> str:
    several = len(models) > 1
    listed = "".join(f"\n            {each}" for each in models[1:])
    return USAGE.format(
        task=task,
        choice="[MODEL] " if several else "",
        models=f"  MODEL     {models[0]} (default){listed}"
        if several
        else f"  (model: {models[0]})",
        data=places.data,
        results=places.results,
        logs=places.logs,
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
