"""Select GPUs by the first argument of a script or by CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["Stop", "gpu_ids", "require_gpus"]

_INDEX = re.compile(r"\d+")
_UUID = re.compile(r"(GPU|MIG)-[\w/-]+")
_NONE = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


class Stop(Exception):
    """Error that ends the script, with a message, its remedy and the exit code."""

    def __init__(self, message: str, remedy: str = "", *, code: int = 1) -> None:
        super().__init__(f"{message}\n  {remedy}" if remedy else message)
        self.code = code


def gpu_ids(argument: str | None, environment: Mapping[str, str]) -> list[str]:
    """Parse the GPU ids to use.

    Args:
        argument: First argument of the script, or None.
        environment: Environment variables.

    Returns:
        GPU ids; empty for the CPU.

    Raises:
        Stop: If an id is invalid or occurs twice.
    """
    if argument == "cpu":
        return []
    origin, text = "GPU ids", argument
    if not text:
        origin, text = "CUDA_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES", "")
        if text.strip() in _NONE:
            return []
    ids = [gpu_id.strip() for gpu_id in text.split(",")]
    for gpu_id in ids:
        if not (_INDEX.fullmatch(gpu_id) or _UUID.fullmatch(gpu_id)):
            raise Stop(
                f"{origin} '{text}': '{gpu_id}' is no GPU id",
                "Give numbers with commas between them, such as 0 or 0,1,2,3; or cpu.",
                code=2,
            )
    if len(set(ids)) < len(ids):
        raise Stop(f"{origin} '{text}': an id comes twice", "Give each id once.", code=2)
    return ids


def require_gpus(ids: Sequence[str], diagnosis: Mapping[str, object]) -> None:
    """Check that torch sees all selected GPUs.

    Args:
        ids: GPU ids.
        diagnosis: Output of `marsretrieval doctor --json` with only these GPUs visible.

    Raises:
        Stop: If torch sees fewer.
    """
    torch = diagnosis.get("torch")
    devices = torch.get("devices", []) if isinstance(torch, Mapping) else []
    visible = [device for device in devices if str(device).startswith("cuda")]
    if len(visible) < len(ids):
        raise Stop(
            f"GPU ids {','.join(ids)}: torch sees {len(visible)} of {len(ids)}",
            "See 'marsretrieval doctor', and 'nvidia-smi -L' for the ids there are. "
            "To do without a GPU, say cpu in place of the ids.",
        )
