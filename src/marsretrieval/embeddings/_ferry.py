"""Objects with large arrays handed from one process to another without going through a pipe.

The arrays go into a file in memory, which the other process maps and unlinks: they are copied
once, and nothing of them is left behind by a process that dies after that.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_SMALL = 2**16  # bytes: not worth a file
_ALIGNED = 64
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Packed:
    """A pickle, and where its arrays lie: `file` is None where they are in `parts` themselves."""

    pickled: bytes
    file: Path | None
    parts: list[tuple[int, int]] | list[bytes]  # offset and length


def dock() -> tempfile.TemporaryDirectory[str]:
    """A folder for the files of `pack`: in memory, on systems that have such a place."""
    there = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(
        prefix=f"marsretrieval-{os.getpid()}-", dir=there, ignore_cleanup_errors=True
    )


def pack(value: Any, folder: Path) -> Packed:
    """Arrays and CPU tensors anywhere in `value` go into a file in `folder`; where it has no room
    for them (a container's /dev/shm may be small) they travel beside the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    out = BytesIO()
    _Pickler(out, protocol=5, buffer_callback=buffers.append).dump(value)
    raw = [buffer.raw() for buffer in buffers]
    if sum(part.nbytes for part in raw) >= _SMALL:
        try:
            return Packed(out.getvalue(), *_written(raw, folder))
        except OSError:
            pass  # no room; see above
    return Packed(out.getvalue(), None, [bytes(part) for part in raw])


def _written(raw: list[memoryview], folder: Path) -> tuple[Path, list[tuple[int, int]]]:
    descriptor, name = tempfile.mkstemp(dir=folder)
    parts = []
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in raw:
                start = -(-file.tell() // _ALIGNED) * _ALIGNED
                file.seek(start)
                rest = part
                while rest.nbytes:
                    rest = rest[file.write(rest) :]
                parts.append((start, part.nbytes))
    except OSError:
        Path(name).unlink()
        raise
    return Path(name), parts


def unpack(packed: Packed) -> Any:
    """What was packed; its arrays are writable. Raises OSError when the file is gone."""
    if packed.file is None:
        return pickle.loads(packed.pickled, buffers=map(bytearray, packed.parts))
    with packed.file.open("rb") as file:
        packed.file.unlink()
        # Private pages: written to, they do not go back to a file that is gone. The mapping lives
        # as long as an array of it does.
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(
        packed.pickled, buffers=[view[start : start + size] for start, size in packed.parts]
    )


class _Pickler(pickle.Pickler):
    """Tensors as arrays: torch itself would write them into the pickle."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or value.requires_grad:
            return NotImplemented
        try:
            return _tensor, (np.asarray(value.numpy(), order="C"),)
        except (TypeError, RuntimeError):  # bfloat16, sparse, on another device
            return NotImplemented


def _tensor(array: npt.NDArray[Any]) -> Any:
    import torch

    return torch.from_numpy(array)
