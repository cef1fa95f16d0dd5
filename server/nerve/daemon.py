"""An app from its start to its end: signals, the ready line, draining."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from nerve.app import Announce, App
from nerve.config.server import ServerConfig
from nerve.engine.memory import map_large_blocks
from nerve.proof import ForkServer

log = logging.getLogger(__name__)

OTHER_FILES: Final = 1024
"""Of models, of logs."""


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit, which is low for the sake of programs that select, up to the hard one."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def serve(
    config: ServerConfig,
    *,
    announce: Announce,
    load_first: bool = False,
    forks: ForkServer | None = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.

    With `load_first` it listens when its models are loaded; proofs come from `forks` if that is given.

    Raises:
        SetupError: it cannot run at all.
    """
    app = App(config, announce=announce, load_first=load_first, forks=forks)
    await run(app, config, announce=announce)


async def run(
    app: App,
    config: ServerConfig,
    *,
    announce: Announce,
    talk: Callable[[asyncio.Event], Awaitable[None]] | None = None,
) -> None:
    """Start an app, and stop it on a signal.

    Args:
        app: not yet started.
        config: it was made with.
        announce: gets the line that it is ready, where a port is of the kernel's choice.
        talk: serves besides; it ends, and with it the app, when the event is set that it is given,
            or by itself.
    Raises:
        SetupError: it cannot run at all.
    """
    map_large_blocks()
    allow_open_files(config.max_connections + config.grpc_max_connections + OTHER_FILES)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal(name: str) -> None:
        if stopping.is_set():
            log.warning("got %s again: ending at once", name)
            logging.shutdown()
            os._exit(1)  # an exception would have everything stop in order first
        if config.shutdown_delay_s:
            message = (
                "got %s: not ready any more; serving for %g s, then finishing requests in flight"
            )
            log.info(message, name, config.shutdown_delay_s)
        else:
            log.info("got %s: finishing requests in flight", name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    starting = asyncio.create_task(app.start())
    told = asyncio.ensure_future(stopping.wait() if talk is None else talk(stopping))
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            ports = starting.result()
            if 0 in (config.http_port, config.grpc_port, config.metrics_port):
                announce(json.dumps({"event": "ready", "ports": ports}))
        await told
        if stopping.is_set() and starting.done() and config.shutdown_delay_s:
            app.drain()
            await asyncio.sleep(config.shutdown_delay_s)
    finally:
        starting.cancel()
        told.cancel()
        await asyncio.gather(starting, told, return_exceptions=True)
        cut_off = await app.stop()
    if cut_off:
        log.error(
            "%d requests were cut off: they were not answered within %g s",
            cut_off,
            config.shutdown_timeout_s,
        )
