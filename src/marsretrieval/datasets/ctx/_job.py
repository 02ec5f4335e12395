"""Many quads: what is done is kept, what is missing is fetched and cut, what fails is told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from marsretrieval._environment import usable_cpus
from marsretrieval.datasets._disk import check_space, free_bytes, only_alike, only_one
from marsretrieval.datasets.ctx._fetch import Fetch, FetchSettings, background_fetch
from marsretrieval.datasets.ctx._grid import TileSpec, tile_count
from marsretrieval.datasets.ctx._inputs import Input, Problem
from marsretrieval.datasets.ctx._mosaic import SERVER, ZIP_BYTES, Quad
from marsretrieval.datasets.ctx._pack import (
    QuadManifest,
    finished_manifest,
    otherwise_cut,
    pack_quad,
)
from marsretrieval.datasets.ctx._report import Plan, Report
from marsretrieval.datasets.ctx._rows import UNPACKED
from marsretrieval.datasets.download.http import ByteCounter, ServerError
from marsretrieval.errors import DataError, UsageError
from marsretrieval.files import make_folder, remove_stale
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask

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
