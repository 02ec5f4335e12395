"""Find and load the model that made a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.errors import ModalityError, StoreMismatchError, UsageError

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.encoders import Encoder, ModelSpec

_TRUST_REASON = (
    "stores may come from untrusted sources, so their manifests do not select code or files to load"
)


@dataclass(frozen=True, slots=True)
class StoreModel:
    """Which model to load for a store, and how.

    Attributes:
        store: The store whose manifest names the model.
        model: Model named by the user; None: the one of the manifest, if it is in the registry.
        checkpoint: Weights named by the user.
        trust: Load the class and checkpoint that the manifest names.
        device: As in `LoadOptions`.
        offline: As in `LoadOptions`.
        trust_remote_code: As in `LoadOptions`.
    """

    store: EmbeddingStore
    model: str | None = None
    checkpoint: Path | None = None
    trust: bool = False
    device: str = "auto"
    offline: bool = False
    trust_remote_code: bool = False

    def find_spec(self, *, needs_text: bool = False) -> ModelSpec:
        """Find the model without loading it.

        Args:
            needs_text: Whether the model must have a text encoder.

        Returns:
            The spec of the model that made the store.

        Raises:
            UsageError: If the manifest names a class, a folder or a checkpoint that the user has
                not named.
            StoreMismatchError: If the user names another model.
            UnknownNameError: If the registry has no such model.
            ModalityError: If a text encoder is needed and there is none.
        """
        from marsretrieval.encoders import all_specs, find
        from marsretrieval.encoders.base import OBJECT_LOADER

        name = self.store.model.model
        if self.store.encoder.get("loader") == OBJECT_LOADER:
            raise UsageError(
                f"{self.store.path} was made with an encoder object in Python, {name}",
                remedy="Open it in Python: open_store(path, encoder=OBJECT).",
            )
        if self.model is not None:
            spec = find(self.model)
            if spec.id != name:
                raise StoreMismatchError(
                    f"{self.store.path} was made with {name}, not with {spec.id}",
                    remedy=f"Use --model {name}, or a store of {spec.id}.",
                )
        elif (
            ":" in name
            and not self.trust
            and all(registered.id != name for registered in all_specs())
        ):
            raise UsageError(
                f"{self.store.path} was made with {name}, which is not in the model registry; "
                f"{_TRUST_REASON}",
                remedy=f"Pass --model {name} (in Python model=...), or --trust (trust=True) if the "
                "store is your own.",
            )
        else:
            spec = find(name)
        self._checkpoint()
        if needs_text and "text" not in spec.modalities:
            raise ModalityError(
                f"{spec.id}, the model of {self.store.path}, is vision-only and cannot embed text",
                remedy="Search with images or tiles, or in a store of a model with a text encoder.",
            )
        return spec

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the model and check that it is the one that made the store.

        Args:
            spec: The model, from `find_spec()`.

        Returns:
            The loaded encoder.

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
        encoder = load(spec, options)
        self.store.require_encoder(encoder.fingerprint)
        return encoder

    def _checkpoint(self) -> Path | None:
        named = self.store.model.checkpoint
        if self.checkpoint is not None:
            if not self.checkpoint.exists():
                raise UsageError(
                    f"checkpoint {self.checkpoint}: no such file or folder",
                    remedy="Check the path of the checkpoint.",
                )
            return self.checkpoint
        if named is None:
            return None
        if not self.trust:
            raise UsageError(
                f"{self.store.path} was made with the checkpoint {named}; {_TRUST_REASON}",
                remedy=f"Pass --checkpoint {named} (in Python checkpoint=...), or --trust "
                "(trust=True) if the store is your own.",
            )
        if not Path(named).exists():
            raise UsageError(
                f"{self.store.path} was made with the weights {named}, which no longer exist",
                remedy="Pass their present path with --checkpoint.",
            )
        return Path(named)
