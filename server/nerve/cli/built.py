"""The commands of a program that `nerve build` made: `serve`, `infer`, `mcp`, on the model in it.

Flags, defaults and output are Encoderfile's. Only `nerve.cli.built_start` runs this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from nerve.building.contents import unpack
from nerve.building.freezing import CHECK
from nerve.building.payload import BuiltFile, read_built_file
from nerve.cli import built_process
from nerve.cli.built_options import (
    Arena,
    CertFile,
    ComputeUnit,
    CpuFallback,
    DeviceId,
    ExecutionProvider,
    KeyFile,
    Level,
    OnnxOptions,
    Provider,
    tls,
)
from nerve.cli.mcp import HOSTNAME, PORT, serve_mcp
from nerve.cli.stopping import run
from nerve.cli.terminal import print_bytes
from nerve.config.server import ENV_PREFIX, ServerConfig, load_server_config
from nerve.config.settings.repositories import ControlMode
from nerve.errors import (
    ConfigInvalid,
    InvalidField,
    InvalidRequest,
    NerveError,
    Problem,
    SetupError,
    TransformFailed,
)
from nerve.frontend.encoderfile_wording import wording
from nerve.processes import asks_for_module, run_module

EXIT_ERROR: Final = 1
EXIT_INTERRUPTED: Final = 130
_OWN: Final = frozenset(
    {"repositories", "default_model", "model_control_mode", "load_model", "allow_model_control"}
    | {"repository_poll_seconds", "settle_seconds", "prove_models", "exit_on_error", "enable_mcp"}
    | {"http_hostname", "http_port", "disable_http", "grpc_hostname", "grpc_port", "disable_grpc"}
)
"""Settings that the flags or the file itself decide; a variable meant for a daemon says nothing here."""

app = typer.Typer(
    help="A model for named-entity recognition, with all that it needs to run.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """What `infer` writes."""

    JSON = "json"


@app.command()
def serve(
    grpc_hostname: Annotated[str, typer.Option(help="Address that gRPC listens on.")] = "[::]",
    grpc_port: Annotated[int, typer.Option(help="0 picks a free one.")] = 50051,
    http_hostname: Annotated[str, typer.Option(help="Address that HTTP listens on.")] = "0.0.0.0",  # noqa: S104  the contract's default
    http_port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8080,
    disable_grpc: Annotated[bool, typer.Option("--disable-grpc", help="No gRPC.")] = False,
    disable_http: Annotated[bool, typer.Option("--disable-http", help="No HTTP.")] = False,
    enable_otel: Annotated[
        bool, typer.Option("--enable-otel", help="Send traces to an OpenTelemetry collector.")
    ] = False,
    otel_exporter_url: Annotated[
        str | None, typer.Option(help="The collector. Default: http://localhost:4317")
    ] = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    disable_cpu_fallback: CpuFallback = False,  # noqa: ARG001  see its help
    graph_optimization_level: Level = None,
    execution_provider: Provider = ExecutionProvider.CPU,
    with_arena_allocator: Arena = False,  # noqa: ARG001  see its help
    device_id: DeviceId = None,
    compute_units: ComputeUnit = None,
) -> None:
    """Serve over HTTP and gRPC until SIGTERM."""
    options = OnnxOptions.of(
        graph_optimization_level, execution_provider, device_id=device_id, units=compute_units
    )
    addresses: dict[str, object] = {
        "grpc_hostname": grpc_hostname,
        "grpc_port": grpc_port,
        "http_hostname": http_hostname,
        "http_port": http_port,
        "disable_grpc": disable_grpc,
        "disable_http": disable_http,
        **({"enable_otel": True} if enable_otel else {}),
        **({} if otel_exporter_url is None else {"otel_exporter_url": otel_exporter_url}),
        **tls(cert_file, key_file),
    }
    if disable_grpc and disable_http:
        raise _refused("", "Cannot disable both gRPC and HTTP")
    from nerve.cli.serve import announce, run  # noqa: PLC0415
    from nerve.daemon import serve as serve_until_signal  # noqa: PLC0415  keeps `--help` fast

    built_process.be_the_program()
    with _model(options, addresses) as (config, built):
        say = _told_version(built, announce)
        run(config, lambda _: serve_until_signal(config, announce=say, load_first=True))


@app.command()
def infer(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUTS", help="Texts to tag.")],
    format_: Annotated[  # noqa: ARG001  there is only one
        Format, typer.Option("--format", "-f", help="There is only this one.")
    ] = Format.JSON,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", "--out-dir", help="Write to this file, not to stdout."),
    ] = None,
    disable_cpu_fallback: CpuFallback = False,  # noqa: ARG001  see its help
    graph_optimization_level: Level = None,
    execution_provider: Provider = ExecutionProvider.CPU,
    with_arena_allocator: Arena = False,  # noqa: ARG001  see its help
    device_id: DeviceId = None,
    compute_units: ComputeUnit = None,
) -> None:
    """Tag texts; nothing but the result goes to stdout."""
    options = OnnxOptions.of(
        graph_optimization_level, execution_provider, device_id=device_id, units=compute_units
    )
    from nerve import logs  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.tagger import open_tagger  # noqa: PLC0415

    _check_texts(inputs)
    if output is not None and not output.parent.is_dir():  # said before the work, not after it
        raise InvalidField("-o", f"there is no folder {output.parent}")

    async def tagged(config: ServerConfig) -> dict[str, object]:
        async with open_tagger(config) as tagger:
            results = await tagger.tokens(inputs)
            return {"results": results, "model_id": tagger.model_id, "metadata": {}}

    with _model(options, {"log_level": "warning"}) as (config, _):
        logs.set_up(config.log_level)
        result = run(tagged(config))
    content = orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2)
    if output is None:
        print_bytes(content + b"\n")
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise InvalidField("-o", f"{output}: {error.strerror}") from error


def _check_texts(texts: list[str]) -> None:
    """What the shell passes on need not be text. Raises InvalidField."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidField(f"INPUTS {number}", "is not valid UTF-8") from None


@app.command()
def mcp(
    hostname: Annotated[str, typer.Option(help="Address to listen on.")] = HOSTNAME,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = PORT,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    disable_cpu_fallback: CpuFallback = False,  # noqa: ARG001  see its help
    graph_optimization_level: Level = None,
    execution_provider: Provider = ExecutionProvider.CPU,
    with_arena_allocator: Arena = False,  # noqa: ARG001  see its help
    device_id: DeviceId = None,
    compute_units: ComputeUnit = None,
) -> None:
    """Offer the model as tools for language models (MCP), at /mcp, until SIGTERM."""
    options = OnnxOptions.of(
        graph_optimization_level, execution_provider, device_id=device_id, units=compute_units
    )
    from nerve.cli.serve import announce, run  # noqa: PLC0415

    built_process.be_the_program()
    with _model(options, tls(cert_file, key_file)) as (config, built):
        say = _told_version(built, announce)
        run(
            config,
            lambda _: serve_mcp(
                config, hostname=hostname, port=port, announce=say, load_first=True
            ),
        )


@contextmanager
def _model(
    options: OnnxOptions, settings: dict[str, object]
) -> Iterator[tuple[ServerConfig, BuiltFile]]:
    """The model in this program in a folder of its own, and the settings to serve it with."""
    built = read_built_file(built_process.program())
    with built_process.own_folder() as folder:
        try:
            options.write(unpack(built, folder))
        except OSError as error:
            detail = f"the model cannot be unpacked into {folder}: {error.strerror}"
            raise ConfigInvalid("this program", [Problem("", detail)]) from error
        own: dict[str, object] = {
            "repositories": [folder],
            "default_model": built.manifest.name,
            "model_control_mode": ControlMode.NONE,
            "prove_models": False,  # it was when it was built
            "exit_on_error": True,
        }
        others = {
            name: value
            for name, value in os.environ.items()
            if name.removeprefix(ENV_PREFIX).lower() not in _OWN
        }
        if ENV_PREFIX + "LOG_LEVEL" in others:
            settings = {key: value for key, value in settings.items() if key != "log_level"}
        yield load_server_config({**settings, **own}, others, None), built


def _told_version(built: BuiltFile, announce: Callable[[str], None]) -> Callable[[str], None]:
    """`announce`, with the version that the build file gave in place of the folder's number."""
    name, version = built.manifest.name, built.manifest.version

    def say(line: str) -> None:
        announce(f"Model: {name} v{version}" if line == f"Model: {name} v1" else line)

    return say


def _refused(flag: str, fault: str) -> ConfigInvalid:
    return ConfigInvalid("flags", [Problem(flag, fault)])


def main() -> None:
    """Entry point: be one of our modules if asked to; else a command, with Encoderfile's errors."""
    arguments = sys.argv[1:]
    if asks_for_module(arguments):
        run_module(arguments)
        return
    if arguments == [CHECK]:
        built_process.load_everything()
        return
    try:
        app(prog_name=built_process.program().name)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except NerveError as error:
        print(f"Error: {_sentence(error)}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    finally:
        built_process.tidy_up()


def _sentence(error: NerveError) -> str:
    """As Encoderfile's `infer` and `serve` begin and end it."""
    if isinstance(error, InvalidRequest):
        return f"Invalid Input: {wording(error)}"
    if isinstance(error, ConfigInvalid):
        return "Config Error: " + "; ".join(map(str, error.problems))
    if isinstance(error, TransformFailed):
        return f"Lua Error: {wording(error)}"
    kind = "Config Error" if isinstance(error, SetupError) else "Internal Error"
    return f"{kind}: {wording(error)}"
