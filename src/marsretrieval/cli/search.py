"""``marsretrieval search``: words, pictures, or both, over a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli._options import (
    Checkpoint,
    Device,
    Offline,
    TrustRemoteCode,
    load_options,
)
from marsretrieval.cli._shared import JsonFlag, print_json, say, show_progress
from marsretrieval.errors import ModalityError, UsageError

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.encoders import Encoder
    from marsretrieval.search import Hits

__all__ = ["search"]

_SHOWN = 20


def search(
    store: Annotated[Path, typer.Option(help="Folder of a store made by embed or run.")],
    text: Annotated[str | None, typer.Option(help="What to look for: a landform's name.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send the text as it is, without the three templates.")
    ] = False,
    image: Annotated[list[Path] | None, typer.Option(help="An example image; repeatable.")] = None,
    mix: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the images in a query of both.")
    ] = 0.3,
    bbox: Annotated[
        str | None,
        typer.Option(metavar="W,S,E,N", help="Only tiles centred in this box, degrees east."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="How many hits.")] = 500,
    min_score: Annotated[
        float | None, typer.Option(help="Only hits with at least this cosine.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="A .geojson, .parquet or .csv file."),
    ] = None,
    lon: Annotated[
        int, typer.Option(metavar="180|360", help="Longitudes as -180..180 or as 0..360.")
    ] = 180,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Find places on Mars: the exact best matches of a query in a store of embeddings.

    The model that made the store is loaded for the query. Scores are cosines; places are on the
    Mars sphere, IAU_2015:49900.
    """
    from marsretrieval.embeddings import open_store
    from marsretrieval.geo import Box
    from marsretrieval.search import (
        Hits,
        check_hits_path,
        exact_topk,
        make_query,
        read_images,
        write_hits,
    )

    if text is None and not image:
        raise UsageError("nothing to search for", remedy="Give --text, --image, or both.")
    if lon not in (180, 360):
        raise UsageError(f"--lon {lon}", remedy="Use 180 or 360.")
    box = Box.parse(bbox) if bbox is not None else None
    if out is not None:
        check_hits_path(out)
    pictures = read_images(image or [])
    found = open_store(store)
    if found.kind != "image":
        raise UsageError(f"{store} holds texts, not images")
    if not found.complete:
        say(f"warning: {store} is not finished, {len(found.missing)} shards are missing")
    encoder = _encoder_of(
        found,
        needs_text=text is not None,
        checkpoint=checkpoint,
        device=device,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    query = make_query(encoder, text=text, images=pictures, raw=raw, mix=mix)
    with show_progress(quiet=as_json) as progress:
        ranking = exact_topk(
            found, query, count, min_score=min_score, region=box, progress=progress
        )
    about: dict[str, Any] = {
        "store": str(store),
        "model": encoder.id,
        "text": text,
        "raw": raw,
        "images": [str(path) for path in image or []],
        "mix": mix if text is not None and image else None,
        "bbox": bbox,
        "count": count,
        "min_score": min_score,
        "dataset": dict(found.dataset),
    }
    hits = Hits.of(found, ranking, domain=lon, about=about)
    if out is not None:
        write_hits(hits, out)
    if as_json:
        print_json({**about, "rows": found.rows, "hits": list(hits.records())})
    else:
        _show(hits, out)


def _encoder_of(
    store: EmbeddingStore,
    *,
    needs_text: bool,
    checkpoint: Path | None,
    device: str,
    offline: bool,
    trust_remote_code: bool,
) -> Encoder:
    """Load the model that made the store, and make sure that it is the one."""
    from marsretrieval.encoders import find, load

    asked = store.model
    if checkpoint is None and asked.checkpoint is not None:
        checkpoint = Path(asked.checkpoint)
        if not checkpoint.exists():
            raise UsageError(
                f"{store.path} was made with the weights {checkpoint}, which are gone",
                remedy="Say with --checkpoint where they are now.",
            )
    options = load_options(
        device=device,
        dtype=asked.dtype,
        checkpoint=checkpoint,
        prompts=asked.prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    record = find(asked.model)
    if needs_text and "text" not in record.modalities:
        raise ModalityError(
            f"{record.id}, the model of {store.path}, is vision-only and cannot embed text",
            remedy="Search with --image, or in a store made by a model with a text side.",
        )
    say(f"loading {record.id}")
    encoder = load(record, options)
    store.require_encoder(encoder.fingerprint)
    return encoder


def _show(hits: Hits, out: Path | None) -> None:
    if not len(hits):
        print("no hits")
    for record in hits.records():
        if record["rank"] > _SHOWN:
            more = len(hits) - _SHOWN
            print(f"... and {more:,} more" + ("" if out else ": -o FILE or --json give all"))
            break
        if record["lon"] is None:
            place = "position unknown"
        else:
            place = f"{record['lon']:9.3f} E {record['lat']:8.3f} N"
        print(f"{record['rank']:>5}  {record['score']:.4f}  {place}  {record['id']}")
    if out is not None:
        print(f"{out}: {len(hits):,} hits")
