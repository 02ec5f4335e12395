"""Run the map server: choose a port, print the address, stop on Ctrl-C."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.api import open_store
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.plotting.images import CREDIT, VIKING, check_basemap, viking_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.system import limit_allocator
from marsretrieval.text import suggest_path

if TYPE_CHECKING:
    from marsretrieval.web.workspace import MapStore

_PORTS_TRIED = 20


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, and where.

    Attributes:
        stores: Folders of stores.
        images: Folders that contain the images.
        basemap: `viking`, `none`, or an image of the whole planet, -180 to 180 and 90 to -90.
        host: Address to listen on.
        port: Port; if it is in use the next free one is used, 0 for any.
        allow_hosts: Further host names under which the server is reached.
        inventory: Inventory of one of the stores, with or without the suffix `.inventory`.
        landform: What a new inventory is about; one is created if `inventory` does not exist.
        read_only: Refuse marks.
        checkpoint: Local weights of the model of the stores.
        model: Name of the model of the stores, if it is not in the registry.
        device: As of `load_model`.
        offline: As of `load_model`.
        trust: Load whatever class and checkpoint the stores name.
        trust_remote_code: As of `load_model`.
    """

    stores: Sequence[Path]
    images: Sequence[Path] = ()
    basemap: str = VIKING
    host: str = "127.0.0.1"
    port: int = 8765
    allow_hosts: Sequence[str] = ()
    inventory: Path | None = None
    landform: str | None = None
    read_only: bool = False
    checkpoint: Path | None = None
    model: str | None = None
    device: str = "auto"
    offline: bool = False
    trust: bool = False
    trust_remote_code: bool = False


class MapServer:
    """A server that is bound to a port and has opened its stores.

    Args:
        options: What to serve.
        progress: Progress of building search indexes.
        report: Called with lines for the user.

    Raises:
        UsageError: If an option is invalid.
        DataError: If the base map cannot be read.
        StoreError: If a store cannot be opened.
        InventoryError: If the inventory does not exist, or belongs to none of the stores.
        OutputError: If no port is free.
        MissingDependencyError: If the extra `web` is not installed.
    """

    def __init__(
        self,
        options: ServeOptions,
        *,
        progress: Progress = NO_PROGRESS,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        try:
            import uvicorn

            from marsretrieval.web.app import create_app
            from marsretrieval.web.state import Server
        except ImportError as error:
            raise MissingDependencyError("fastapi", "web", needed_for="the map") from error
        from marsretrieval.web.images import MapImages
        from marsretrieval.web.map_inventory import MapInventory
        from marsretrieval.web.security import LOOPBACK
        from marsretrieval.web.workspace import MapStore

        self._report = report
        limit_allocator()
        check_basemap(options.basemap)
        for folder in options.images:
            if not folder.is_dir():
                problem = "not a folder" if folder.exists() else "no such folder"
                raise UsageError(f"--images {folder}: {problem}", remedy=suggest_path(folder))
        if options.read_only and options.inventory is None:
            raise UsageError(
                "--read-only without --inventory: there are no marks to refuse",
                remedy="Add --inventory NAME.inventory, or leave it out.",
            )
        if options.landform is not None and options.inventory is None:
            raise UsageError(
                "--landform without --inventory", remedy="Add --inventory NAME.inventory."
            )
        stores: dict[str, MapStore] = {}
        for path in options.stores:
            store = open_store(
                path,
                model=options.model,
                checkpoint=options.checkpoint,
                device=options.device,
                offline=options.offline,
                trust=options.trust,
                trust_remote_code=options.trust_remote_code,
            )
            if store.missing:
                report(f"warning: {path} is not finished: {len(store.missing)} shards are missing")
            if str(path) in stores:
                raise UsageError(f"{path}: given twice", remedy="Give every store once.")
            stores[str(path)] = MapStore(store, str(path), progress)
        self.stores = list(stores.values())
        images = {name: MapImages(store, options.images) for name, store in stores.items()}
        for name, tiles in images.items():
            readable, sampled = tiles.sample()
            hint = "" if readable else ": name their folder with --images DIR"
            report(f"{name}: images of {readable} of {sampled} sampled tiles can be read{hint}")
        self.inventory = None
        if options.inventory is not None:
            self.inventory = MapInventory.open(
                options.inventory,
                self.stores,
                landform=options.landform,
                read_only=options.read_only,
                report=report,
            )
        self.token = None if options.host in LOOPBACK else secrets.token_urlsafe(24)
        self._socket = _bind(options.host, options.port, report)
        self.port = int(self._socket.getsockname()[1])
        hosts = [*LOOPBACK, options.host, *options.allow_hosts]
        if options.host in ("0.0.0.0", "::"):
            hosts.append(socket.gethostname())
        app = create_app(
            Server(
                stores,
                images,
                basemap=_basemap_path(options.basemap),
                basemap_credit=CREDIT if options.basemap == VIKING else Path(options.basemap).name,
                inventory=self.inventory,
                read_only=options.read_only,
            ),
            hosts=hosts,
            token=self.token,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        host = "127.0.0.1" if options.host in LOOPBACK else options.host
        if ":" in host:
            host = f"[{host}]"
        self.url = f"http://{host}:{self.port}/" + (f"#token={self.token}" if self.token else "")

    def run(self, *, open_browser: bool = False) -> None:
        """Serve until Ctrl-C. The models are loaded while the page can already be used.

        Args:
            open_browser: Open the page in the user's browser.
        """
        for store in self.stores:
            threading.Thread(
                target=self._load_model, args=(store,), name="load model", daemon=True
            ).start()
        if self.inventory is not None:
            threading.Thread(target=self.inventory.prepare, name="prepare", daemon=True).start()
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(self.url,), daemon=True).start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def _load_model(self, store: MapStore) -> None:
        store.load_model()
        if store.model.state == "none":
            self._report(
                f"warning: {store.name}: texts and images cannot be searched for: "
                f"{store.model.reason}"
            )

    def close(self) -> None:
        """Release the port and the lock of the inventory."""
        self._socket.close()
        if self.inventory is not None:
            self.inventory.close()

    def stop(self) -> None:
        """Let `run` return; may be called from another thread."""
        self._server.should_exit = True


def _bind(host: str, port: int, report: Callable[[str], None]) -> socket.socket:
    """Bind the port, or the next one that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port == 0 else range(port, min(port + _PORTS_TRIED, 65536)):
        # With the protocol named, asyncio sets TCP_NODELAY; else most responses wait 40 ms.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
            bound.listen(128)  # the address may be opened before the server accepts
        except OSError as error:
            bound.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise OutputError(
                f"cannot listen on {host}:{number} ({error.strerror})",
                remedy="Give --host an address of this machine: 127.0.0.1, or 0.0.0.0 for all.",
            ) from error
        if number != port and port:
            report(f"note: port {port} is in use; using {number}")
        return bound
    raise OutputError(
        f"ports {port} to {port + _PORTS_TRIED - 1} of {host} are in use",
        remedy="Choose another one with --port, or any free one with --port 0.",
    )


def _basemap_path(basemap: str) -> Path | None:
    if basemap == "none":
        return None
    return viking_path() if basemap == VIKING else Path(basemap)
