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

# Option of each field of SearchRequest, its present name first.
_OPTIONS = {
    "store": ("--store",),
    "text": ("--text",),
    "use_templates": ("--raw",),
    "images": ("--image",),
    "vector": ("--vector",),
    "similar_to": ("--similar-to", "--like"),
    "image_weight": ("--image-weight", "--mix"),
    "negative_text": ("--negative-text", "--not-text"),
    "negative_images": ("--negative-image", "--not-image"),
    "negative_tiles": ("--negative-tile", "--not-like"),
    "negative_weight": ("--negative-weight", "--not-weight"),
    "bbox": ("--bbox",),
    "region": ("--region",),
    "k": ("--count",),
    "min_score": ("--min-score",),
    "min_valid": ("--min-valid",),
    "keep_examples": ("--keep-examples",),
    "merge_deg": ("--merge-deg",),
    "lon": ("--lon",),
}
_EXCLUSIVE = {"--bbox": "--region", "--region": "--bbox"}


@dataclass(slots=True)
class Repetition:
    """A search that is repeated from a file.

    Attributes:
        file: The exported file.
        record: Its provenance.
        options: Values that it sets, by parameter name.
        overridden: Options given on the command line instead.
        differences: Differences of the store, see `compare_store`.
    """

    file: Path
    record: Mapping[str, Any]
    options: dict[str, Any]
    overridden: list[str] = field(default_factory=list)
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
    names = {}
    for option in context.command.params:
        names.update(dict.fromkeys([*option.opts, *option.secondary_opts], option))
    values = _values(read_request(record, path))
    options = {}
    for field_name, flags in _OPTIONS.items():
        match = next((names[flag] for flag in flags if flag in names), None)
        if match is not None and match.name is not None and values[field_name] is not None:
            value = values[field_name]
            is_list = getattr(match, "multiple", False)
            options[match.name] = [value] if is_list and isinstance(value, str) else value
    context.default_map = {**(context.default_map or {}), **options}
    context.meta[_KEY] = Repetition(path, record, options)
    return path


def finish_repeat(context: typer.Context) -> Repetition | None:
    """Check the files of a repeated request, and report overridden options on stderr.

    Args:
        context: Context of the command, with all options parsed.

    Returns:
        The repetition; None without --repeat. A box of the file yields to a region of the command
        line and vice versa: their parameters are removed from `options`.

    Raises:
        DataError: If a file of the request is missing or changed.
    """
    repetition: Repetition | None = context.meta.get(_KEY)
    if repetition is None:
        return None
    from marsretrieval.search.provenance import read_request

    given = {}
    for option in context.command.params:
        source = context.get_parameter_source(option.name) if option.name else None
        # By name: typer may bring its own copy of click.
        if option.name and source is not None and source.name == "COMMANDLINE":
            given.update(dict.fromkeys(option.opts, option.name))
    for field_name, flags in _OPTIONS.items():
        flag = next((flag for flag in flags if flag in given), None)
        if flag is not None and given[flag] in repetition.options:
            repetition.overridden.append(flag)
        other = _EXCLUSIVE.get(flag or "")
        if other is not None and field_name in ("bbox", "region"):
            name = other.removeprefix("--")
            if name in repetition.options and other not in given:
                del repetition.options[name]
                context.params[name] = None
                repetition.overridden.append(other)
    request = read_request(repetition.record, repetition.file)
    files = (
        ("images", "--image", "example image", request.images),
        ("negative_images", "--not-image", "negative example image", request.negative_images),
        ("region", "--region", "region", () if request.region is None else (request.region,)),
        ("vector", "--vector", "vector", () if request.vector is None else (request.vector,)),
    )
    for field_name, _, kind, references in files:
        if not {*_OPTIONS[field_name]} & {*repetition.overridden}:
            for reference in references:
                reference.check(repetition.file, kind)
    for flag in repetition.overridden:
        say(f"note: {flag} of the command line replaces that of {repetition.file}")
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
