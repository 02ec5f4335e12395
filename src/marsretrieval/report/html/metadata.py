"""Metadata of the page: data, timing, skipped items, ties, models and commands to reproduce it."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.report.columns import Metric, leaderboard_columns
from marsretrieval.report.grouping import ResultEntry, ResultSet
from marsretrieval.report.table import Cell
from marsretrieval.report.tables import metric_value
from marsretrieval.results import MEAN
from marsretrieval.tasks import Settings

PLANET_TILES = 1_400_000  # tiles of the planet, for which the time table states the cost

_EXAMPLES = 3  # items listed per reason
_SCORE_COMMANDS = {"paired-image-text": "paired"}  # if they differ from the task's name
_SCORE_OPTIONS = {"--queries": "--query-kind", "--depth": "--max-k"}  # of run, and of score


_DATASETS = {
    "paired-image-text": "paired",
    "landform": "landform",
    "geolocalization": "geolocalization",
}


@dataclass(frozen=True, slots=True)
class SetSummary:
    """Summary of one result set.

    Attributes:
        key: Anchor of the set.
        task: Title of the task.
        data: Name of the data.
        provenance: Repository and revision, or seed of synthetic data.
        n: Counts of items.
        set_hash: Hash of the items.
        models: Number of models.
        when: Range of dates.
        leader: Model with the highest strict main metric.
        metric: Name of that metric.
        value: Its value.
        interval: Its interval.
    """

    key: str
    task: str
    data: str
    provenance: str
    n: str
    set_hash: str
    models: int
    when: str
    leader: str
    metric: str
    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Timing of one result.

    Attributes:
        task: Title of the task.
        model: Name of the model.
        images_per_s: Embedding rate.
        idle: Fraction of the embedding time in which the device was idle.
        seconds: Step to seconds, None if it was not timed; decoding is summed over the workers.
        device: Accelerator or device.
        memory: Peak resident memory of the process, bytes.
        gpu_memory: Peak memory that torch allocated on the GPU, bytes.
    """

    task: str
    model: str
    images_per_s: float | None
    idle: float | None
    seconds: Mapping[str, float | None]
    device: str
    memory: int | None = None
    gpu_memory: int | None = None

    @property
    def hours(self) -> float | None:
        """Hours to embed `PLANET_TILES` tiles at the embedding rate."""
        return PLANET_TILES / self.images_per_s / 3600 if self.images_per_s else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Items that were skipped for one reason.

    Attributes:
        data: Name of the data.
        reason: Reason.
        count: Number of items.
        examples: Sources of the first items.
        models: Models that skipped them; empty if all did.
    """

    data: str
    reason: str
    count: int
    examples: Sequence[str]
    models: str


@dataclass(frozen=True, slots=True)
class Tie:
    """A strict metric that depends on the order of equal scores.

    Attributes:
        task: Title of the task.
        model: Name of the model.
        group: Query group.
        name: Name of the metric.
        worst: Worst value over all orders.
        current: Value in the result.
        best: Best value over all orders.
    """

    task: str
    model: str
    group: str
    name: str
    worst: str
    current: str
    best: str


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Metadata of one model.

    Attributes:
        label: Name of the model.
        hue: Number of its colour.
        rows: Name and value of each property.
    """

    label: str
    hue: int
    rows: Sequence[tuple[str, str]]


def summary(result_sets: Sequence[ResultSet]) -> list[SetSummary]:
    """Summarize the result sets.

    Args:
        result_sets: Result sets of the page.

    Returns:
        A summary per set.
    """
    leading_values = [_leading_value(result_set) for result_set in result_sets]
    return [
        SetSummary(
            key=result_set.key,
            task=result_set.title,
            data=str(result_set.data.get("name", "")),
            provenance=_provenance(result_set.data),
            n=result_set.n,
            set_hash=result_set.set_hash,
            models=len(result_set.entries),
            when=_date_range([entry.file.result.created for entry in result_set.entries]),
            leader=result_set.entries[0].label,
            metric=metric,
            value=value,
            interval=interval,
        )
        for result_set, (metric, value, interval) in zip(result_sets, leading_values, strict=True)
    ]


def timings(result_sets: Sequence[ResultSet]) -> list[Timing]:
    """Collect the timing of every result.

    Args:
        result_sets: Result sets of the page.

    Returns:
        A timing per result.
    """
    return [
        _entry_timing(result_set, entry)
        for result_set in result_sets
        for entry in result_set.entries
    ]


def left_out(result_sets: Sequence[ResultSet]) -> list[LeftOut]:
    """Group the skipped items by data and reason.

    Args:
        result_sets: Result sets of the page.

    Returns:
        An entry per data set and reason.
    """
    items: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    models: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for result_set in result_sets:
        for entry in result_set.entries:
            for item in entry.file.result.data.get("skipped", ()):
                key = (str(entry.file.result.data.get("name", "")), str(item["reason"]))
                items[key].setdefault(f"{item['id']}\t{item['source']}", str(item["source"]))
                models[key][entry.label] = None
    labels_by_data = {
        str(result_set.data.get("name", "")): {entry.label for entry in result_set.entries}
        for result_set in result_sets
    }
    return [
        LeftOut(
            data,
            reason,
            len(sources),
            list(sources.values())[:_EXAMPLES],
            ""
            if models[data, reason].keys() >= labels_by_data[data]
            else ", ".join(models[data, reason]),
        )
        for (data, reason), sources in sorted(items.items())
    ]


def ties(result_sets: Sequence[ResultSet]) -> list[Tie]:
    """Collect the strict metrics that another order of equal scores would change.

    Args:
        result_sets: Result sets of the page.

    Returns:
        The metrics, in descending order of the possible change.
    """
    spans: list[tuple[float, int, Tie]] = []
    for result_set in result_sets:
        names = _metric_names(result_set)
        for entry in result_set.entries:
            for group, evaluation in entry.metrics.items():
                for key, (worst, best) in evaluation.get("ties", {}).items():
                    metric = names.get(key) or Metric(key, key, "")
                    current = metric_value(evaluation, metric, "strict")
                    values = (Cell(worst, metric), current, Cell(best, metric))
                    texts = [cell.text(2) or "–" for cell in values]
                    queries = "all" if group == "all" else group
                    tie = Tie(result_set.title, entry.label, queries, metric.heading, *texts)
                    span = abs(best - worst) if metric.percent else 1.0
                    spans.append((-span, len(spans), tie))
    return [tie for *_, tie in sorted(spans, key=lambda item: item[:2])]


def models(result_sets: Sequence[ResultSet]) -> list[ModelMetadata]:
    """Collect the metadata of the models.

    Args:
        result_sets: Result sets of the page.

    Returns:
        An entry per model, in page order.
    """
    hues: dict[str, int] = {}
    rows: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for entry in (entry for result_set in result_sets for entry in result_set.entries):
        hues[entry.label] = entry.hue
        for name, value in _model_rows(entry):
            rows[entry.label][name][value] = None
    return [
        ModelMetadata(
            label, hue, [(name, " or ".join(values)) for name, values in rows[label].items()]
        )
        for label, hue in hues.items()
    ]


def versions(result_sets: Sequence[ResultSet]) -> list[tuple[str, str]]:
    """Collect package versions, platforms and hardware.

    Args:
        result_sets: Result sets of the page.

    Returns:
        Name and version; several versions are joined by "or".
    """
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in (entry for result_set in result_sets for entry in result_set.entries):
        result = entry.file.result
        for name, version in result.versions.items():
            values[name][version] = None
        hardware = result.hardware
        values["platform"][str(hardware.get("platform", "?"))] = None
        machine = f"{hardware.get('cpus', '?')} CPUs, {hardware.get('memory_gib', '?')} GiB"
        device = hardware.get("accelerator") or hardware.get("device")
        values["hardware"][f"{machine}, {device}" if device else machine] = None
    return [(name, " or ".join(alternatives)) for name, alternatives in values.items()]


def commands(result_sets: Sequence[ResultSet]) -> list[str]:
    """Build the commands that reproduce the results.

    Args:
        result_sets: Result sets of the page.

    Returns:
        Commands for the data, then one per model and settings.
    """
    lines: list[str] = []
    for result_set in result_sets:
        lines += [line for line in _data_commands(result_set) if line not in lines]
    runs: dict[str, dict[str, None]] = defaultdict(dict)
    for result_set in result_sets:
        for entry in result_set.entries:
            model, seed = _model_arguments(entry), entry.file.result.seed
            settings = f"--seed {seed}{_resamples_option(entry)}"
            if entry.file.result.limit is not None:
                settings += f" --limit {entry.file.result.limit}"
            settings += _option_flags(entry.file.result.options)
            if entry.file.result.computed_elsewhere:
                lines.append(_score_command(entry, result_set.task, settings))
                continue
            target = entry.file.result.task_info.get("target")
            task = shlex.quote(str(target or result_set.task))
            runs[f"{model} --data data {settings}"][task] = None
    for run, tasks in runs.items():
        names = " ".join(f"-t {name}" for name in tasks)
        model, _, rest = run.partition(" --data")
        lines.append(f"marsretrieval run {model} {names} --data{rest}")
    return lines


def _metric_names(result_set: ResultSet) -> dict[str, Metric]:
    """Key to metric; its heading has the direction of the query if there are several."""
    parts = leaderboard_columns(result_set.results)
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


def _date_range(created: Sequence[str]) -> str:
    days = sorted({time[:10] for time in created})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _leading_value(result_set: ResultSet) -> tuple[str, str, str]:
    """Name, value and interval of the strict main metric of the first model."""
    names = _metric_names(result_set)
    parts = leaderboard_columns(result_set.results)
    if not parts:
        return "", "", ""
    main = names[parts[0][1]]
    metrics = result_set.entries[0].metrics
    groups = [group for group in metrics if group.startswith(MEAN)] or [*metrics]
    values = {group: metric_value(metrics[group], main, "strict") for group in groups}
    group = max(values, key=lambda name: -1 if (v := values[name].value) is None else v)
    if values[group].value is None:
        return "", "", ""
    name = main.heading
    if group.startswith(MEAN):
        name += f", mean over landforms, {group.removeprefix(MEAN)} queries"
    return name, values[group].text(), values[group].interval("{}–{}")


def _entry_timing(result_set: ResultSet, entry: ResultEntry) -> Timing:
    result = entry.file.result
    recorded = result.timings
    texts = [recorded[name] for name in ("embed_texts", "embed_queries") if name in recorded]
    seconds = {name: recorded.get(name) for name in ("total", "decode", "embed", "search", "score")}
    seconds["texts"] = sum(texts) if texts else None
    device = result.hardware.get("accelerator") or result.hardware.get("device") or "–"
    idle = recorded.get("device_idle")
    rate = recorded.get("images_per_s")
    return Timing(
        result_set.title,
        entry.label,
        rate,
        idle,
        seconds,
        str(device),
        memory=_byte_count(result.hardware.get("peak_memory_bytes")),
        gpu_memory=_byte_count(result.hardware.get("peak_gpu_memory_bytes")),
    )


def _byte_count(value: object) -> int | None:
    """A number of bytes; None if it is missing or none."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None  # type: ignore[return-value]


def _data_commands(result_set: ResultSet) -> Iterator[str]:
    """Commands that create or download the data of a set, if its provenance is recorded."""
    data = result_set.data
    if result_set.task not in _DATASETS:
        return
    if data.get("synthetic"):
        yield f"marsretrieval data synth --out data --seed {data.get('seed')}"
    elif data.get("repository"):
        parts = ["marsretrieval data download", _DATASETS[result_set.task], "--out data"]
        for option in ("revision", "variant"):
            if data.get(option):
                parts.append(f"--{option} {shlex.quote(str(data[option]))}")
        yield " ".join(parts)


def _resamples_option(entry: ResultEntry) -> str:
    count = (entry.file.result.settings or {}).get("resamples")
    return "" if count is None or count == Settings().resamples else f" --resamples {count}"


def _option_flags(options: Mapping[str, Any]) -> str:
    """Flags of the options of a result; templates and class names of a file as FILE."""
    flags = []
    for name, value in options.items():
        text = str(value) if isinstance(value, int | float | str) else "FILE"
        flags.append(f" --{name.replace('_', '-')} {shlex.quote(text)}")
    return "".join(flags) + (" --confirm-dim" if "dim" in options else "")


def _score_command(entry: ResultEntry, task: str, settings: str) -> str:
    model = entry.file.result.model
    source: Mapping[str, Any] = model.get("source") or {}  # type: ignore[assignment]
    name = shlex.quote(str(model["id"]))
    file = shlex.quote(str(source.get("name", "FILE")))
    for option, of_score in _SCORE_OPTIONS.items():
        settings = settings.replace(f" {option} ", f" {of_score} ")
    covered_only = " --covered-only" if entry.file.result.data.get("covered_only") else ""
    return (
        f"marsretrieval score {_SCORE_COMMANDS.get(task, task)} --data data "
        f"--{source.get('kind', 'embeddings')} {file} --name {name} {settings}{covered_only}"
    )


def _model_arguments(entry: ResultEntry) -> str:
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


def _model_rows(entry: ResultEntry) -> Iterator[tuple[str, str]]:
    model = entry.file.result.model
    prompts = model.get("prompts") or {}
    versions = entry.file.result.protocol_versions or {}
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
        ("protocols", ", ".join(f"{p} {v}" for p, v in versions.items()) or None),
        ("trained on", model.get("trained_on") or None),
        ("verified by", model.get("verified_by") or None),
    ):
        if value is not None:
            yield name, str(value)
    cut = entry.file.result.data.get("truncated") or {}
    for kind in ("captions", "queries"):
        if cut.get("cut") and kind in cut:
            yield f"{kind} cut at the context length", f"{cut['cut']:,} of {cut[kind]:,}"
