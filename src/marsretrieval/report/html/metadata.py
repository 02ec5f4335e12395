"""What stands beside the figures: data, time, what was left out, what ties could change."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.report.columns import Metric, leaderboard_columns
from marsretrieval.report.grouping import Entry, ResultSet
from marsretrieval.report.tables import Cell, metric_value
from marsretrieval.results import MEAN
from marsretrieval.tasks import Settings

_EXAMPLES = 3  # items named for each reason


@dataclass(frozen=True, slots=True)
class Summary:
    """One set in short. leader: the model with the highest strict main figure, which is `value`."""

    key: str
    task: str
    data: str
    provenance: str
    n: str
    set_hash: str
    models: int
    when: str
    leader: str
    figure: str
    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, None where nothing was timed; decode is summed over the workers."""

    task: str
    model: str
    images_per_s: float | None
    idle: float | None  # share of the time of embedding
    seconds: Mapping[str, float | None]
    device: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    data: str
    reason: str
    count: int
    examples: Sequence[str]
    models: str


@dataclass(frozen=True, slots=True)
class Tie:
    task: str
    model: str
    group: str
    name: str
    worst: str
    shown: str
    best: str


def summary(sets: Sequence[ResultSet]) -> list[Summary]:
    leading = [_leading(each) for each in sets]
    return [
        Summary(
            key=each.key,
            task=each.title,
            data=str(each.data.get("name", "")),
            provenance=_provenance(each.data),
            n=each.n,
            set_hash=each.set_hash,
            models=len(each.entries),
            when=_when([entry.file.result.created for entry in each.entries]),
            leader=each.entries[0].label,
            figure=figure,
            value=value,
            interval=interval,
        )
        for each, (figure, value, interval) in zip(sets, leading, strict=True)
    ]


def timings(sets: Sequence[ResultSet]) -> list[Timing]:
    return [_timing(each, entry) for each in sets for entry in each.entries]


def left_out(sets: Sequence[ResultSet]) -> list[LeftOut]:
    """Items that were skipped, by data and reason."""
    items: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    models: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for found in sets:
        for entry in found.entries:
            for item in entry.file.result.data.get("skipped", ()):
                key = (str(entry.file.result.data.get("name", "")), str(item["reason"]))
                items[key].setdefault(f"{item['id']}\t{item['source']}", str(item["source"]))
                models[key][entry.label] = None
    everyone = {
        str(found.data.get("name", "")): {entry.label for entry in found.entries} for found in sets
    }
    return [
        LeftOut(
            data,
            reason,
            len(found),
            list(found.values())[:_EXAMPLES],
            ""
            if models[data, reason].keys() >= everyone[data]
            else ", ".join(models[data, reason]),
        )
        for (data, reason), found in sorted(items.items())
    ]


def ties(sets: Sequence[ResultSet]) -> list[Tie]:
    """Strict figures that another order of equal scores would change, the most first."""
    found: list[tuple[float, int, Tie]] = []
    for each in sets:
        names = _names(each)
        for entry in each.entries:
            for group, evaluation in entry.metrics.items():
                for key, (worst, best) in evaluation.get("ties", {}).items():
                    figure = names.get(key) or Metric(key, key, "")
                    shown = metric_value(evaluation, figure, "strict")
                    values = (Cell(worst, figure), shown, Cell(best, figure))
                    texts = [cell.text(2) or "–" for cell in values]
                    queries = "all" if group == "all" else group
                    tie = Tie(each.title, entry.label, queries, figure.heading, *texts)
                    span = abs(best - worst) if figure.percent else 1.0
                    found.append((-span, len(found), tie))
    return [tie for *_, tie in sorted(found, key=lambda item: item[:2])]


def _names(of_set: ResultSet) -> dict[str, Metric]:
    """Key to metric, its heading with the direction of the query where there are two."""
    parts = leaderboard_columns(of_set.results)
    return {
        pair.strict.key: replace(
            pair.strict,
            heading=pair.strict.heading + (f", {title.lower()}" if len(parts) > 1 else ""),
        )
        for title, _, (_, pairs) in parts
        for pair in pairs
        if pair.strict is not None
    }


def _provenance(data: Mapping[str, Any]) -> str:
    if data.get("synthetic"):
        return f"synthetic, seed {data.get('seed')}"
    if data.get("repository"):
        revision = str(data.get("revision") or "")[:12]
        return f"{data['repository']}{f' at {revision}' if revision else ''}"
    return ""


def _when(created: Sequence[str]) -> str:
    days = sorted({each[:10] for each in created})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _leading(found: ResultSet) -> tuple[str, str, str]:
    """The strict main figure of the first model: its name, with the kind of query for
    geo-localization, its value and its interval."""
    names = _names(found)
    parts = leaderboard_columns(found.results)
    if not parts:
        return "", "", ""
    main = names[parts[0][1]]
    metrics = found.entries[0].metrics
    groups = [group for group in metrics if group.startswith(MEAN)] or [*metrics]
    values = {group: metric_value(metrics[group], main, "strict") for group in groups}
    group = max(values, key=lambda name: -1 if (v := values[name].value) is None else v)
    if values[group].value is None:
        return "", "", ""
    name = main.heading
    if group.startswith(MEAN):
        name += f", mean over landforms, {group.removeprefix(MEAN)} queries"
    return name, values[group].text(), values[group].interval("{}–{}")


def _timing(found: ResultSet, entry: Entry) -> Timing:
    result = entry.file.result
    told = result.timings
    texts = [told[name] for name in ("embed_texts", "embed_queries") if name in told]
    seconds = {name: told.get(name) for name in ("total", "decode", "embed", "search", "score")}
    seconds["texts"] = sum(texts) if texts else None
    device = result.hardware.get("accelerator") or result.hardware.get("device") or "–"
    idle = told.get("device_idle")
    rate = told.get("images_per_s")
    return Timing(found.title, entry.label, rate, idle, seconds, str(device))


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
