"""Which GPUs an entry point may use: its first argument, or CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["Stop", "gpu_ids", "require_gpus"]

_INDEX = re.compile(r"\d+")
_UUID = re.compile(r"(GPU|MIG)-[\w/-]+")
_NONE = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


class Stop(Exception):
    """The script ends here: a message with its remedy, and the exit code."""

    def __init__(self, message: str, remedy: str = "", *, code: int = 1) -> None:
        super().__init__(f"{message}\n  {remedy}" if remedy else message)
        self.code = code


def gpu_ids(argument: str | None, environment: Mapping[str, str]) -> list[str]:
    """The ids to use; none: the CPU. Raises Stop for what are no ids."""
    if argument == "cpu":
        return []
    where, text = "GPU ids", argument
    if not text:
        where, text = "CUDA_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES", "")
        if text.strip() in _NONE:
            return []
    ids = [each.strip() for each in text.split(",")]
    for each in ids:
        if not (_INDEX.fullmatch(each) or _UUID.fullmatch(each)):
            raise Stop(
                f"{where} '{text}': '{each}' is no GPU id",
                "Give numbers with commas between them, such as 0 or 0,1,2,3; or cpu.",
                code=2,
            )
    if len(set(ids)) < len(ids):
        raise Stop(f"{where} '{text}': an id comes twice", "Give each id once.", code=2)
    return ids


def require_gpus(ids: Sequence[str], examined: Mapping[str, object]) -> None:
    """Compare ids with what `marsretrieval doctor` found while only these were visible."""
    torch = examined.get("torch")
    devices = torch.get("devices", []) if isinstance(torch, Mapping) else []
    seen = [each for each in devices if str(each).startswith("cuda")]
    if len(seen) < len(ids):
        raise Stop(
            f"GPU ids {','.join(ids)}: torch sees {len(seen)} of {len(ids)}",
            "See 'marsretrieval doctor', and 'nvidia-smi -L' for the ids there are. "
            "To do without a GPU, say cpu in place of the ids.",
        )
