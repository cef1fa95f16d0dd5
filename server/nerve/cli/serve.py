"""`nerve serve`: flags -> ServerConfig -> the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated

import typer

from nerve import logs
from nerve.config.server import ServerConfig, load_server_config, misspelt

log = logging.getLogger(__name__)

Announce = Callable[[str], None]
Repositories = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="REPOSITORY",
        help="Folders of models. Default: $NERVE_REPOSITORIES, else ./model_repository.",
        show_default=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(envvar="NERVE_LOG_LEVEL", help="debug, info, warning or error. Default: info"),
]


def serve(
    repository: Repositories = None,
    http_hostname: Annotated[
        str | None, typer.Option(envvar="NERVE_HTTP_HOSTNAME", help="Default: 0.0.0.0")
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(envvar="NERVE_HTTP_PORT", help="Default: 8080; 0 picks a free one"),
    ] = None,
    disable_http: Annotated[
        bool | None, typer.Option("--disable-http", envvar="NERVE_DISABLE_HTTP", help="No HTTP.")
    ] = None,
    grpc_hostname: Annotated[
        str | None, typer.Option(envvar="NERVE_GRPC_HOSTNAME", help="Default: [::]")
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(envvar="NERVE_GRPC_PORT", help="Default: 50051; 0 picks a free one"),
    ] = None,
    disable_grpc: Annotated[
        bool | None, typer.Option("--disable-grpc", envvar="NERVE_DISABLE_GRPC", help="No gRPC.")
    ] = None,
    enable_mcp: Annotated[
        bool | None,
        typer.Option(
            "--enable-mcp",
            envvar="NERVE_ENABLE_MCP",
            help="Offer tools to language models at /mcp on HTTP's port.",
        ),
    ] = None,
    default_model: Annotated[
        str | None,
        typer.Option(
            envvar="NERVE_DEFAULT_MODEL",
            help="Model that routes without a name mean. Default: the only one.",
        ),
    ] = None,
    model_control_mode: Annotated[
        str | None,
        typer.Option(
            envvar="NERVE_MODEL_CONTROL_MODE",
            help="watch: load what changes in the repository, by events; poll: by looking; explicit: "
            "only by the repository API; none: never. Default: watch",
        ),
    ] = None,
    load_model: Annotated[
        list[str] | None,
        typer.Option(
            help="With explicit: load this model at start; may be repeated, '*' means all.",
        ),
    ] = None,
    allow_model_control: Annotated[
        bool | None,
        typer.Option(
            "--allow-model-control",
            envvar="NERVE_ALLOW_MODEL_CONTROL",
            help="Take load and unload requests in the other modes, too.",
        ),
    ] = None,
    repository_poll_seconds: Annotated[
        float | None,
        typer.Option(
            "--repository-poll-seconds",
            "--repository-poll-secs",
            envvar="NERVE_REPOSITORY_POLL_SECONDS",
            help="Time between two looks at the repository. Default: 30 with watch, 15 with poll",
        ),
    ] = None,
    settle_seconds: Annotated[
        float | None,
        typer.Option(
            envvar="NERVE_SETTLE_SECONDS",
            help="How long a changed model folder must be quiet before it is loaded. Default: 1",
        ),
    ] = None,
    exit_on_error: Annotated[
        bool | None,
        typer.Option(
            "--exit-on-error",
            envvar="NERVE_EXIT_ON_ERROR",
            help="End with an error if a model cannot be loaded at start.",
        ),
    ] = None,
    log_level: LogLevel = None,
    config: Annotated[
        Path | None,
        typer.Option(envvar="NERVE_CONFIG", help="YAML file with any of the settings."),
    ] = None,
) -> None:
    """Serve the models of one or more repositories until SIGTERM.

    Every setting is also a NERVE_… variable and a key of the --config file; a flag wins over a
    variable, a variable over the file.
    """
    given = {
        "repositories": repository,
        "http_hostname": http_hostname,
        "http_port": http_port,
        "disable_http": disable_http,
        "grpc_hostname": grpc_hostname,
        "grpc_port": grpc_port,
        "disable_grpc": disable_grpc,
        "enable_mcp": enable_mcp,
        "default_model": default_model,
        "model_control_mode": model_control_mode,
        "load_model": load_model,
        "allow_model_control": allow_model_control,
        "repository_poll_seconds": repository_poll_seconds,
        "settle_seconds": settle_seconds,
        "exit_on_error": exit_on_error,
        "log_level": log_level,
    }
    flags = {name: value for name, value in given.items() if value not in (None, [])}
    run(load_server_config(flags, os.environ, config))


def run(
    config: ServerConfig, work: Callable[[], Coroutine[None, None, None]] | None = None
) -> None:
    """Set logging up and run the daemon, or `work`, on uvloop where there is one."""
    from nerve.daemon import serve as serve_until_signal  # noqa: PLC0415  keeps `--help` fast

    logs.set_up(config.log_level)
    for name, near in misspelt(os.environ):
        log.warning("the variable %s means nothing here; did you mean %s?", name, near)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve_until_signal(config, announce=announce) if work is None else work())


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
