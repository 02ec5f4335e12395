"""Names and errors that come from data: which may be trusted, which speak of damage."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from marsretrieval.errors import DataError

_NAME_BYTES = 255  # of one part of a path, on every usual file system
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# The disk, the rights or the process are at fault, not what the file holds.
_NOT_DAMAGE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO,
        errno.ENOSPC, errno.EROFS, errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT,
        *(getattr(errno, name) for name in ("ESTALE", "EDQUOT", "EREMOTEIO", "ENOTCONN")
          if hasattr(errno, name)),
    }
)  # fmt: skip


def is_safe_name(name: object) -> bool:
    """Whether a value from data may be a file name: one part, printable, of a usual length."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and "/" not in name
        and "\\" not in name
        and not _UNPRINTABLE.search(name)
        and len(name.encode(errors="replace")) <= _NAME_BYTES
        and not (os.name == "nt" and (":" in name or name[-1] in ". "))
    )


def confined(
    folder: Path, name: object, *, nested: bool = True, source: Path | str | None = None
) -> Path:
    """Path of a file below `folder` whose name comes from data.

    Args:
        folder: The only folder, with those below it, that the path may lie in.
        name: A relative path with `/` between its parts.
        nested: Whether it may have several parts.
        source: File that holds the name, for the message (default: `folder`).

    Returns:
        `folder / name`.

    Raises:
        DataError: If the name is not a text, is absolute, holds `..`, a backslash, a control
            character or a part longer than file systems allow, or if links lead out of `folder`.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or not all(map(is_safe_name, parts)) or (len(parts) > 1 and not nested):
        shown = repr(name)
        shown = shown if len(shown) <= 80 else f"{shown[:60]}..."
        raise DataError(
            f"{source or folder}: {shown} is not the name of a file below its folder",
            remedy="Do not use this file, or get it again from where it came: it is damaged or "
            "was made to reach files elsewhere.",
        )
    path = folder.joinpath(*parts)
    if len(parts) > 1 and not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{path}: a link leads out of {folder}",
            remedy="Replace the link by the folder that it leads to.",
        )
    return path


def is_damage(error: BaseException) -> bool:
    """Whether an error speaks of the content of a file, not of the disk, rights or memory.

    Args:
        error: What reading raised.

    Returns:
        False where the error, or one that led to it, is a failing disk (EIO), a missing right
        (EACCES), a lack of memory or descriptors (ENOMEM, EMFILE), and the like.
    """
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, MemoryError):
            return False
        if isinstance(following, OSError) and following.errno in _NOT_DAMAGE:
            return False
        following = following.__cause__ or following.__context__
    return True
