"""The table of pairs: captions and the addresses of their images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from marsretrieval.errors import DataError, TableError

_COLUMNS = ("key", "image_url", "ori_caption", "refined_caption")
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, slots=True)
class Pair:
    row: int
    key: str
    name: str  # of its members in a tar: the key where every key may be a file name
    url: str
    original_caption: str
    refined_caption: str


def read_pairs(folder: Path) -> list[Pair]:
    """All rows of the Parquet files at any depth of `folder`, in order.

    Raises DataError when there are none, TableError when a column is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(
            f"{folder}: no Parquet table of pairs in the repository",
            remedy="Try another --revision, such as refs/convert/parquet.",
        )
    rows: list[dict[str, object]] = []
    for path in files:
        try:
            schema = pq.read_schema(path)
            absent = [name for name in _COLUMNS if name not in schema.names]
            if absent:
                raise TableError(
                    f"{path}: no column '{absent[0]}' (there are {', '.join(schema.names)})"
                )
            rows += pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{path}: not a readable Parquet file ({error})") from error
    texts = [{name: str(row[name] or "").strip() for name in _COLUMNS} for row in rows]
    keys = [text["key"] for text in texts]
    safe = all(map(_SAFE.fullmatch, keys)) and len({key.lower() for key in keys}) == len(keys)
    return [
        Pair(
            row=number,
            key=text["key"],
            name=text["key"] if safe else f"{number:06d}",
            url=text["image_url"],
            original_caption=text["ori_caption"],
            refined_caption=text["refined_caption"],
        )
        for number, text in enumerate(texts)
    ]
