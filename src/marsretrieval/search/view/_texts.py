"""Many short texts in one file, and where each ends."""

from __future__ import annotations

import builtins
import mmap
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

Ends = npt.NDArray[np.int64]


class TextsWriter:
    """Writes texts one after the other; `ends` says where."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._ends: list[Ends] = [np.empty(0, np.int64)]
        self._length = 0

    def add(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        ends = self._length + np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._ends.append(ends)
        self._length += sum(map(len, encoded))
        self._file.write(b"".join(encoded))

    @property
    def ends(self) -> Ends:
        """(n,) bytes from the beginning of the file."""
        return np.concatenate(self._ends)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class Texts:
    """Reads texts by their number from a mapped file."""

    def __init__(self, path: Path, ends: Ends) -> None:
        self._ends = ends
        self._bytes: builtins.bytes | mmap.mmap = b""
        if len(ends) and ends[-1]:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def take(self, numbers: npt.NDArray[np.int64]) -> list[str]:
        ends = self._ends[numbers].tolist()
        begins = np.where(numbers > 0, self._ends[np.maximum(numbers, 1) - 1], 0).tolist()
        return [self._bytes[a:b].decode() for a, b in zip(begins, ends, strict=True)]

    def find(self, text: str) -> int:
        """The number of the first that is `text`, or -1."""
        wanted = text.encode()
        if not wanted:
            return -1
        place = self._bytes.find(wanted)
        while place >= 0:
            number = int(np.searchsorted(self._ends, place, side="right"))
            begin = int(self._ends[number - 1]) if number else 0
            if begin == place and self._ends[number] == place + len(wanted):
                return number
            place = self._bytes.find(wanted, place + 1)
        return -1
