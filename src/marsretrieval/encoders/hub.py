"""Download model files from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.errors import ModelLoadError

if TYPE_CHECKING:
    from marsretrieval.encoders.base import ModelSpec


def snapshot(
    spec: ModelSpec,
    patterns: Sequence[str],
    *,
    offline: bool,
    repository: str | None = None,
) -> tuple[Path, str]:
    """Download the files of a repository, or find them in the cache.

    The hub's own token is used (HF_TOKEN or `hf auth login`).

    Args:
        spec: The model. Its repository is read at the pinned revision, or at the branch or tag
            that its settings name (``revision``).
        patterns: Glob patterns of the files.
        offline: Use only the cache.
        repository: Another repository (for example of the tokenizer), read at its newest revision.

    Returns:
        The folder of the files, and their commit.

    Raises:
        ModelLoadError: If the repository is gated or unknown, or is neither reachable nor cached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    revision = None
    if repository is None:
        revision = spec.revision or spec.settings.get("revision")
    repository = repository or spec.repository
    label = f"{spec.id}: {repository}"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            local_files_only=offline,
        )
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{label} is gated",
            remedy=f"Accept its licence at https://huggingface.co/{repository}, then set "
            "HF_TOKEN or run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"{label} is not on the hub, or not accessible",
            remedy="Set HF_TOKEN for private repositories.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(
            f"{label} has no revision {revision}",
            remedy="Download another revision and pass --checkpoint DIR.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelLoadError(
            f"{label} is not in the local cache, and the hub was not used or not reachable",
            remedy="Run once with a network, copy the cache (HF_HOME), or give --checkpoint DIR.",
        ) from error
    except Exception as error:  # the exceptions of a broken connection depend on the library
        raise ModelLoadError(
            f"{label} cannot be fetched ({error or type(error).__name__})",
            remedy="Run it again (downloaded files are kept), or pass --checkpoint DIR.",
        ) from error
    return Path(folder), Path(folder).name


def first_file(
    spec: ModelSpec, names: Sequence[str], *, offline: bool, repository: str | None = None
) -> tuple[Path, str]:
    """Download the first of several files that a repository has.

    Args:
        spec: The model.
        names: Names of files, in order of preference.
        offline: Use only the cache.
        repository: Another repository, read at its newest revision.

    Returns:
        The file, and the commit.

    Raises:
        ModelLoadError: If there is none of them, or the repository cannot be read.
    """
    for name in names:
        folder, revision = snapshot(spec, (name,), offline=offline, repository=repository)
        if (folder / name).is_file():
            return folder / name, revision
    raise ModelLoadError(
        f"{spec.id}: {repository or spec.repository} holds none of {', '.join(names)}",
        remedy="With --offline only the cache is used: run once without it, or give --checkpoint.",
    )
