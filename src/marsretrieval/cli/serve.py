"""``marsretrieval serve``: the map in a browser."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.options import (
    StoreModelOptions,
    expand_options,
)


@expand_options
def serve(
    *,
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Folders of stores, made by embed.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of the images, if moved; repeatable."),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="NAME", help="Inventory of a store, for marks, audits and exports."),
    ] = None,
    landform: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Create the inventory if missing, with this text query."),
    ] = None,
    basemap: Annotated[
        str,
        typer.Option(
            metavar="viking|none|FILE", help="Image below the map: -180..180, 90..-90 degrees."
        ),
    ] = "viking",
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Address to listen on; other than loopback needs a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 for any free one.")
    ] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further host name of this server; repeatable."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show the inventory without saving marks.")
    ] = False,
    loading: StoreModelOptions,
    as_json: JsonFlag = False,
) -> None:
    """Show stores on a map in the browser, to search and mark tiles.

    With --inventory, marks are saved, learned from and audited (see `inventory`). The inventory
    must belong to one of the stores. While another process writes to it, it is read-only.

    The address is printed on stdout. Queries by tile work at once, queries by text or image when
    the model is loaded. Other machines can reach the server only with --host, and with the token
    that is part of the printed address.

    Raises:
        UsageError: If an option is invalid.
        DataError: If the base map cannot be read.
        StoreError: If a store cannot be opened.
        InventoryError: If the inventory does not exist, or belongs to none of the stores.
        OutputError: If no port is free.
        MissingDependencyError: If the extra `web` is not installed.
    """
    from marsretrieval.web.server import MapServer, ServeOptions

    options = ServeOptions(
        stores=stores,
        images=images or (),
        basemap=basemap,
        host=host,
        port=port,
        allow_hosts=allow_host or (),
        inventory=inventory,
        landform=landform,
        read_only=read_only,
        **loading.values(),
    )
    with show_progress(quiet=as_json) as progress:
        server = MapServer(options, progress=progress, report=say)
    if as_json:
        print_json(
            {
                "url": server.url,
                "port": server.port,
                "stores": [str(one) for one in stores],
                "inventory": None if inventory is None else str(inventory),
            }
        )
    else:
        echo(server.url)
        say("Ctrl-C stops the server.")
    sys.stdout.flush()  # read by the program that started the server
    try:
        server.run(open_browser=not no_open)
    except KeyboardInterrupt as error:  # SIGTERM and SIGHUP too, with their number
        saved = None if server.inventory is None else server.inventory.saved_in
        say("Stopped." if saved is None else f"Stopped; all marks are saved in {saved}.")
        number = error.args[0] if error.args else signal.SIGINT
        raise typer.Exit(128 + number) from error
