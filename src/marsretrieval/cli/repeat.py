"""Option ``--repeat`` of the search command: options read from the record of an exported file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from marsretrieval.cli.console import say

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.search.provenance import SearchRequest

_KEY = "marsretrieval.repeat"  # of click's Context.meta

# Option of each field of SearchRequest.
_OPTIONS = {
    "stores": "--store",
    "text": "--text",
    "use_templates": "--no-templates",
    "images": "--image",
    "vector": "--vector",
    "similar_to": "--similar-to",
    "image_weight": "--image-weight",
    "negative_text": "--negative-text",
    "negative_images": "--negative-image",
    "negative_tiles": "--negative",
    "negative_weight": "--negative-weight",
    "bbox": "--bbox",
    "region": "--region",
    "region_layer": "--region-layer",
    "k": "--count",
    "min_score": "--min-score",
    "min_valid": "--min-valid",
    "keep_examples": "--keep-examples",
    "merge_deg": "--merge-deg",
    "lon": "--lon",
}
_POSITIVE = ("--text", "--image", "--similar-to", "--similar-to-location")
_QUERY = (*_POSITIVE, "--negative-text", "--negative-image", "--negative")
# Recorded options that an option of the command line replaces, beside its own.
_EXCLUDES = {
    "--bbox": ("--region", "--region-layer"),
    "--region": ("--bbox", "--region-layer"),
    "--vector": _QUERY,
    **dict.fromkeys(_POSITIVE, ("--vector",)),
}


@dataclass(slots=True)
class Repetition:
    """A search that is repeated from a file.

    Attributes:
        file: The exported file.
        record: Its provenance.
        options: Values that it sets, by parameter name.
        overridden: Options given on the command line instead.
        removed: Parameters of recorded options that an option of the command line excludes.
        differences: Differences of the store, see `compare_store`.
    """

    file: Path
    record: Mapping[str, Any]
    options: dict[str, Any]
    overridden: list[str] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def compare(self, store: EmbeddingStore) -> None:
        """Compare the store with that of the file; print the differences on stderr.

        Args:
            store: The store to search.
        """
        from marsretrieval.search.provenance import compare_store, describe_differences

        self.differences = compare_store(self.record, store)
        for line in describe_differences(self.differences):
            say(f"warning: {store.path} is not as it was for {self.file}: {line}")

    def to_dict(self) -> dict[str, Any]:
        """Return file, date, overridden options and differences as a JSON object."""
        return {
            "file": str(self.file),
            "date": self.record.get("date"),
            "overridden": self.overridden,
            "differences": self.differences,
        }


def read_options(
    context: typer.Context, param: typer.CallbackParam, path: Path | None
) -> Path | None:
    """Set the defaults of a search to the options recorded in a file.

    Example images and region files are checked against their hashes, unless their options are given
    on the command line.

    Args:
        context: Context of the command.
        param: The option --repeat.
        path: The exported file.

    Returns:
        `path`.

    Raises:
        DataError: If the file has no record, or a file of the request is missing or changed.
    """
    if path is None or context.resilient_parsing:
        return path
    from marsretrieval.search.provenance import read_provenance, read_request

    record = read_provenance(path)
    names = {flag: option.name for option in context.command.params for flag in option.opts}
    values = _values(read_request(record, path))
    options = {
        names[flag] or flag: values[field_name]
        for field_name, flag in _OPTIONS.items()
        if values[field_name] is not None
    }
    context.default_map = {**(context.default_map or {}), **options}
    context.meta[_KEY] = Repetition(path, record, options)
    return path


def command_line_flags(context: typer.Context) -> set[str]:
    """Return the options given on the command line, under all their names.

    Args:
        context: Context of the command, with all options parsed.
    """
    flags = set()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        # By name: typer may bring its own copy of click.
        if source is not None and source.name == "COMMANDLINE":
            flags |= {*option.opts}
    return flags


def finish_repeat(context: typer.Context) -> Repetition | None:
    """Check the files of a repeated request, and report overridden options on stderr.

    Args:
        context: Context of the command, with all options parsed.

    Returns:
        The repetition; None without --repeat. Its `removed` names the parameters that an option
        of the command line excludes: a box excludes a region, a vector all other queries.

    Raises:
        DataError: If a file of the request is missing or changed.
    """
    repetition: Repetition | None = context.meta.get(_KEY)
    if repetition is None:
        return None
    from marsretrieval.search.provenance import read_request

    names = {flag: option.name or "" for option in context.command.params for flag in option.opts}
    flags = command_line_flags(context)
    excluded = {other for flag in flags for other in _EXCLUDES.get(flag, ())} - flags
    for flag in _OPTIONS.values():
        if names[flag] in repetition.options and flag in flags | excluded:
            repetition.overridden.append(flag)
        if names[flag] in repetition.options and flag in excluded:
            del repetition.options[names[flag]]
            repetition.removed.add(names[flag])
    request = read_request(repetition.record, repetition.file)
    files = (
        ("images", "example image", request.images),
        ("negative_images", "negative example image", request.negative_images),
        ("region", "region", () if request.region is None else (request.region,)),
        ("vector", "vector", () if request.vector is None else (request.vector,)),
    )
    for field_name, kind, references in files:
        if _OPTIONS[field_name] not in repetition.overridden:
            for reference in references:
                reference.check(repetition.file, kind)
    for flag in repetition.overridden:
        say(
            f"note: {flag} of the command line replaces that of {repetition.file}"
            if flag in flags
            else f"note: {flag} of {repetition.file} is left out, replaced by the command line"
        )
    against = repetition.record.get("against")
    if against and "--against" not in flags:
        say(
            f"note: the catalogue of {repetition.file} is not part of the search; add "
            f"--against {against.get('file') or 'CATALOGUE'} to compare the hits again"
        )
    return repetition


def _values(request: SearchRequest) -> dict[str, Any]:
    """Return the request as values of options; None where the option is not set."""
    values: dict[str, Any] = request.to_dict()
    for name in ("images", "negative_images"):
        values[name] = [reference.path for reference in getattr(request, name)]
    values["region"] = None if request.region is None else request.region.path
    values["vector"] = None if request.vector is None else request.vector.path
    values["use_templates"] = not request.use_templates
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            values[name] = list(value) or None
    return values
