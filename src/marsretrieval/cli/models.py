"""``marsretrieval models`` and ``models check``: what there is, and whether it loads here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from marsretrieval.cli._options import (
    Checkpoint,
    Device,
    Dtype,
    Offline,
    Prompts,
    TrustRemoteCode,
    load_options,
)
from marsretrieval.cli._shared import JsonFlag, print_json, say
from marsretrieval.errors import UnknownNameError

if TYPE_CHECKING:
    from marsretrieval.encoders import ModelRecord

__all__ = ["app"]

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class _PatternOrCommand(TyperGroup):
    """``models siglip`` lists what matches; ``models check ID`` is a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PatternOrCommand, help="List the models, or check that one loads: models [PATTERN]."
)


@app.command("list")
def list_models(
    pattern: Annotated[
        str, typer.Argument(help="Part of an id, name or family; * and ? as in file names.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """List the models of the catalogue and of installed plugins."""
    from marsretrieval.encoders import all_records

    found = [record for record in all_records() if _matches(record, pattern)]
    if not found:
        raise UnknownNameError("model", pattern, [record.id for record in all_records()])
    if as_json:
        print_json([_row(record) for record in found])
    else:
        _table(found)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="A catalogue id or module:Class.")],
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    prompts: Prompts = "paper",
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Load a model, embed two images and two texts, print what it found."""
    from marsretrieval.encoders import find, load

    options = load_options(
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        prompts=prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    record = find(model)
    say(f"loading {record.id}")
    start = time.perf_counter()
    encoder = load(record, options)
    found = {"seconds_to_load": round(time.perf_counter() - start, 2), **_tried(encoder)}
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name:<18} {value}")


def _tried(encoder: Any) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 255, 256, dtype=np.uint8)
    images = [
        Image.fromarray(np.tile(ramp, (192, 1))).convert("RGB"),  # wide
        Image.fromarray(np.tile(ramp[:, None] ^ 255, (1, 128))).convert("RGB"),  # tall
    ]
    texts = ["a satellite photo of pitted cones.", "sand"]
    start = time.perf_counter()
    vectors = encoder.encode_images(images)
    seconds = {"images": time.perf_counter() - start}
    one_by_one = np.concatenate([encoder.encode_images([image]) for image in images])
    found: dict[str, Any] = {
        "dimension": int(vectors.shape[1]),
        "unit": bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)),
        "batch_difference": float(np.abs(vectors - one_by_one).max()),
    }
    if "text" in encoder.modalities:
        start = time.perf_counter()
        words = encoder.encode_texts(texts)
        seconds["texts"] = time.perf_counter() - start
        alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
        found["batch_difference_of_texts"] = float(np.abs(words - alone).max())
        found["cosines"] = np.round(vectors @ words.T, 4).tolist()
        found["texts_cut"] = encoder.count_truncated(texts)
    found["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    return {**found, **encoder.fingerprint}


def _matches(record: ModelRecord, pattern: str) -> bool:
    from fnmatch import fnmatch

    wanted = pattern.lower()
    texts = (record.id.lower(), record.name.lower(), record.family.lower())
    return any(wanted in text or fnmatch(text, wanted) for text in texts)


def _row(record: ModelRecord) -> dict[str, Any]:
    dtype = record.settings.get("gpu_dtype", "float32")
    memory = record.parameters * _BYTES[dtype] / 2**30 if record.parameters else None
    return {
        "id": record.id,
        "name": record.name,
        "family": record.family,
        "parameters": record.parameters,
        "image_size": record.image_size,
        "dimension": record.dimension,
        "modalities": sorted(record.modalities),
        "context_length": record.context_length,
        "licence": record.licence,
        "repository": record.repository,
        "revision": record.revision,
        "gated": record.gated,
        "weights_gib": round(memory, 1) if memory is not None else None,
        "precision_on_gpu": dtype,
        "tried": record.tried,
        "notes": record.notes,
        "paper": record.paper,
        "code": record.code,
    }


def _table(records: Sequence[ModelRecord]) -> None:
    from rich import box
    from rich.table import Table

    from marsretrieval.report.console import console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("family", no_wrap=True)
    for heading in ("params", "px", "dim", "GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("text", "gated"):
        table.add_column(heading)
    table.add_column("licence", max_width=14, overflow="ellipsis", no_wrap=True)
    for row in map(_row, records):
        table.add_row(
            row["id"],
            row["family"],
            _count(row["parameters"]),
            str(row["image_size"] or "any"),
            str(row["dimension"]),
            str(row["weights_gib"] if row["weights_gib"] is not None else "?"),
            "yes" if "text" in row["modalities"] else "no",
            "yes" if row["gated"] else "",
            row["licence"],
        )
    console().print(table)
    print("GiB: weights alone, at the precision used on a GPU. --json has revisions and notes.")


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "?"
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
