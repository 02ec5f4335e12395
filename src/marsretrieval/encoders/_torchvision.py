"""Let torchvision import beside a CPU-only torch.

A torchvision built for CUDA links libraries that a CPU-only torch does not have. Its C++ operators
are then not registered, and two unguarded lines of its own (the shape rules of nms and qnms) fail
with "operator torchvision::nms does not exist"; open_clip, timm and transformers fail with it.
None of them needs those operators, only the transforms. So after that very failure, and only then,
the two schemas are defined and the import is tried again. Where torchvision is whole, or absent,
nothing is touched.
"""

from __future__ import annotations

import sys

from marsretrieval.errors import MissingDependencyError

__all__ = ["ensure_torchvision"]

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_defined: list[str] = []  # by us, in this process


def ensure_torchvision() -> bool:
    """Import torchvision, mending the one failure described above. False where that was needed.

    Call it before open_clip, timm or transformers are imported. Raises MissingDependencyError
    when torchvision is not installed; any other failure is passed on as it is.
    """
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "torchvision", "models", needed_for="loading a model"
        ) from error
    except RuntimeError as error:
        if _defined or "operator torchvision::" not in str(error):
            raise
        _define_schemas()
        import torchvision  # noqa: F401
    return not _defined


def _define_schemas() -> None:
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
        _defined.append(operator)
