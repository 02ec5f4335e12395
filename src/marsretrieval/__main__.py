"""``python -m marsretrieval`` is the ``marsretrieval`` command."""

from marsretrieval.cli import main

main()
