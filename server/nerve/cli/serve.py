"""`nerve serve`: flags -> ServerConfig -> the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nerve import logs
from nerve.cli.settings import given, with_settings
from nerve.config.server import ServerConfig, load_server_config, misspelt, service_links

if TYPE_CHECKING:
    from nerve.proof import ForkServer

log = logging.getLogger(__name__)

Work = Callable[["ForkServer | None"], Coroutine[None, None, None]]
Announce = Callable[[str], None]
Repositories = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="REPOSITORY",
        help="Folders of models. Default: $NERVE_REPOSITORIES, else ./model_repository.",
        show_default=False,
    ),
]
MoreRepositories = Annotated[
    list[Path] | None,
    typer.Option(
        "--repository",
        "-r",
        metavar="REPOSITORY",
        help="The same, as an option; may be repeated.",
        show_default=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(envvar="NERVE_LOG_LEVEL", help="debug, info, warning or error. Default: info"),
]


@with_settings
def serve(
    repository: Repositories = None,
    *,
    more_repositories: MoreRepositories = None,
    config: Annotated[
        Path | None,
        typer.Option(envvar="NERVE_CONFIG", help="YAML file with any of the settings."),
    ] = None,
    **settings: object,
) -> None:
    """Serve the models of one or more repositories until SIGTERM.

    Every setting is also a NERVE_… variable and a key of the --config file; a flag wins over a
    variable, a variable over the file.
    """
    named = [*(repository or ()), *(more_repositories or ())]
    flags = given({"repositories": named, **settings})
    run(load_server_config(flags, os.environ, config))


def run(config: ServerConfig, work: Work | None = None) -> None:
    """Set logging up and run the daemon, or `work`, on uvloop where there is one.

    Args:
        config: of the daemon.
        work: is given the process that its proofs are to be forked from, if there is one already.
    """
    forks = _forks(config)  # first, as long as there are no threads
    # grpc would tell stderr of every client that fails at TLS; it looks when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from nerve.daemon import serve as serve_until_signal  # noqa: PLC0415  keeps `--help` fast

    logs.set_up(config.log_level, form=config.log_format, background=True)
    for name in service_links(os.environ):
        log.warning("the variable %s is a link of Kubernetes to a Service, and is not read", name)
    for name, near in misspelt(os.environ):
        hint = near and f"; did you mean {near}?"
        log.warning("the variable %s means nothing here%s", name, hint)
    for name, needed in config.without_effect:
        log.warning("%s has no effect without %s", name, needed)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(
                serve_until_signal(config, announce=announce, forks=forks)
                if work is None
                else work(forks)
            )
    finally:
        if forks is not None:
            forks.close()


def _forks(config: ServerConfig) -> ForkServer | None:
    if not config.prove_models:
        return None
    from nerve.proof_server import forked  # noqa: PLC0415  as above

    return forked()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def announce(line: str) -> None:
    """Tell the operator on stdout."""
    try:
        print(line, flush=True)
    except OSError as error:  # whoever read our lines has gone; that is no reason to end
        log.warning("cannot write to stdout: %s", error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
