"""`nerve mcp`: tools for language models, over HTTP on a port of their own, or over stdio."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nerve.cli.serve import Announce, LogLevel, MoreRepositories, Repositories, announce, run
from nerve.config.server import ServerConfig, load_server_config
from nerve.config.settings.repositories import ControlMode
from nerve.errors import AddressUnavailable, ModelNotFound

if TYPE_CHECKING:
    from nerve.frontend.mcp.pipes import Pipes
    from nerve.proof import ForkServer

HOSTNAME = "0.0.0.0"  # noqa: S104  the contract's default
PORT = 9100


def mcp(
    repository: Repositories = None,
    more_repositories: MoreRepositories = None,
    hostname: Annotated[str, typer.Option(help="Address to listen on.")] = HOSTNAME,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 picks a free one, and tells it.")
    ] = PORT,
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio", help="Talk over stdin and stdout with the program that started it."
        ),
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Serve only this model; may be repeated. The first is the default one."),
    ] = None,
    log_level: LogLevel = None,
    config: Annotated[
        Path | None,
        typer.Option(envvar="NERVE_CONFIG", help="YAML file with any of the settings of serve."),
    ] = None,
) -> None:
    """Offer the models as tools to language models, by the Model Context Protocol at /mcp.

    The settings of serve count here, too, as NERVE_… variables and in the --config file, but for its
    addresses.
    """
    given: dict[str, object] = {
        "repositories": [*(repository or ()), *(more_repositories or ())],
        "log_level": log_level,
    }
    if model:
        chosen = {"load_model": model, "default_model": model[0], "exit_on_error": True}
        given |= {"model_control_mode": ControlMode.EXPLICIT, **chosen}
    flags = {name: value for name, value in given.items() if value not in (None, [])}
    settings = load_server_config(flags, os.environ, config)
    if model:
        _check(model, settings)
    if not stdio:
        run(
            settings,
            lambda forks: serve_mcp(
                settings, hostname=hostname, port=port, announce=announce, forks=forks
            ),
        )
        return
    from nerve.frontend.mcp.pipes import claimed  # noqa: PLC0415  keeps `--help` fast

    with claimed() as pipes:
        run(
            settings,
            lambda forks: serve_mcp_stdio(settings, pipes=pipes, announce=_to_stderr, forks=forks),
        )


async def serve_mcp(
    config: ServerConfig,
    *,
    hostname: str,
    port: int,
    announce: Announce,
    load_first: bool = False,
    forks: ForkServer | None = None,
) -> None:
    """A server of its own for MCP at /mcp, with probes and metrics, until a signal.

    Args:
        config: what it says of HTTP's and gRPC's addresses does not count.
        hostname: address to listen on.
        port: 0 lets the kernel pick one, which is then announced.
        announce: gets a line at a time.
        load_first: it listens when its models are loaded.
        forks: where proofs are forked from, if that runs already.
    Raises:
        SetupError: it cannot run at all.
    """
    from nerve.app import App  # noqa: PLC0415  keeps `--help` fast
    from nerve.daemon import run  # noqa: PLC0415

    own = {"http_hostname": hostname, "http_port": port, "disable_http": False}
    config = config.model_copy(
        update={**own, "grpc_port": port, "disable_grpc": True, "enable_mcp": True}
    )
    try:
        app = App(config, announce=announce, only_mcp=True, load_first=load_first, forks=forks)
        await run(app, config, announce=announce)
    except AddressUnavailable as error:
        detail = error.detail.replace("--http-", "--")
        raise AddressUnavailable(error.host, error.port, detail) from error


async def serve_mcp_stdio(
    config: ServerConfig, *, pipes: Pipes, announce: Announce, forks: ForkServer | None = None
) -> None:
    """MCP over `pipes` until their client ends them, or a signal. Nothing listens.

    Raises:
        SetupError: it cannot run at all.
    """
    from nerve.app import App  # noqa: PLC0415  keeps `--help` fast
    from nerve.daemon import run  # noqa: PLC0415

    silent = {"disable_http": True, "disable_grpc": True}  # which nobody can configure
    config = config.model_copy(update={**silent, "enable_mcp": True})
    app = App(config, announce=announce, forks=forks)
    assert app.mcp is not None
    server = app.mcp
    from nerve.frontend.mcp.stdio import talk  # noqa: PLC0415  as above, and imports the SDK

    await run(app, config, announce=announce, talk=lambda stop: talk(server, pipes, stop=stop))


def _check(models: list[str], config: ServerConfig) -> None:
    """See that the models are there: a server without them would only tell that later.

    Raises:
        ModelNotFound, RepositoryInvalid.
    """
    from nerve.repository.layout import read_models, scan  # noqa: PLC0415  keeps `--help` fast

    known = sorted(each.name for path in config.repositories for each in read_models(scan(path)))
    for name in models:
        if name not in known:
            raise ModelNotFound(name, known)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
