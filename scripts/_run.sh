#!/usr/bin/env bash
# What all entry points share: find marsretrieval and hand over to _entry.py.
# Usage: bash _run.sh TASK MODEL [MODEL...] -- [GPU_IDS] [MODEL] [OPTIONS]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
command="$root/.venv/bin/marsretrieval"
if [ ! -x "$command" ] && ! command=$(command -v marsretrieval); then
  echo "error: marsretrieval is not installed" >&2
  echo "  Run 'make venv' in $root, or see docs/INSTALL.md there." >&2
  exit 1
fi
# The Python that marsretrieval is installed in, so that nothing depends on the system's.
python="$(dirname "$(readlink -f "$command")")/python"
[ -x "$python" ] || python=python3
exec "$python" "$here/_entry.py" "$command" "$@"
