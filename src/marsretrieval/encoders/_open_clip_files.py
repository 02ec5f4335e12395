"""Where the weights, the configuration and the tokenizer of an open_clip model come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.encoders._hub import snapshot
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.encoders._remote_code import TRUST, asks_for_trust, refuse_switches
from marsretrieval.errors import DataError, ModelLoadError
from marsretrieval.files import Int64, JsonObject, from_json, read_json, sha256_json

_CONFIG = "open_clip_config.json"
# Safetensors first; a pickle is read with weights_only, and only where there is nothing else.
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "spiece.model")
_NOT_WEIGHTS = (".npz", ".npy")  # open_clip would read them by another way, and not strictly


class _TextConfig(JsonObject, total=False):
    hf_tokenizer_name: str | None
    tokenizer_kwargs: dict[str, Any]
    tokenizer_mode: str | None
    context_length: Int64


class _ModelConfig(JsonObject, total=False):
    text_cfg: _TextConfig


class _Config(JsonObject):
    model_cfg: _ModelConfig


@dataclass(frozen=True, slots=True)
class Source:
    """What open_clip is asked for: a folder in its own layout, or an architecture and a file."""

    folder: Path | None = None
    architecture: str | None = None
    file: Path | None = None
    revision: str | None = None
    published: bool = False  # the repository's own weights: the catalogue knows what they need

    @property
    def name(self) -> str:
        return f"local-dir:{self.folder}" if self.folder else str(self.architecture)

    @property
    def config(self) -> Mapping[str, Any]:
        """`model_cfg` and `preprocess_cfg`, as the folder or the library has them."""
        if self.folder is not None:
            try:
                found = read_json(self.folder / _CONFIG)
                return from_json(_Config, found, source=self.folder / _CONFIG)
            except DataError as error:
                raise ModelLoadError(error.message) from error
        import open_clip

        return {"model_cfg": open_clip.get_model_config(self.architecture) or {}}


def find_source(record: ModelRecord, options: LoadOptions) -> Source:
    """The user's checkpoint, the folder this package brings, or the repository.

    Raises ModelLoadError when there is none, or no weights in it.
    """
    if options.checkpoint is not None:
        return _checkpoint(record, options.checkpoint)
    if "folder" in record.settings:
        return Source(folder=Path(__file__).parent / record.settings["folder"])
    wanted = (_CONFIG, *_TOKENIZER)
    for weights in _WEIGHTS:
        folder, revision = snapshot(record, (*wanted, weights), offline=options.offline)
        if any((folder / name).exists() for name in _WEIGHTS):
            return Source(folder=folder, revision=revision, published=True)
    raise ModelLoadError(
        f"{record.id}: {record.repository} holds none of {', '.join(_WEIGHTS)}",
        remedy="If that is the cache alone (--offline), run once with a network.",
    )


def load_tokenizer(record: ModelRecord, options: LoadOptions, source: Source) -> Any:
    """The tokenizer beside the weights, or the one that the configuration names.

    open_clip itself looks for a Hugging Face tokenizer in the folder alone, or asks the hub
    whatever `--offline` says.
    """
    import open_clip

    text: Mapping[str, Any] = source.config.get("model_cfg", {}).get("text_cfg", {})
    named = text.get("hf_tokenizer_name")
    if not named:
        return open_clip.get_tokenizer(source.name)
    folder = source.folder
    if folder is None or not any(folder.glob("tokenizer*")):
        folder, _ = snapshot(record, _TOKENIZER, offline=options.offline, repository=named)
    arguments = {
        **text.get("tokenizer_kwargs", {}),
        "trust_remote_code": options.trust_remote_code,
    }
    return open_clip.tokenizer.HFTokenizer(
        str(folder),
        context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **arguments,
    )


def refuse_code(source: Source) -> None:
    """Raise RemoteCodeError if the folder's configuration switches on the execution of code."""
    if source.folder is not None:
        refuse_switches(source.config, source.folder / _CONFIG)


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """JSON-ready: the class, the context length, and the hash of a Hugging Face vocabulary."""
    found = {
        "class": type(tokenizer).__name__,
        "context_length": int(tokenizer.context_length),
    }
    backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation are those of the last call, not of the tokenizer.
        rules = json.loads(backend.to_str())
        found["sha256"] = sha256_json({**rules, "padding": None, "truncation": None})
    return found


def unreadable(
    record: ModelRecord, options: LoadOptions, source: Source, error: Exception
) -> ModelLoadError:
    """What open_clip, torch or safetensors said of these weights, in a line and a remedy."""
    where = options.checkpoint or source.folder
    text = str(error)
    if held := re.search(r"GLOBAL (\S+) was not an allowed|whose module (\S+) is blocked", text):
        return ModelLoadError(
            f"{record.id}: {where} holds pickled objects ({held[1] or held[2]}), not only weights",
            remedy="Loading them could run any code. On a machine where you trust the file, save "
            "its state_dict as .safetensors once (docs/MODELS.md says how).",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("key(s) in state_dict" in line or "size mismatch" in line for line in lines):
        told = " ".join(line if len(line) < 300 else f"{line[:300]}..." for line in lines[1:4])
        architecture = source.architecture or f"the architecture of {_CONFIG}"
        return ModelLoadError(
            f"{record.id}: the weights of {where} do not fit: {told}",
            remedy=f"They must be of {architecture}, whole, and in open_clip's naming.",
        )
    if asks_for_trust(error):
        return ModelLoadError(f"{record.id}: {where} needs code of its own", remedy=TRUST)
    return ModelLoadError(
        f"{record.id}: {where} cannot be loaded ({lines[0] if lines else type(error).__name__})",
        remedy="Is the file whole, and a checkpoint of this architecture?",
    )


def _checkpoint(record: ModelRecord, path: Path) -> Source:
    if path.is_dir():
        return _folder(record, path)
    architecture = record.settings.get("architecture")
    if architecture is None:
        raise ModelLoadError(f"{record.id}: takes a folder as --checkpoint, not a file: {path}")
    if not path.is_file():
        raise ModelLoadError(f"{record.id}: {path}: no such file or folder")
    if path.stat().st_size == 0:
        raise ModelLoadError(f"{record.id}: {path} is an empty file")
    if path.suffix in _NOT_WEIGHTS:
        raise ModelLoadError(
            f"{record.id}: {path} is a numpy archive",
            remedy="Give a .safetensors or .pt checkpoint in open_clip's naming.",
        )
    return Source(architecture=architecture, file=path)


def _folder(record: ModelRecord, folder: Path) -> Source:
    """A folder of the user's, with one file of weights beside the configuration."""
    if not (folder / _CONFIG).exists():
        raise ModelLoadError(
            f"{record.id}: {folder} has no {_CONFIG}",
            remedy="Give a folder as open_clip's push_to_hf_hub makes it, or the checkpoint file "
            "itself (.pt or .safetensors).",
        )
    found = sorted(
        path.name for kind in ("*.safetensors", "*.bin", "*.pth") for path in folder.glob(kind)
    )
    if len(found) != 1 and not any(name in found for name in _WEIGHTS):
        raise ModelLoadError(
            f"{record.id}: {folder} holds {', '.join(found) or 'no weights'}"
            + (": which is meant?" if found else ""),
            remedy=f"Name the weights {_WEIGHTS[0]}, or give a checkpoint file.",
        )
    return Source(folder=folder)
