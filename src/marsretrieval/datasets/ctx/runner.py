"""Many quads: what is done is kept, what is missing is fetched and cut, what fails is told."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marsretrieval.datasets.ctx.archive import (
    QuadManifest,
    finished_manifest,
    otherwise_cut,
    pack_quad,
)
from marsretrieval.datasets.ctx.grid import TileSpec, tile_count
from marsretrieval.datasets.ctx.mosaic import SERVER, ZIP_BYTES, Input, Problem, Quad
from marsretrieval.datasets.ctx.quad import UNPACKED
from marsretrieval.datasets.download.http import (
    ByteCounter,
    CertificateError,
    HttpClient,
    HTTPStatusError,
    OnProgress,
    RetryPolicy,
    ServerError,
    check_libraries,
)
from marsretrieval.datasets.listing import check_space, free_bytes, only_alike, only_one
from marsretrieval.errors import DataError, UsageError
from marsretrieval.io import make_folder, remove_stale
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.system import usable_cpus

_MOVED = "Check whether the mosaic has moved; --server names another address."
_CERTIFICATE = (
    "The server is known to leave out an intermediate certificate. Save that certificate as PEM "
    "(a browser shows it, under the padlock) and pass it with --ca-file, or set SSL_CERT_FILE to "
    "a bundle that has it. Verification is never switched off."
)
Fetch = Callable[[str, OnProgress | None], "Future[Path]"]


@dataclass(frozen=True, slots=True)
class FetchSettings(RetryPolicy):
    """Time limits, and `ca_file`: certificates (PEM) trusted beside those of the system."""

    ca_file: Path | None = None


@contextmanager
def background_fetch(folder: Path, settings: FetchSettings) -> Iterator[Fetch]:
    """Download zips into a folder, one at a time, beside other work.

    Args:
        folder: Where they appear, each under its name when it is whole.
        settings: Time limits and trusted certificates.

    Yields:
        A function that takes an address and a progress function and returns the future path; a
        file that exists is not downloaded again. Its errors are DataError for this file,
        ServerError if no file can be downloaded, and OutputError. What is under way when the
        context ends is cancelled at once; the same call resumes it.

    Raises:
        UsageError: If `settings.ca_file` holds no certificates.
        MissingDependencyError: If the extra `download` is not installed.
    """
    check_libraries("downloading the mosaic")
    from anyio.from_thread import start_blocking_portal

    client = HttpClient(
        head_s=settings.head_s, timeout_s=settings.timeout_s, verify=_trust(settings.ca_file)
    )
    turn = asyncio.Lock()
    futures: list[Future[Path]] = []

    async def download(url: str, on_progress: OnProgress | None) -> Path:
        path = folder / urlsplit(url).path.rpartition("/")[2]
        async with turn:
            if not path.is_file():
                try:
                    await client.download(url, path, settings, on_progress)
                except HTTPStatusError as error:
                    raise DataError(error.message, remedy=_MOVED) from error
                except CertificateError as error:
                    raise ServerError(error.message, remedy=_CERTIFICATE) from error
        return path

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):

        def start(url: str, on_progress: OnProgress | None = None) -> Future[Path]:
            futures.append(portal.start_task_soon(download, url, on_progress))
            return futures[-1]

        try:
            yield start
        finally:
            for future in futures:
                future.cancel()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--ca-file {ca_file}: no certificates in PEM ({error})") from error
        # The certificates named are trusted themselves, as far as they go.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, found out without reading or fetching a quad. Sizes are expectations."""

    todo: Sequence[Input]
    kept: Sequence[QuadManifest]
    tiles: int  # to be cut
    download_bytes: int
    scratch_bytes: int
    output_bytes: int
    free_bytes: int

    def to_dict(self) -> dict[str, Any]:
        quads = [
            {
                "quad": each.quad.name,
                "source": str(each.path) if each.path else each.quad.zip_name,
                "fetched": each.path is None,
            }
            for each in self.todo
        ]
        told = {name: getattr(self, name) for name in _PLAN_FIGURES}
        return {"quads": quads, "kept": [each.quad for each in self.kept], **told}


_PLAN_FIGURES = ("tiles", "download_bytes", "scratch_bytes", "output_bytes", "free_bytes")


@dataclass
class Report:
    """cut: quads cut now, also those with failed tiles. failed: quads and files without any tile.
    untried: quads not reached, because the server gave nothing or several in a row failed.
    otherwise: quads in the same folder that were cut by another spec."""

    cut: list[QuadManifest] = field(default_factory=list)
    kept: list[QuadManifest] = field(default_factory=list)
    failed: list[Problem] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed_tiles(self) -> dict[str, str]:
        """Name to reason."""
        return {tile: why for each in self.cut for tile, why in each.failed.items()}

    @property
    def complete(self) -> bool:
        return not (self.failed or self.untried or self.failed_tiles)

    def to_dict(self) -> dict[str, Any]:
        held = [*self.cut, *self.kept]
        return {
            "complete": self.complete,
            "quads": {"cut": [q.quad for q in self.cut], "kept": [q.quad for q in self.kept]},
            "tiles": sum(each.tiles for each in held),
            "empty": sum(len(each.empty) for each in held),
            "dropped": sum(len(each.dropped) for each in held),
            "bytes": sum(each.tar_bytes for each in held),
            "failed": [asdict(each) for each in self.failed],
            "failed_tiles": self.failed_tiles,
            "untried": self.untried,
            "otherwise": self.otherwise,
            "seconds": round(self.seconds, 3),
        }


# Expected size of a tile: measured on images of the CTX camera, per pixel.
_BYTES_A_PIXEL = {"png": 0.5, "jpeg": 0.27}
_THREADS_A_QUAD = 4  # one reads, and three keep up with it
_GIVEN_UP = 3  # quads in a row that the server did not give, or that could not be cut


@dataclass(frozen=True, slots=True)
class JobSettings:
    """threads: cutting threads in all (default: the CPUs there are). scratch: zips on their way
    (default: a hidden folder in the output). force: cut over quads that other options made.
    Raises UsageError where `server` is no address."""

    threads: int | None = None
    scratch: Path | None = None
    server: str = SERVER
    fetch: FetchSettings = field(default_factory=FetchSettings)
    force: bool = False

    def __post_init__(self) -> None:
        address = urlsplit(self.server)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(
                f"--server {self.server}: no web address", remedy=f"Such as {SERVER} (the default)."
            )


def plan(inputs: Sequence[Input], spec: TileSpec, out: Path, *, force: bool = False) -> Plan:
    """What `cut_quads` would do. Raises UsageError as it does."""
    _refuse_a_mixture(out, spec, force=force)
    kept, todo = _split(inputs, spec, out)
    tiles = sum(tile_count(each.quad, spec) for each in todo)
    fetched = sum(each.path is None for each in todo)
    return Plan(
        todo=todo,
        kept=kept,
        tiles=tiles,
        download_bytes=fetched * ZIP_BYTES,
        scratch_bytes=min(fetched, 2) * ZIP_BYTES,  # one is fetched while one is cut
        output_bytes=round(tiles * _tile_bytes(spec)),
        free_bytes=free_bytes(out),
    )


def cut_quads(
    inputs: Sequence[Input],
    spec: TileSpec,
    out: Path,
    *,
    problems: Sequence[Problem] = (),
    settings: JobSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Cut quads into `<out>/<quad>.tar`, fetching those without a file.

    A quad that is there whole is kept. One that fails is reported, and the others are cut; so are
    `problems`, which were found before. Raises OutputError when `out` or the scratch folder
    cannot be written or has no room: what is finished by then is kept. Raises UsageError when
    `out` holds quads that other options made, unless `settings.force`.
    """
    settings = settings or JobSettings()
    _refuse_a_mixture(out, spec, force=settings.force)
    started = time.monotonic()
    make_folder(out)
    with only_alike(out, spec.hash[:16], "choose another folder with --out"):
        # Again: another run may have cut otherwise while this one waited or looked.
        _refuse_a_mixture(out, spec, force=settings.force)
        remove_stale(out.glob(".E*_N*.tmp"))
        kept, todo = _split(inputs, spec, out)
        check_space(
            out, round(sum(tile_count(each.quad, spec) for each in todo) * _tile_bytes(spec))
        )
        report = Report(kept=list(kept), failed=list(problems))
        threads = settings.threads or usable_cpus()
        with (
            _scratch(settings.scratch or out / ".scratch") as scratch,
            progress.start(
                "cut", sum(tile_count(each.quad, spec) for each in todo), "tiles"
            ) as bar,
            _threads(threads) as pool,
        ):
            job = _Job(spec, out, scratch, settings, pool, bar, report)
            job.cut_files([each for each in todo if each.path is not None], threads)
            job.cut_fetched([each for each in todo if each.path is None], progress)
    report.cut.sort(key=lambda each: each.quad)
    report.otherwise = otherwise_cut(out, spec)
    report.seconds = time.monotonic() - started
    return report


@dataclass(slots=True)
class _Job:
    spec: TileSpec
    out: Path
    scratch: Path
    settings: JobSettings
    pool: Executor
    bar: ProgressTask
    report: Report

    def cut_files(self, inputs: Sequence[Input], threads: int) -> None:
        """Several quads side by side where there are threads for them."""
        lanes = max(1, min(len(inputs), threads // _THREADS_A_QUAD))
        with _threads(lanes) as lane:
            futures = [lane.submit(self.cut_one, each, each.path) for each in inputs if each.path]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.pool.shutdown(wait=False, cancel_futures=True)  # ends the lanes too
                raise

    def cut_fetched(self, inputs: Sequence[Input], progress: Progress) -> None:
        """One zip is fetched while the one before is cut; each is deleted when its tar is whole."""
        if not inputs:
            return
        with (
            only_one(self.scratch, "name another folder with --scratch"),
            progress.start("fetch", None, "MB") as bar,
            background_fetch(self.scratch, self.settings.fetch) as fetch,
        ):
            fetched = _ahead(fetch, inputs, self.settings.server, ByteCounter(bar))
            failures = 0
            for number, (each, future) in enumerate(fetched):
                try:
                    path = future.result()
                except ServerError as error:
                    self._failed(each.quad.name, error)
                    failures += 1
                    if failures == _GIVEN_UP or not error.reached:
                        self._untried(inputs[number + 1 :])
                        return
                    continue
                except DataError as error:
                    self._failed(each.quad.name, error)
                    continue
                done = self.cut_one(each, path)
                path.unlink(missing_ok=True)  # damaged or cut: fetched anew, or not needed
                failures = 0 if done else failures + 1
                if failures == _GIVEN_UP:  # none is what is assumed of them: not for terabytes
                    self._untried(inputs[number + 1 :])
                    return

    def cut_one(self, each: Input, path: Path) -> bool:
        """Whether any of its tiles could be cut."""
        self.bar.note(self._told(each.quad.name))
        check_space(self.out, round(tile_count(each.quad, self.spec) * _tile_bytes(self.spec)))
        try:
            manifest = pack_quad(
                path,
                each.quad,
                self.spec,
                self.out,
                scratch=self.scratch,
                pool=self.pool,
                bar=self.bar,
            )
        except DataError as error:
            self._failed(str(path) if each.path else each.quad.name, error)
            return False
        self.report.cut.append(manifest)
        return True

    def _failed(self, source: str, error: DataError) -> None:
        self.report.failed.append(Problem(source, str(error)))
        self.bar.note(self._told(source))

    def _untried(self, rest: Sequence[Input]) -> None:
        self.report.untried += [each.quad.name for each in rest]

    def _told(self, name: str) -> str:
        failed = len(self.report.failed)
        return f"{name}; {failed:,} failed" if failed else name


def _ahead(
    fetch: Fetch, inputs: Sequence[Input], server: str, count: ByteCounter
) -> Iterator[tuple[Input, Future[Path]]]:
    """Yield every input with its download, the next one under way."""

    def begin(quad: Quad) -> Future[Path]:
        return fetch(f"{server.rstrip('/')}/{quad.zip_name}", count.file(quad.name))

    following = begin(inputs[0].quad)
    for number, each in enumerate(inputs):
        future = following
        if number + 1 < len(inputs):
            following = begin(inputs[number + 1].quad)
        yield each, future


def _refuse_a_mixture(out: Path, spec: TileSpec, *, force: bool) -> None:
    """Hours of fetching are not replaced by a slip, nor two kinds of tiles mixed in one folder."""
    there = [] if force else otherwise_cut(out, spec)
    if there:
        raise UsageError(
            f"{out}: holds {len(there)} quads cut with other options, such as {there[0]}",
            remedy="Choose another --out, or --force to cut over them.",
        )


def _split(
    inputs: Sequence[Input], spec: TileSpec, out: Path
) -> tuple[list[QuadManifest], list[Input]]:
    """What is done, and what is to do."""
    kept, todo = [], []
    for each in inputs:
        manifest = finished_manifest(out, each.quad, spec, each.path)
        if manifest is not None:
            kept.append(manifest)
        elif tile_count(each.quad, spec):
            todo.append(each)
    return kept, todo


def _tile_bytes(spec: TileSpec) -> float:
    return _BYTES_A_PIXEL[spec.format] * spec.size**2


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that on an error or Ctrl-C drops what has not begun."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for zips and what is unpacked; gone afterwards unless something is left there."""
    make_folder(folder)
    remove_stale(folder.glob(f"{UNPACKED}*"))
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()
