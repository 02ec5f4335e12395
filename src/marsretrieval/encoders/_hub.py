"""Files from the Hugging Face hub: pinned, offline on request, with errors that say the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marsretrieval.encoders._record import ModelRecord
from marsretrieval.errors import ModelLoadError

__all__ = ["snapshot"]


def snapshot(record: ModelRecord, patterns: Sequence[str], *, offline: bool) -> tuple[Path, str]:
    """The folder that holds the files of `record.repository`, and the commit they are of.

    The token is the hub's own (HF_TOKEN or `hf auth login`). Raises ModelLoadError when the
    repository is gated, unknown, or neither reachable nor in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    where = f"{record.id}: {record.repository}"
    try:
        folder = snapshot_download(
            record.repository,
            revision=record.revision,
            allow_patterns=list(patterns),
            local_files_only=offline,
        )
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{where} is gated",
            remedy=f"Accept its licence at https://huggingface.co/{record.repository}, then set "
            "HF_TOKEN or run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"{where} is not on the hub, or not for you", remedy="Private ones need HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelLoadError(
            f"{where} is not in the local cache, and the hub was not asked or not reached",
            remedy="Run once with a network, copy the cache (HF_HOME), or give --checkpoint DIR.",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelLoadError(
            f"{where} cannot be fetched ({error})",
            remedy="Try again: what is fetched is kept. Or give --checkpoint DIR.",
        ) from error
    return Path(folder), Path(folder).name
