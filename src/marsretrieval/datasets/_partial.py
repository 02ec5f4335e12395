"""A file on its way, and what the server said of it: enough to go on after a kill."""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError, OutputError
from marsretrieval.files import Int64, JsonObject, from_json, read_json, write_json


class _Facts(JsonObject):
    url: str
    total: Int64 | None
    validator: str | None


class Retry(Exception):
    """This request did not bring the whole file; the next one may."""

    def __init__(
        self, reason: str, *, pause_s: float | None = None, reached: bool = True, slow: bool = False
    ) -> None:
        super().__init__(reason)
        self.slow = slow
        self.pause_s = pause_s
        self.reached = reached


class Partial:
    """The bytes at `path`, and beside them `<path>.json`: address, length, version.

    checked: the bytes are compared with a known hash in the end, so that neither the address nor
    the version which the server gives (it may differ from mirror to mirror) decides anything.
    """

    def __init__(self, path: Path, url: str, *, checked: bool = False) -> None:
        self.url = url
        self.path = path
        self._facts = path.with_name(f"{path.name}.json")
        self._checked = checked
        self.total: int | None = None
        self._validator: str | None = None
        with suppress(DataError):
            facts = from_json(_Facts, read_json(self._facts), source=self._facts)
            if checked or facts["url"] == url:
                self.total, self._validator = facts["total"], facts["validator"]
        if self.total is None:
            self.forget()  # without a length nothing tells whether the rest belongs to it

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self._validator and not self._checked:
                headers["If-Range"] = self._validator
        return headers

    def begin(self, response: HTTPResponse) -> None:
        """Learn from the answer's headers whether it goes on from here or starts anew."""
        total, start = _extent(response)
        validator = _validator(response)
        if start != self.size or (self.size and total != self.total):
            self.forget()
            if start:
                raise Retry("the file on the server has changed")
        self.total, self._validator = total, validator
        write_json(self._facts, {"url": self.url, "total": total, "validator": validator})

    def open(self) -> Any:
        try:
            return self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, file: Any, chunk: bytes) -> None:
        try:
            if file.write(chunk) != len(chunk):
                raise OSError("disk full")
        except OSError as error:
            raise self._unwritable(error) from error

    def forget(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
            self._facts.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        self.total = self._validator = None

    def become(self, final: Path) -> None:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            self.path.replace(final)
        except OSError as error:
            raise self._unwritable(error) from error
        self._facts.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path}: cannot be written ({error.strerror or error})",
            remedy="Free some space, or choose a folder on another disk with --out (or --scratch).",
        )


def _extent(response: HTTPResponse) -> tuple[int | None, int]:
    """(length of the whole file, offset of the first byte that comes)."""
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        start = span.partition("-")[0]
        if unit == "bytes" and start.isdecimal() and total.isdecimal():
            return int(total), int(start)
        raise Retry("an answer in parts that does not say which")
    length = response.headers.get("Content-Length", "")
    return (int(length) if length.isdecimal() else None), 0


def _validator(response: HTTPResponse) -> str | None:
    """What tells one version of the file from another; weak tags may not be asked with."""
    tag: str | None = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    modified: str | None = response.headers.get("Last-Modified")
    return modified
