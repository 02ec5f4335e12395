"""Small files in every supported layout, and damaged ones."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import png_bytes

__all__ = ["encoded", "geotiff", "problem_of", "read_all", "write_parquet", "write_tar"]


def encoded(mode: str = "L", size: tuple[int, int] = (12, 9), kind: str = "PNG") -> bytes:
    """Create an image of a mode with many distinct values."""
    width, height = size
    ramp = np.add.outer(np.arange(height), np.arange(width))
    if mode == "I;16":
        image = Image.fromarray((ramp * 997).astype(np.uint16))
    elif mode in ("I", "F"):
        image = Image.fromarray((ramp * 9.5 - 40).astype(np.int32 if mode == "I" else np.float32))
    else:
        image = Image.fromarray((ramp * 9 % 256).astype(np.uint8)).convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def geotiff(bands: Any, *, mask: Any = None, **profile: Any) -> bytes:
    """Encode (bands, height, width) with an internal mask (height, width)."""
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore")
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            memory.open(driver="GTiff", **shape, **profile) as file,
        ):
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
        return bytes(memory.read())


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(
    path: Path,
    columns: Mapping[str, Sequence[Any]],
    names: Sequence[str] | None = None,
    **more: Any,
) -> Path:
    """Write Parquet like the datasets library, with ClassLabel names in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(columns))
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": list(names)}}
        metadata = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, path, **more)
    return path


def images(count: int) -> list[dict[str, Any]]:
    return [{"bytes": png_bytes(seed), "path": f"{seed}.png"} for seed in range(count)]


def problem_of(record: Any) -> str | None:
    """Return the reasons of the warnings of a record in one line."""
    return "; ".join(warning.reason for warning in record.warnings) or None


def read_all(source: Any, *, images: bool = True) -> list[Any]:
    return [item for shard in source.shards() for item in source.read(shard, images=images)]
