"""Cut many quads: skip finished ones, download missing ones, and report failures."""

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
from marsretrieval.io import make_folder, output_folder, remove_stale
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.system import usable_cpus
from marsretrieval.text import pluralize

_MOVED = "Check whether the mosaic has moved, and pass its address with --server."
_CERTIFICATE = (
    "The server is known to leave out an intermediate certificate. Save that certificate as PEM "
    "(a browser shows it, under the padlock) and pass it with --ca-file, or set SSL_CERT_FILE to "
    "a bundle that has it. Verification is never switched off."
)
Fetch = Callable[[str, OnProgress | None], "Future[Path]"]
_PLAN_TOTALS = ("tiles", "download_bytes", "scratch_bytes", "output_bytes", "free_bytes")
# Expected size of a tile: measured on images of the CTX camera, per pixel.
_BYTES_PER_PIXEL = {"png": 0.5, "jpeg": 0.27}
_THREADS_PER_QUAD = 4  # three threads resample as fast as one reads
_MAX_FAILURES = 3  # stop after so many quads in a row that failed to download or to be cut


@dataclass(frozen=True, slots=True)
class FetchSettings(RetryPolicy):
    """Download settings.

    Attributes:
        ca_file: PEM file with certificates that are trusted in addition to the system's.
    """

    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings of `cut_quads`.

    Attributes:
        threads: Total number of cutting threads; default: the number of usable CPUs.
        scratch: Folder for downloaded zips; default: a hidden folder in the output folder.
        server: Base URL of the mosaic.
        fetch: Download settings.
        force: Replace quads that were cut with other options.

    Raises:
        UsageError: If `server` is not a web address.
    """

    threads: int | None = None
    scratch: Path | None = None
    server: str = SERVER
    fetch: FetchSettings = field(default_factory=FetchSettings)
    force: bool = False

    def __post_init__(self) -> None:
        address = urlsplit(self.server)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(
                f"--server {self.server}: not a web address",
                remedy=f"Use an address such as {SERVER} (the default).",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """Work that `cut_quads` would do. Sizes are estimates; no quad is read or downloaded.

    Attributes:
        todo: Quads to cut.
        kept: Manifests of quads that are already finished.
        tiles: Number of tiles to cut.
        download_bytes: Size of the downloads.
        scratch_bytes: Disk space for zips in the scratch folder.
        output_bytes: Size of the new tars.
        free_bytes: Free disk space in the output folder.
    """

    todo: Sequence[Input]
    kept: Sequence[QuadManifest]
    tiles: int
    download_bytes: int
    scratch_bytes: int
    output_bytes: int
    free_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        quads = [
            {
                "quad": source.quad.name,
                "source": str(source.path) if source.path else source.quad.zip_name,
                "fetched": source.path is None,
            }
            for source in self.todo
        ]
        totals = {name: getattr(self, name) for name in _PLAN_TOTALS}
        return {"quads": quads, "kept": [source.quad for source in self.kept], **totals}


@dataclass
class Report:
    """Result of `cut_quads`.

    Attributes:
        cut: Manifests of the quads cut by this run, including those with failed tiles.
        kept: Manifests of quads that were already finished.
        failed: Quads and files without any tile.
        untried: Quads skipped after the server failed, or after several failures in a row.
        otherwise: Quads in the same folder that were cut with another spec.
        seconds: Duration of the run.
    """

    cut: list[QuadManifest] = field(default_factory=list)
    kept: list[QuadManifest] = field(default_factory=list)
    failed: list[Problem] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed_tiles(self) -> dict[str, str]:
        """Failed tiles: reason by tile name."""
        return {tile: reason for manifest in self.cut for tile, reason in manifest.failed.items()}

    @property
    def complete(self) -> bool:
        """Whether nothing failed and no quad was skipped."""
        return not (self.failed or self.untried or self.failed_tiles)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        manifests = [*self.cut, *self.kept]
        return {
            "complete": self.complete,
            "quads": {"cut": [q.quad for q in self.cut], "kept": [q.quad for q in self.kept]},
            "tiles": sum(manifest.tiles for manifest in manifests),
            "empty": sum(len(manifest.empty) for manifest in manifests),
            "dropped": sum(len(manifest.dropped) for manifest in manifests),
            "bytes": sum(manifest.tar_bytes for manifest in manifests),
            "failed": [asdict(manifest) for manifest in self.failed],
            "failed_tiles": self.failed_tiles,
            "untried": self.untried,
            "otherwise": self.otherwise,
            "seconds": round(self.seconds, 3),
        }


def plan(inputs: Sequence[Input], spec: TileSpec, out: str | Path, *, force: bool = False) -> Plan:
    """Plan the work of `cut_quads` without doing it.

    Args:
        inputs: Quads to cut.
        spec: Tile specification.
        out: Output folder.
        force: Replace quads that were cut with other options.

    Returns:
        The plan.

    Raises:
        UsageError: If `out` holds quads cut with other options, unless `force`.
    """
    out = Path(out)
    _check_same_spec(out, spec, force=force)
    finished, todo = _partition_inputs(inputs, spec, out)
    tiles = sum(tile_count(source.quad, spec) for source in todo)
    fetched = sum(source.path is None for source in todo)
    return Plan(
        todo=todo,
        kept=finished,
        tiles=tiles,
        download_bytes=fetched * ZIP_BYTES,
        scratch_bytes=min(fetched, 2) * ZIP_BYTES,  # one is fetched while one is cut
        output_bytes=round(tiles * _tile_bytes(spec)),
        free_bytes=free_bytes(out),
    )


def cut_quads(
    inputs: Sequence[Input],
    spec: TileSpec,
    out: str | Path,
    *,
    problems: Sequence[Problem] = (),
    settings: JobSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Cut quads into `<out>/<quad>.tar`; download those without a file.

    Finished quads are skipped. If a quad fails, the failure is reported and the others are cut.
    Quads finished before an error are kept.

    Args:
        inputs: Quads to cut.
        spec: Tile specification.
        out: Output folder.
        problems: Problems found earlier, to be included in the report.
        settings: Threads, scratch folder, server; default: `JobSettings()`.
        progress: Progress display.

    Returns:
        The report.

    Raises:
        OutputError: If `out` or the scratch folder cannot be written or lacks disk space.
        UsageError: If `out` holds quads cut with other options, unless `settings.force`.
    """
    out = Path(out)
    settings = settings or JobSettings()
    _check_same_spec(out, spec, force=settings.force)
    started = time.monotonic()
    with (
        output_folder(out),
        only_alike(out, spec.hash[:16], "choose another folder with --out"),
    ):
        # Check again: another run may have written here while this one waited for the lock.
        _check_same_spec(out, spec, force=settings.force)
        remove_stale(out.glob(".E*_N*.tmp"))
        finished, todo = _partition_inputs(inputs, spec, out)
        check_space(
            out, round(sum(tile_count(source.quad, spec) for source in todo) * _tile_bytes(spec))
        )
        report = Report(kept=list(finished), failed=list(problems))
        threads = settings.threads or usable_cpus()
        with (
            _scratch(settings.scratch or out / ".scratch") as scratch,
            progress.start(
                "cut", sum(tile_count(source.quad, spec) for source in todo), "tiles"
            ) as bar,
            _threads(threads) as pool,
        ):
            runner = _Runner(spec, out, scratch, settings, pool, bar, report)
            runner.cut_files([source for source in todo if source.path is not None], threads)
            runner.cut_fetched([source for source in todo if source.path is None], progress)
    report.cut.sort(key=lambda source: source.quad)
    report.otherwise = otherwise_cut(out, spec)
    report.seconds = time.monotonic() - started
    return report


@dataclass(slots=True)
class _Runner:
    spec: TileSpec
    out: Path
    scratch: Path
    settings: JobSettings
    pool: Executor
    bar: ProgressTask
    report: Report

    def cut_files(self, inputs: Sequence[Input], threads: int) -> None:
        """Cut local files, several quads at once if there are enough threads."""
        quads_at_once = max(1, min(len(inputs), threads // _THREADS_PER_QUAD))
        with _threads(quads_at_once) as quad_pool:
            futures = [
                quad_pool.submit(self.cut_one, source, source.path)
                for source in inputs
                if source.path
            ]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.pool.shutdown(wait=False, cancel_futures=True)  # ends the other quads too
                raise

    def cut_fetched(self, inputs: Sequence[Input], progress: Progress) -> None:
        """Download each zip while the previous one is cut; delete it when its tar is complete."""
        if not inputs:
            return
        with (
            only_one(self.scratch, "name another folder with --scratch"),
            progress.start("fetch", None, "MB") as bar,
            background_fetch(self.scratch, self.settings.fetch) as fetch,
        ):
            fetched = _prefetch(fetch, inputs, self.settings.server, ByteCounter(bar))
            failures = 0
            for number, (source, future) in enumerate(fetched):
                try:
                    path = future.result()
                except ServerError as error:
                    self._add_failure(source.quad.name, error)
                    failures += 1
                    if failures == _MAX_FAILURES or not error.reached:
                        self._add_untried(inputs[number + 1 :])
                        return
                    continue
                except DataError as error:
                    self._add_failure(source.quad.name, error)
                    continue
                manifest = self.cut_one(source, path)
                path.unlink(missing_ok=True)  # damaged, or no longer needed
                failures = 0 if manifest else failures + 1
                if failures == _MAX_FAILURES:  # do not download terabytes of unusable files
                    self._add_untried(inputs[number + 1 :])
                    return

    def cut_one(self, source: Input, path: Path) -> bool:
        """Cut one quad; return whether any of its tiles could be cut."""
        self.bar.note(self._status_line(source.quad.name))
        check_space(self.out, round(tile_count(source.quad, self.spec) * _tile_bytes(self.spec)))
        try:
            manifest = pack_quad(
                path,
                source.quad,
                self.spec,
                self.out,
                scratch=self.scratch,
                pool=self.pool,
                bar=self.bar,
            )
        except DataError as error:
            self._add_failure(str(path) if source.path else source.quad.name, error)
            return False
        self.report.cut.append(manifest)
        return True

    def _add_failure(self, source: str, error: DataError) -> None:
        self.report.failed.append(Problem(source, str(error)))
        self.bar.note(self._status_line(source))

    def _add_untried(self, remaining: Sequence[Input]) -> None:
        self.report.untried += [source.quad.name for source in remaining]

    def _status_line(self, name: str) -> str:
        failed = len(self.report.failed)
        return f"{name}; {failed:,} failed" if failed else name


def _prefetch(
    fetch: Fetch, inputs: Sequence[Input], server: str, counter: ByteCounter
) -> Iterator[tuple[Input, Future[Path]]]:
    """Yield each input with its download, while the next download is running."""

    def begin(quad: Quad) -> Future[Path]:
        return fetch(f"{server.rstrip('/')}/{quad.zip_name}", counter.file(quad.name))

    next_download = begin(inputs[0].quad)
    for number, source in enumerate(inputs):
        future = next_download
        if number + 1 < len(inputs):
            next_download = begin(inputs[number + 1].quad)
        yield source, future


def _check_same_spec(out: Path, spec: TileSpec, *, force: bool) -> None:
    """Refuse to replace quads cut with other options, or to mix both in one folder."""
    conflicts = [] if force else otherwise_cut(out, spec)
    if conflicts:
        raise UsageError(
            f"{out}: holds {pluralize(len(conflicts), 'quad')} cut with other options, such as "
            f"{conflicts[0]}",
            remedy="Choose another --out, or use --force to replace them.",
        )


def _partition_inputs(
    inputs: Sequence[Input], spec: TileSpec, out: Path
) -> tuple[list[QuadManifest], list[Input]]:
    """Split inputs into manifests of finished quads and quads to cut."""
    finished, todo = [], []
    for source in inputs:
        manifest = finished_manifest(out, source.quad, spec, source.path)
        if manifest is not None:
            finished.append(manifest)
        elif tile_count(source.quad, spec):
            todo.append(source)
    return finished, todo


def _tile_bytes(spec: TileSpec) -> float:
    return _BYTES_PER_PIXEL[spec.format] * spec.size**2


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Thread pool that cancels pending tasks on an error or Ctrl-C."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Folder for zips and unpacked files, removed at the end if it is empty."""
    make_folder(folder)
    remove_stale(folder.glob(f"{UNPACKED}*"))
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def background_fetch(folder: Path, settings: FetchSettings) -> Iterator[Fetch]:
    """Download zips into a folder, one at a time, in the background.

    Args:
        folder: Target folder. A file gets its final name when it is complete.
        settings: Time limits and trusted certificates.

    Yields:
        A function that takes a URL and a progress function and returns the future path. A
        file that exists is not downloaded again. Its errors are DataError for this file,
        ServerError if no file can be downloaded, and OutputError. Running downloads are cancelled
        when the context ends; the same call resumes them.

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
            raise UsageError(
                f"--ca-file {ca_file}: no certificates in PEM ({error})",
                remedy="Name a file of certificates in PEM format.",
            ) from error
        # Trust the given certificates even if their chain is incomplete.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
