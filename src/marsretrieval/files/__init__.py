"""Files that are either whole or not there: atomic writes, checksums, probes for writability.

Everything that comes from data passes here: JSON through `read_json` and `parse_json`, names of
files through `confined`.
"""

from marsretrieval.files._atomic import (
    atomic_path,
    check_output,
    locked,
    make_folder,
    remove_stale,
    temporary_folder,
)
from marsretrieval.files._json import (
    Constraint,
    Int64,
    JsonObject,
    from_json,
    parse_json,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from marsretrieval.files._names import confined, is_damage, is_safe_name

__all__ = [
    "Constraint",
    "Int64",
    "JsonObject",
    "atomic_path",
    "check_output",
    "confined",
    "from_json",
    "is_damage",
    "is_safe_name",
    "locked",
    "make_folder",
    "parse_json",
    "read_json",
    "remove_stale",
    "sha256_file",
    "sha256_json",
    "temporary_folder",
    "write_json",
]
