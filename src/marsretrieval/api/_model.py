"""Load the model of a store. The manifest of a store is data: it never chooses code or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import ModalityError, StoreMismatchError, UsageError

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder, ModelRecord

_WHY = "a store may come from anywhere, so that it does not choose code or files to load"


@dataclass(frozen=True, slots=True)
class StoreModel:
    """Which model to load for a store, and how.

    Args:
        store: The store whose manifest names the model.
        model: Model named by the user; None: the one of the manifest, if it is in the registry.
        checkpoint: Weights named by the user.
        trust: Load whatever class and checkpoint the manifest names.
        device: As of `LoadOptions`.
        offline: As of `LoadOptions`.
        trust_remote_code: As of `LoadOptions`.
    """

    store: EmbeddingStore
    model: str | None = None
    checkpoint: Path | None = None
    trust: bool = False
    device: str = "auto"
    offline: bool = False
    trust_remote_code: bool = False

    def record(self, *, needs_text: bool = False) -> ModelRecord:
        """Find the model without loading it.

        Args:
            needs_text: Whether the model must have a text encoder.

        Returns:
            The record of the model that made the store.

        Raises:
            UsageError: If the manifest names a class, a folder or a checkpoint that the user has
                not named.
            StoreMismatchError: If the user names another model.
            UnknownNameError: If the registry has no such model.
            ModalityError: If a text encoder is needed and there is none.
        """
        from marsretrieval.encoders import all_records, find

        name = self.store.model.model
        if self.model is not None:
            record = find(self.model)
            if record.id != name:
                raise StoreMismatchError(
                    f"{self.store.path} was made by {name}, not by {record.id}",
                    remedy=f"Use --model {name}, or a store of {record.id}.",
                )
        elif ":" in name and not self.trust and all(one.id != name for one in all_records()):
            raise UsageError(
                f"{self.store.path} was made by {name}, which is not in the model registry; {_WHY}",
                remedy=f"Pass --model {name} (in Python model=...), or --trust (trust=True) if the "
                "store is your own.",
            )
        else:
            record = find(name)
        self._checkpoint()
        if needs_text and "text" not in record.modalities:
            raise ModalityError(
                f"{record.id}, the model of {self.store.path}, is vision-only and cannot embed "
                "text",
                remedy="Search with images or tiles, or in a store of a model with a text side.",
            )
        return record

    def load(self, record: ModelRecord) -> Encoder:
        """Load the model and check that it is the one that made the store.

        Raises:
            StoreMismatchError: If its fingerprint differs from that of the store.
            ModelLoadError: If it cannot be loaded.
        """
        from marsretrieval.encoders import LoadOptions, load

        request = self.store.model
        options = LoadOptions(
            device=self.device,
            dtype=request.dtype,
            checkpoint=self._checkpoint(),
            prompts=request.prompts,  # type: ignore[arg-type]
            offline=self.offline,
            trust_remote_code=self.trust_remote_code,
        )
        encoder = load(record, options)
        self.store.require_encoder(encoder.fingerprint)
        return encoder

    def _checkpoint(self) -> Path | None:
        named = self.store.model.checkpoint
        if self.checkpoint is not None:
            if not self.checkpoint.exists():
                raise UsageError(f"checkpoint {self.checkpoint}: no such file or folder")
            return self.checkpoint
        if named is None:
            return None
        if not self.trust:
            raise UsageError(
                f"{self.store.path} was made with the checkpoint {named}; {_WHY}",
                remedy=f"Pass --checkpoint {named} (in Python checkpoint=...), or --trust "
                "(trust=True) if the store is your own.",
            )
        if not Path(named).exists():
            raise UsageError(
                f"{self.store.path} was made with the weights {named}, which are gone",
                remedy="Say with --checkpoint where they are now.",
            )
        return Path(named)
