"""How the results can be had again: models, versions, and what to type."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marsretrieval.report.grouping import Entry, ResultSet
from marsretrieval.tasks import Settings

_DATASETS = {
    "paired-image-text": "paired",
    "landform": "landform",
    "geolocalization": "geolocalization",
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    label: str
    hue: int
    rows: Sequence[tuple[str, str]]


def models(sets: Sequence[ResultSet]) -> list[ModelFacts]:
    """Who answered: each model once, in the order of the page."""
    hues: dict[str, int] = {}
    rows: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for entry in (entry for each in sets for entry in each.entries):
        hues[entry.label] = entry.hue
        for name, value in _model_rows(entry):
            rows[entry.label][name][value] = None
    return [
        ModelFacts(label, hue, [(name, " or ".join(told)) for name, told in rows[label].items()])
        for label, hue in hues.items()
    ]


def versions(sets: Sequence[ResultSet]) -> list[tuple[str, str]]:
    """Package to its version; to several, where results were computed with several."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in (entry for each in sets for entry in each.entries):
        result = entry.file.result
        for name, version in result.versions.items():
            found[name][version] = None
        hardware = result.hardware
        found["platform"][str(hardware.get("platform", "?"))] = None
        machine = f"{hardware.get('cpus', '?')} CPUs, {hardware.get('memory_gib', '?')} GiB"
        device = hardware.get("accelerator") or hardware.get("device")
        found["hardware"][f"{machine}, {device}" if device else machine] = None
    return [(name, " or ".join(each)) for name, each in found.items()]


def commands(sets: Sequence[ResultSet]) -> list[str]:
    """What to type for the same figures: the data first, then a line for each model and seed."""
    lines: list[str] = []
    for found in sets:
        lines += [each for each in _fetching(found) if each not in lines]
    runs: dict[str, dict[str, None]] = defaultdict(dict)
    for found in sets:
        for entry in found.entries:
            model, seed = _asked(entry), entry.file.result.seed
            settings = f"--seed {seed}{_resamples(entry)}"
            target = entry.file.result.task_info.get("target")
            runs[f"{model} --data data {settings}"][shlex.quote(str(target or found.task))] = None
    for asked, tasks in runs.items():
        names = " ".join(f"-t {task}" for task in tasks)
        model, _, rest = asked.partition(" --data")
        lines.append(f"marsretrieval run {model} {names} --data{rest}")
    return lines


def _fetching(found: ResultSet) -> Iterator[str]:
    """How the data of a set are made or fetched, as far as they say where they come from."""
    data = found.data
    if found.task not in _DATASETS:
        return
    if data.get("synthetic"):
        yield f"marsretrieval data synth --out data --seed {data.get('seed')}"
    elif data.get("repository"):
        parts = ["marsretrieval data download", _DATASETS[found.task], "--out data"]
        for option in ("revision", "variant"):
            if data.get(option):
                parts.append(f"--{option} {shlex.quote(str(data[option]))}")
        yield " ".join(parts)


def _resamples(entry: Entry) -> str:
    count = (entry.file.result.settings or {}).get("resamples")
    return "" if count is None or count == Settings().resamples else f" --resamples {count}"


def _asked(entry: Entry) -> str:
    model = entry.file.result.model
    parts = ["-m", shlex.quote(str(model["id"]))]
    if (model.get("prompts") or {}).get("preset") == "official":
        parts.append("--prompts official")
    if model.get("checkpoint"):
        parts += ["--checkpoint", shlex.quote(str(model["checkpoint"]))]
    label = str(model.get("label") or "")
    if label and not label.startswith(re.sub("[:/]", "-", str(model["id"]))):
        parts += ["--name", shlex.quote(label)]
    folder = entry.file.path.parent.name if entry.file.path is not None else ""
    if model.get("dtype") in folder.split("+")[1:]:
        parts += ["--dtype", str(model["dtype"])]
    return " ".join(parts)


def _model_rows(entry: Entry) -> Iterator[tuple[str, str]]:
    model = entry.file.result.model
    prompts = model.get("prompts") or {}
    for name, value in (
        ("model", model.get("id")),
        ("loader", model.get("loader")),
        ("repository", model.get("repository")),
        ("revision", model.get("revision")),
        ("checkpoint", model.get("checkpoint")),
        ("weights, SHA-256", model.get("weights_sha256")),
        ("parameters", f"{p:,}" if (p := model.get("parameters")) else None),
        ("dimension", model.get("dimension")),
        ("precision", model.get("dtype")),
        ("prompts", prompts.get("preset")),
        ("licence", model.get("licence")),
    ):
        if value is not None:
            yield name, str(value)
    cut = entry.file.result.data.get("truncated") or {}
    for kind in ("captions", "queries"):
        if cut.get("cut") and kind in cut:
            yield f"{kind} cut at the context length", f"{cut['cut']:,} of {cut[kind]:,}"
