"""Rebuild the demo's tiny encoder from its recipe (``make nano``)."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import marsretrieval
from marsretrieval.cli.console import say, show_progress
from marsretrieval.errors import MarsRetrievalError
from marsretrieval.training.train import Recipe, train

_SHIPPED = Path(marsretrieval.__file__).parent / "encoders" / "weights" / "mars-nano"


def main() -> None:
    """Train the encoder with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=_SHIPPED, help="folder of the trained model")
    for field in dataclasses.fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    chosen = vars(parser.parse_args())
    folder = chosen.pop("out")
    start = time.perf_counter()
    try:
        with show_progress() as progress:
            losses = train(Recipe(**chosen), folder, progress)
    except MarsRetrievalError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from error
    seconds = time.perf_counter() - start
    say(f"{folder}: trained in {seconds:.0f} s")
    say(f"loss {losses['first_epoch']} -> {losses['last_epoch']}")


if __name__ == "__main__":
    main()
