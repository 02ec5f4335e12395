"""``marsretrieval models`` and ``doctor``: list models, check one, and check the machine."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import (
    MODEL_NAMES,
    EncoderOptions,
    expand_options,
)
from marsretrieval.errors import (
    MarsRetrievalError,
    ModelLoadError,
    UnknownNameError,
    describe_exception,
)

if TYPE_CHECKING:
    from marsretrieval.encoders.base import ModelSpec


class _PatternOrCommand(Group):
    """Group in which ``models PATTERN`` is short for ``models list PATTERN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `list` unless the first argument is a command or a help option."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PatternOrCommand,
    help="List the models, or check one of them.\n\n`models PATTERN` is short for `models list "
    "PATTERN`.",
)


@app.command("list", cls=Command)
def list_models(
    pattern: Annotated[
        str,
        typer.Argument(
            help="Part of an id, name or family; * and ? are wildcards. oc: and timm: list those "
            "of open_clip and timm, oc:PATTERN some of them."
        ),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """List the registered models, or one model with all details.

    Raises:
        UnknownNameError: If no model matches the pattern.
    """
    from marsretrieval.encoders.base import LIBRARIES
    from marsretrieval.encoders.registry import all_specs

    library, colon, part = pattern.partition(":")
    if colon and library in LIBRARIES:
        _print_names(library, part, as_json=as_json)
        return
    specs = [spec for spec in all_specs() if _matches(spec, pattern)]
    if not specs:
        raise UnknownNameError("model", pattern, [spec.id for spec in all_specs()])
    rows = [_model_row(spec) for spec in specs]
    if as_json:
        print_json(rows)
    elif len(rows) == 1:
        _print_details(rows[0])
    else:
        _print_table(rows)


@app.command(cls=Command)
@expand_options
def check(
    *,
    model: Annotated[str, typer.Argument(help=f"{MODEL_NAMES}.")],
    loading: EncoderOptions,
    as_json: JsonFlag = False,
) -> None:
    """Load a model, embed two images and two texts, and check the vectors.

    Exit code 1 if the vectors are not normalized or depend on the batch.

    Raises:
        UnknownNameError: If there is no such model.
        ModelLoadError: If the model cannot be loaded.
        typer.Exit: With code 1 if the check finds a problem.
    """
    from marsretrieval.encoders.doctor import check_encoder
    from marsretrieval.encoders.registry import find, load

    options = loading.load_options()
    spec = find(model)
    say(f"loading {spec.id}")
    start = time.perf_counter()
    try:
        encoder = load(spec, options)
    except MarsRetrievalError:
        raise
    except Exception as error:  # a user's class may raise anything, in any of its attributes
        raise ModelLoadError(
            f"{spec.id} cannot be loaded ({describe_exception(error)})",
            remedy="Run marsretrieval doctor to check the libraries and weights.",
        ) from error
    outcome = {
        "seconds_to_load": round(time.perf_counter() - start, 2),
        **check_encoder(encoder),
    }
    if as_json:
        print_json(outcome)
    else:
        _print_check(outcome)
    if outcome["problems"]:
        problems: Sequence[str] = outcome["problems"]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        say(
            f"error: {spec.id}: {problems[0]}{more}\n"
            "  Correct the model's class, checkpoint or options, then check again."
        )
        raise typer.Exit(1)


def _print_names(library: str, part: str, *, as_json: bool) -> None:
    """Print the names of a library's models that hold or match a pattern."""
    from marsretrieval.encoders.library_names import list_names

    lowered, names = part.lower(), list_names(library)
    plain = [(name, name.partition(":")[2].lower()) for name in names]
    matches = [name for name, rest in plain if lowered in rest or fnmatch(rest, lowered)]
    if not matches:
        raise UnknownNameError("model", f"{library}:{part}", names)
    if as_json:
        print_json(matches)
    else:
        for name in matches:
            echo(name)


def _print_details(row: Mapping[str, Any]) -> None:
    """Print all that is known of one model, a line for each field."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
        elif isinstance(value, list):
            text = ", ".join(value)
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        else:
            text = "" if value is None else str(value)
        echo(f"{name}: {text or '-'}")


def _print_check(outcome: Mapping[str, Any]) -> None:
    echo(
        f"{outcome['id']}: loaded in {outcome['seconds_to_load']} s, "
        f"dimension {outcome['dimension']}"
    )
    for modality in ("images", "texts"):
        if modality in outcome:
            measurement = outcome[modality]
            echo(
                f"two {modality}: {measurement['seconds']} s; "
                f"norms within {measurement['off_unit_length']:.1g} of 1; "
                f"batch and single vectors within {measurement['batch_difference']:.1g}"
            )
    if "texts" in outcome:
        cut_count = outcome["texts"]["cut_at_context_length"]
        echo(f"texts cut at the context length: {'not known' if cut_count is None else cut_count}")
    if "cosines" in outcome:
        echo("cosine similarities, one row per image:")
        texts = [f"'{text}'" for text in outcome["texts"]["embedded"]]
        echo("  " + "  ".join(texts))
        for row in outcome["cosines"]:
            cells = zip(row, texts, strict=True)
            echo("  " + "  ".join(f"{cosine:>{len(text)}.4f}" for cosine, text in cells))
    for name, value in outcome["fingerprint"].items():
        echo(f"{name}: {'-' if value is None else value}")
    for line in outcome["problems"]:
        echo(f"problem: {line}")
    echo("ok: no" if outcome["problems"] else "ok: yes")


def _matches(spec: ModelSpec, pattern: str) -> bool:
    lowered = pattern.lower()
    texts = (spec.id.lower(), spec.name.lower(), spec.family.lower())
    return any(lowered in text or fnmatch(text, lowered) for text in texts)


def _model_row(spec: ModelSpec) -> dict[str, Any]:
    return {
        "id": spec.id,
        "name": spec.name,
        "family": spec.family,
        "parameters": spec.parameters,
        "image_size": spec.image_size,
        "dimension": spec.dimension or None,
        "modalities": sorted(spec.modalities),
        "context_length": spec.context_length,
        "licence": spec.licence,
        "repository": spec.repository,
        "revision": spec.revision,
        "gated": spec.gated,
        "dtype": {"cpu": "float32", "gpu": spec.gpu_dtype},
        "weights_gib": {
            "cpu": _round_size(spec.weights_gib("float32")),
            "gpu": _round_size(spec.weights_gib(spec.gpu_dtype)),
        },
        "tried": spec.tried,
        "notes": spec.notes,
        "trained_on": spec.trained_on,
        "verified_by": spec.verified_by,
        "paper": spec.paper,
        "code": spec.code,
    }


def _round_size(size: float | None) -> float | None:
    return None if size is None else round(size, 2)


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from marsretrieval.report.render import console

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("id", overflow="fold")
    table.add_column("family", max_width=13, overflow="ellipsis", no_wrap=True)
    for heading in ("params", "px", "dim", "CPU", "GPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True)
    table.add_column("revision", no_wrap=True)
    table.add_column("licence", max_width=11, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(
            row["id"],
            row["family"],
            _format_count(row["parameters"]),
            str(row["image_size"] or "any"),
            str(row["dimension"] or "?"),
            _format_size(row["weights_gib"]["cpu"]),
            _format_size(row["weights_gib"]["gpu"]),
            "yes" if "text" in row["modalities"] else "no",
            row["revision"][:7] if row["revision"] else "-",
            row["licence"],
        )
    console().print(table)
    echo(
        "\nCPU, GPU: GiB of weights in memory; loading takes up to twice that. px: image size."
        "\nrevision: pinned commit; - if not pinned (results record the loaded one). --json has "
        "more."
    )
    if gated := [row["id"] for row in rows if row["gated"]]:
        echo(f"Gated, needs a Hugging Face token: {', '.join(gated)}")
    _print_tested_versions(rows)
    echo(
        "marsretrieval models ID: all details, also what the model was trained on."
        "\nOther names: oc:ARCHITECTURE/PRETRAINED (open_clip), hf:REPOSITORY (transformers),"
        "\ntimm:NAME, st:NAME (sentence-transformers), mteb:NAME (MTEB's registry),"
        "\npackage.module:Class (your own)."
    )


def _print_tested_versions(rows: Sequence[Mapping[str, Any]]) -> None:
    models = defaultdict(list)
    for row in rows:
        if row["tried"]:
            models[row["tried"]].append(row["id"])
    for tried, ids in models.items():
        echo(f"Tried of {', '.join(ids) if len(ids) < 3 else f'{len(ids)} models'}: {tried}")


def _format_size(gib: float | None) -> str:
    if gib is None:
        return "?"
    return "<0.1" if gib < 0.1 else f"{gib:.1f}"


def _format_count(parameters: int | None) -> str:
    if parameters is None:
        return "?"
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.0f}M" if parameters >= 1e7 else f"{parameters / 1e6:.1f}M"


def doctor(as_json: JsonFlag = False) -> None:
    """Check that this machine can run models, and suggest remedies.

    Checks Python, cores, memory, disk, torch and its devices, and the model cache. Exit code 1 if
    models cannot run.

    Raises:
        typer.Exit: With code 1 if models cannot run on this machine.
    """
    from marsretrieval.encoders.doctor import examine_machine

    machine = examine_machine()
    problems, notes = machine["problems"], machine["notes"]
    if as_json:
        print_json(machine)
    else:
        for name, value in machine.items():
            if name not in ("problems", "notes"):
                _print_value(name, value)
        for line in notes:
            echo(f"note: {line}")
        for line in problems:
            echo(f"problem: {line}")
        echo("fit: no" if problems else "fit: yes")
    if problems:
        raise typer.Exit(1)


def _print_value(name: str, value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        echo(f"{indent}{name}:")
        for key, item in value.items():
            _print_value(key, item, indent + "  ")
        return
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, list):
        text = ", ".join(map(str, value))
    else:
        text = "not installed" if value is None else str(value)
    echo(f"{indent}{name}: {text}")
