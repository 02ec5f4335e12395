"""Files from the Hugging Face hub: pinned, offline on request, with errors that say the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marsretrieval.encoders.base import ModelSpec
from marsretrieval.errors import ModelLoadError


def snapshot(
    spec: ModelSpec,
    patterns: Sequence[str],
    *,
    offline: bool,
    repository: str | None = None,
) -> tuple[Path, str]:
    """The folder that holds the files of a repository, and the commit they are of.

    `spec.repository` at its pinned revision, or the newest of another `repository` that the
    model leans on (its tokenizer, say). The token is the hub's own (HF_TOKEN or `hf auth login`).
    Raises ModelLoadError when the repository is gated, unknown, or neither reachable nor in the
    cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    revision = spec.revision if repository is None else None
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
            f"{label} is not on the hub, or not for you", remedy="Private ones need HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(
            f"{label} has no revision {revision}",
            remedy="Fetch another, and give --checkpoint DIR.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelLoadError(
            f"{label} is not in the local cache, and the hub was not asked or not reached",
            remedy="Run once with a network, copy the cache (HF_HOME), or give --checkpoint DIR.",
        ) from error
    except Exception as error:  # a connection can break in as many ways as there are libraries
        raise ModelLoadError(
            f"{label} cannot be fetched ({error or type(error).__name__})",
            remedy="Try again: what is fetched is kept. Or give --checkpoint DIR.",
        ) from error
    return Path(folder), Path(folder).name
