"""What was fetched, kept byte for byte beside where it came from; a rerun starts from here."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from marsretrieval.errors import DataError
from marsretrieval.files import Int64, atomic_path, from_json, read_json, write_json


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that was fetched. `method`: direct, https, wayback or wikimedia."""

    url: str
    resolved_url: str
    method: str
    sha256: str
    size: Int64
    format: str
    extension: str
    width: Int64
    height: Int64


class LinkCache:
    """A folder of `<hash of the address>.json` and `.image`. The .json is written last: it says
    that the image is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, url: str) -> Fetched | None:
        """None where it was never fetched, or where its bytes are no longer those fetched."""
        facts = self._path(url, "json")
        try:
            found = from_json(Fetched, read_json(facts), source=facts)
            data = self._path(url, "image").read_bytes()
        except (OSError, DataError):
            return None  # absent or damaged: fetched anew
        whole = hashlib.sha256(data).hexdigest() == found.sha256
        return found if whole and found.url == url else None

    def put(self, fetched: Fetched, data: bytes) -> None:
        """Raises OutputError when it cannot be written."""
        with atomic_path(self._path(fetched.url, "image")) as temporary:
            temporary.write_bytes(data)
        write_json(self._path(fetched.url, "json"), asdict(fetched))

    def read(self, fetched: Fetched) -> bytes:
        return self._path(fetched.url, "image").read_bytes()

    def _path(self, url: str, kind: str) -> Path:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.{kind}"
