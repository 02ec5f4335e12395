"""Leaderboard: a static site with a page per submission, from folders of results."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError, UsageError
from marsretrieval.html import join_scripts, load_styles
from marsretrieval.io import read_json, sha256_file, sha256_json, temporary_folder, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.grouping import ResultSet, average_seeds, name_of, result_sets
from marsretrieval.report.html import metadata
from marsretrieval.report.html.charts import DASHES
from marsretrieval.report.html.page import load_templates
from marsretrieval.report.latitude import latitude_tables
from marsretrieval.report.overview import overview_table
from marsretrieval.report.render import render_csv
from marsretrieval.report.result_files import ResultFile, read_whole
from marsretrieval.report.tables import leaderboards, model_tables, per_class_tables
from marsretrieval.report.verification import ResultVerification, verify_result
from marsretrieval.results import find_results
from marsretrieval.text import pluralize

STATE_FILE = "leaderboard.json"  # marks a folder as a leaderboard, and holds the checks
_FORMAT = "marsretrieval leaderboard"
_STATE_VERSION = 1
_SLUG_LENGTH = 60
_SHOWN_REASONS = 3  # per file, on the first page
_TABLES = ("queries", "hits", "thumbnails")


@dataclass(frozen=True, slots=True)
class Submission:
    """Results of one folder.

    Attributes:
        name: Name of the model, unique in the leaderboard.
        slug: Folder of its page.
        files: Results that could be read.
        checks: Outcome per result file.
    """

    name: str
    slug: str
    files: Sequence[ResultFile]
    checks: Sequence[ResultVerification]

    @property
    def verified(self) -> bool:
        """Whether no result file failed its checks."""
        return all(outcome.verified for outcome in self.checks)

    @property
    def page(self) -> str:
        """Relative address of its page."""
        return f"submissions/{self.slug}/index.html"

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """File name and difference of every failed check."""
        return [
            (outcome.path.name, line) for outcome in self.checks for line in outcome.differences
        ]

    @property
    def first_reasons(self) -> list[tuple[str, str]]:
        """The first differences of every file, and the number of the others."""
        reasons = []
        for outcome in self.checks:
            lines = outcome.differences
            reasons += [(outcome.path.name, line) for line in lines[:_SHOWN_REASONS]]
            more = len(lines) - _SHOWN_REASONS
            if more > 0:
                reasons.append((outcome.path.name, pluralize(more, "more difference")))
        return reasons


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Summary of a written leaderboard.

    Attributes:
        folder: Folder of the site.
        submissions: Submissions, verified or not.
        reused: Number of result files whose earlier checks were reused.
        removed: Names of submissions of the earlier leaderboard that are not among the results.
    """

    folder: Path
    submissions: Sequence[Submission]
    reused: int = 0
    removed: Sequence[str] = ()

    @property
    def failed(self) -> list[Submission]:
        """Submissions that are not verified."""
        return [submission for submission in self.submissions if not submission.verified]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "folder": str(self.folder),
            "submissions": [
                {
                    "name": submission.name,
                    "page": submission.page,
                    "verified": submission.verified,
                    "checks": [outcome.to_dict() for outcome in submission.checks],
                }
                for submission in self.submissions
            ],
            "reused_checks": self.reused,
            "removed": list(self.removed),
        }


@dataclass(slots=True)
class _Checks:
    """Checks of result files; those of the earlier leaderboard are reused for equal files."""

    earlier: Mapping[str, Any]
    current: dict[str, Any] = field(default_factory=dict)
    reused: int = 0

    def check(self, path: Path, progress: Progress) -> ResultVerification:
        key = _hash_files(path)
        stored = self.earlier.get(key)
        if _is_outcome(stored):
            self.reused += 1
            outcome = ResultVerification(path, **stored)
        else:
            outcome = verify_result(path, progress=progress)
        parts = {
            name: [_without_folder(line, path.parent) for line in getattr(outcome, name)]
            for name in ("checked", "unchecked", "differences")
        }
        self.current[key] = parts
        return ResultVerification(path, **parts)


def write_leaderboard(
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    title: str | None = None,
    price: float | None = None,
    progress: Progress = NO_PROGRESS,
) -> Leaderboard:
    """Write results as a static site: a ranked table, and a page per submission.

    Every folder that holds result files is a submission. All result files are checked as by
    `verify_result`; checks of unchanged files are reused from the earlier leaderboard. Submissions
    with a failed check are listed with the reason and have a page, but are not ranked. The site is
    written to a temporary folder, which then replaces the earlier one.

    Args:
        paths: Result files and folders.
        folder: Folder of the site.
        title: Title of the first page.
        price: Price of an hour of the device, for the cost of 1.4 million tiles.
        progress: Receives the progress.

    Returns:
        A summary of the site.

    Raises:
        DatasetNotFoundError: If there are no results.
        UsageError: If `folder` is not empty and not a leaderboard.
        OutputError: If the site cannot be written.
    """
    folder = Path(folder)
    earlier = _read_state(folder)
    result_paths = [path for path in find_results(paths) if not _is_within(path, folder)]
    if not result_paths:
        raise DatasetNotFoundError(
            f"no results in {', '.join(map(str, paths))}",
            remedy="marsretrieval run writes them to --results.",
        )
    checks = _Checks(earlier.get("checks", {}))
    submissions = _collect(result_paths, checks, progress)
    names = {submission.name for submission in submissions}
    removed = [name for name in earlier.get("submissions", ()) if name not in names]
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.absolute().parent, folder.absolute().name) as temporary:
            site = temporary / "site"
            _write_site(submissions, site, title or "MarsRetrieval leaderboard", price)
            write_json(
                site / STATE_FILE,
                {
                    "format": _FORMAT,
                    "version": _STATE_VERSION,
                    "marsretrieval": version("marsretrieval"),
                    "submissions": [submission.name for submission in submissions],
                    "checks": checks.current,
                },
            )
            if folder.exists():
                folder.replace(temporary / "earlier")
            try:
                site.replace(folder)
            except OSError:
                with suppress(OSError):
                    (temporary / "earlier").replace(folder)
                raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
    return Leaderboard(folder, submissions, checks.reused, removed)


def _read_state(folder: Path) -> Mapping[str, Any]:
    """The state of an earlier leaderboard; empty if none exists."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"--leaderboard {folder}: not a folder", remedy="Name a new folder.")
    if not folder.exists() or not any(folder.iterdir()):
        return {}
    with suppress(DataError):
        state = read_json(folder / STATE_FILE)
        if isinstance(state, dict) and state.get("format") == _FORMAT:
            is_current = (
                state.get("version") == _STATE_VERSION
                and state.get("marsretrieval") == version("marsretrieval")
                and isinstance(state.get("checks"), dict)
            )
            names = state.get("submissions")
            return {
                "checks": state["checks"] if is_current else {},
                "submissions": list(map(str, names)) if isinstance(names, list) else [],
            }
    raise UsageError(
        f"--leaderboard {folder}: the folder is not empty and not a leaderboard",
        remedy=f"Name a new folder, or one with a {STATE_FILE} that this command wrote.",
    )


def _collect(paths: Sequence[Path], checks: _Checks, progress: Progress) -> list[Submission]:
    """Check and read the results, one submission per folder."""
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.absolute().parent, []).append(path.absolute())
    submissions: list[Submission] = []
    names: set[str] = set()
    slugs: set[str] = set()
    for folder, folder_paths in by_folder.items():
        outcomes = [checks.check(path, progress) for path in folder_paths]
        files = []
        for path in folder_paths:
            with suppress(DataError):  # the outcome of its check holds the reason
                files.append(read_whole(path))
        own_name = name_of(files[0].result) if files else folder.name
        name = own_name if own_name not in names else f"{own_name} ({folder.parent.name})"
        number = 2
        while name in names:
            name = f"{own_name} #{number}"
            number += 1
        names.add(name)
        named = [
            replace(
                file,
                result=replace(
                    file.result,
                    model={**file.result.model, "label": name},  # type: ignore[typeddict-unknown-key]
                ),
                damaged=[],
            )
            if name != own_name
            else replace(file, damaged=[])
            for file in files
        ]
        submissions.append(Submission(name, _slug(name, slugs), average_seeds(named), outcomes))
    return submissions


def _write_site(
    submissions: Sequence[Submission], site: Path, title: str, price: float | None
) -> None:
    verified = [submission for submission in submissions if submission.verified]
    ranked = [file for submission in verified for file in submission.files]
    sets = result_sets(ranked)
    pages = {
        str(file.path): submission.page for submission in verified for file in submission.files
    }
    timings = metadata.timings(sets)
    overview = overview_table(ranked)
    _write_page(
        site / "index.html",
        "leaderboard.html.j2",
        title=title,
        overview_table=overview,
        submissions=submissions,
        facts=[(submission, _facts(submission)) for submission in submissions],
        failed=[submission for submission in submissions if not submission.verified],
        sets=[(result_set, leaderboards(result_set)) for result_set in sets],
        links={
            entry.label: pages[str(entry.file.path)]
            for result_set in sets
            for entry in result_set.entries
        },
        timings=timings,
        fastest=max((t.images_per_s for t in timings if t.images_per_s), default=1.0),
        price=price,
        synthetic=any(result_set.data.get("synthetic") for result_set in sets),
    )
    for submission in submissions:
        _write_submission(submission, site / "submissions" / submission.slug, price)


def _write_submission(submission: Submission, folder: Path, price: float | None) -> None:
    folder.mkdir(parents=True)
    sets = result_sets(submission.files)
    results = [file.result for file in submission.files]
    downloads = []
    for outcome in submission.checks:
        with suppress(FileNotFoundError):
            shutil.copyfile(outcome.path, folder / outcome.path.name)
            downloads.append((outcome.path.name, quote(outcome.path.name)))
    if results:
        text = render_csv(model_tables(results, details=True, more=True, references=False))
        (folder / "metrics.csv").write_text(text, encoding="utf-8")
        downloads.append(("metrics.csv", "metrics.csv"))
    timings = metadata.timings(sets)
    _write_page(
        folder / "index.html",
        "submission.html.j2",
        title=submission.name,
        submission=submission,
        sets=[
            (
                result_set,
                _metric_tables(result_set),
                per_class_tables(result_set),
                latitude_tables(result_set),
            )
            for result_set in sets
        ],
        models=metadata.models(sets),
        commands=metadata.commands(sets),
        versions=metadata.versions(sets),
        downloads=downloads,
        timings=timings,
        fastest=max((t.images_per_s for t in timings if t.images_per_s), default=1.0),
        price=price,
        synthetic=any(result_set.data.get("synthetic") for result_set in sets),
    )


def _metric_tables(result_set: ResultSet) -> list[Any]:
    """All metrics of a set; the means over landforms and the groups of single landforms."""
    tables = model_tables(
        [entry.file.result for entry in result_set.entries], more=True, references=False
    )
    return [table.folded() for table in tables]


def _facts(submission: Submission) -> dict[str, str]:
    """Model facts of the table of submissions; "–" if unknown."""
    if not submission.files:
        return {}
    results = [file.result for file in submission.files]
    model: Mapping[str, Any] = results[0].model
    protocols = {f"{p} {v}": None for r in results for p, v in (r.protocol_versions or {}).items()}
    return {
        "trained_on": str(model.get("trained_on") or "–"),
        "verified_by": str(model.get("verified_by") or "–"),
        "protocols": ", ".join(protocols) or "–",
        "computed": max(str(result.created)[:10] for result in results),
        "results": str(len(submission.checks)),
    }


def _write_page(path: Path, template: str, **values: Any) -> None:
    templates = load_templates()
    script = join_scripts("marsretrieval.report.html", "script.js")
    text = templates.get_template(template).render(
        **values,
        script=script.source,
        script_hash=script.hash,
        style=load_styles(templates, "style.css"),
        dashes=DASHES,
        version=version("marsretrieval"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", errors="replace"))


def _slug(name: str, slugs: set[str]) -> str:
    """A folder name of safe ASCII characters, unique regardless of case."""
    slug = re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "-", name)[:_SLUG_LENGTH].strip(".-") or "submission"
    if slug.lower() in slugs or slug == "submission":
        slug += f"-{sha256_json(name)[:8]}"
    slugs.add(slug.lower())
    return slug


def _hash_files(path: Path) -> str:
    """Hash of a result file and its tables, without their names."""
    digest = hashlib.sha256()
    for part in (path, *(path.with_suffix(f".{kind}.parquet") for kind in _TABLES)):
        try:
            digest.update(sha256_file(part).encode())
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()


def _is_outcome(value: object) -> TypeGuard[dict[str, list[str]]]:
    return (
        isinstance(value, dict)
        and value.keys() == {"checked", "unchecked", "differences"}
        and all(
            isinstance(lines, list) and all(isinstance(line, str) for line in lines)
            for lines in value.values()
        )
    )


def _without_folder(line: str, folder: Path) -> str:
    """A line without the folder of this machine."""
    return line.replace(f"{folder.absolute()}/", "").replace(f"{folder}/", "")


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
