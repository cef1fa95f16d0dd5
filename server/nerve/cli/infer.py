"""`nerve infer`: tag texts, in this process or by a server; nothing but the result goes to stdout.

What is written as it goes (JSONL, CSV, Parquet) is `nerve.cli.bulk`'s; here are the whole documents.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import orjson
import typer

from nerve import logs
from nerve.cli.bulk.formats import Kind, kind_of_name
from nerve.cli.bulk.run import NOTHING_GIVEN, Asked, Remote, check_fields, run_bulk, written
from nerve.cli.bulk.sources import STDIN, open_input
from nerve.cli.https import Identity
from nerve.cli.models import ApiKey, CaFile, CertFile, KeyFile
from nerve.cli.stopping import run
from nerve.cli.terminal import stdout_bytes
from nerve.config.server import ServerConfig, load_server_config
from nerve.errors import InvalidField

if TYPE_CHECKING:
    from nerve.cli.tagger import Tagger

BATCH_TEXTS = 64
"""Texts that are in flight together; enough to fill batches."""
PROGRESS_FROM = 100
"""Texts from which on a progress bar is worth its lines."""


class Format(StrEnum):
    """What is written."""

    ENCODERFILE = "encoderfile"
    JSON = "json"
    ENTITIES = "entities"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_BULK = {Format.JSONL: Kind.JSONL, Format.CSV: Kind.CSV, Format.PARQUET: Kind.PARQUET}


def infer(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to tag; - reads them from stdin, one a line."),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input-file",
            "-i",
            help="File of texts: one a line, or .jsonl, .csv, .parquet, with .gz or without; - is "
            "stdin.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="NERVE_DEFAULT_MODEL", help="Model name. Default: the only one."),
    ] = None,
    repository: Annotated[
        list[Path] | None,
        typer.Option(
            "--repository",
            "-r",
            help="Folder of models, or one model's. Default: $NERVE_REPOSITORIES, else "
            "./model_repository.",
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            show_default=False,
            help="encoderfile (tokens with all scores; json is the same), entities (one list), or what "
            "is written as it goes: jsonl (one line a text), csv, parquet. Default: by the names "
            "of the output and the input, else encoderfile.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to this file instead of stdout. jsonl, csv and parquet made of a file are "
            "gone on with where an interrupted run has ended.",
        ),
    ] = None,
    input_format: Annotated[
        Kind | None,
        typer.Option("--input-format", show_default=False, help="Default: by the file's name."),
    ] = None,
    text_field: Annotated[
        str, typer.Option(help="Field or column with the text; all others are taken along.")
    ] = "text",
    entities_field: Annotated[
        str, typer.Option(help="Field or column that the entities go into.")
    ] = "entities",
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Write an error in place of entities where a line is bad, and exit with 3.",
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what an interrupted run has written.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have a running server tag; only jsonl, csv, parquet."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for one answer of a server.")
    ] = 60.0,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a server that is not there or busy.")
    ] = 300.0,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    log_level: Annotated[
        str, typer.Option(envvar="NERVE_LOG_LEVEL", help="Least severe line on stderr.")
    ] = "warning",
) -> None:
    """Tag texts without a server, or files larger than memory with one or without."""
    flags: dict[str, object] = {"log_level": log_level}
    if repository:
        flags["repositories"] = repository
    if model:
        flags["default_model"] = model
    config = load_server_config(flags, os.environ, None)
    logs.set_up(config.log_level)
    format_ = format_ or _format(texts or [], input_file, input_format, output)
    check_fields(text_field, entities_field, keep_going=keep_going)
    kind = _BULK.get(format_)
    if kind is None:
        if server is not None or keep_going or restart:
            flag = (
                "--server" if server is not None else "--keep-going" if keep_going else "--restart"
            )
            raise InvalidField(flag, f"is for --format jsonl, csv and parquet, not {format_.value}")
        collected = [*_collect(texts or [], input_file, input_format, text_field)]
        _write_document(config, collected, format_, output)
        return
    identity = Identity(api_key, ca_file, cert_file, key_file)
    remote = None if server is None else Remote(server, identity, model, timeout, wait)
    asked = Asked(
        _checked(texts or []), input_file, input_format, kind, output,
        text_field=text_field, entities_field=entities_field, keep_going=keep_going, restart=restart,
    )  # fmt: skip
    if status := run_bulk(asked, remote or config):
        raise typer.Exit(status)


def _format(
    texts: Sequence[str], input_file: Path | None, said: Kind | None, output: Path | None
) -> Format:
    """What the names of the files say. Pure."""
    if output is not None:
        kind = kind_of_name(output)
    elif said is not None or input_file is None or texts:
        kind = said
    else:
        kind = kind_of_name(input_file)
    if kind is None or kind is Kind.TEXT:
        return Format.ENCODERFILE
    # A Parquet file cannot go to stdout.
    return Format.JSONL if output is None and kind is Kind.PARQUET else Format(kind.value)


def _write_document(
    config: ServerConfig, collected: Sequence[str], format_: Format, output: Path | None
) -> None:
    """Everything at once, in one JSON document."""
    if not collected:
        raise InvalidField("TEXT", NOTHING_GIVEN)
    from nerve.cli.tagger import open_tagger  # noqa: PLC0415  keeps `--help` fast

    async def work() -> None:
        async with open_tagger(config) as tagger:
            with stdout_bytes() if output is None else written(output) as sink:
                await _write(tagger, collected, format_, sink, final_newline=output is None)
            if tagger.truncated:
                print(
                    f"{tagger.truncated} of {len(collected)} texts were cut because they are longer "
                    "than the model; tokenizer.stride in config.yaml tags them whole",
                    file=sys.stderr,
                )

    run(work())


def _checked(texts: Sequence[str]) -> Sequence[str]:
    """Raises InvalidField: one of them is no text."""
    for number, text in enumerate(texts, start=1):
        if text == "":
            raise InvalidField(f"TEXT {number}", "is empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidField(f"TEXT {number}", "is not valid UTF-8") from None
    return texts


def _collect(
    texts: Sequence[str], input_file: Path | None, input_format: Kind | None, text_field: str
) -> Iterator[str]:
    sources = [Path(STDIN) if text == STDIN else text for text in _checked(texts)]
    for source in [*sources, *([] if input_file is None else [input_file])]:
        if isinstance(source, str):
            yield source
            continue
        for record in open_input(source, input_format, text_field=text_field):
            if record.fault:
                raise InvalidField(record.source, f"{record.place} {record.fault}")
            yield record.text


async def _write(
    tagger: Tagger, texts: Sequence[str], format_: Format, sink: BinaryIO, *, final_newline: bool
) -> None:
    results: list[Any] = []
    if format_ is Format.ENTITIES:
        async for part, entities in _batches(tagger.entities, list, texts):
            results += [
                {"text": text, "entities": found}
                for text, found in zip(part, entities, strict=True)
            ]
        document: Any = results
    else:
        async for _, tokens in _batches(tagger.tokens, lambda: {"tokens": []}, texts):
            results += tokens
        document = {"results": results, "model_id": tagger.model_id, "metadata": {}}
    sink.write(_dump(document, pretty=True) + (b"\n" if final_newline else b""))
    sink.flush()


async def _batches(
    work: Callable[[Sequence[str]], Awaitable[list[Any]]],
    empty: Callable[[], Any],
    texts: Sequence[str],
) -> AsyncIterator[tuple[Sequence[str], list[Any]]]:
    """Results of `work` for parts of the texts, in order; an empty line gets `empty()`."""
    with _progress(len(texts)) as advance:
        for start in range(0, len(texts), BATCH_TEXTS):
            part = texts[start : start + BATCH_TEXTS]
            filled = [text for text in part if text]
            found = iter(await work(filled) if filled else ())
            yield part, [next(found) if text else empty() for text in part]
            advance(len(part))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where somebody looks and there is enough to wait for."""
    if total < PROGRESS_FROM or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  only when there is a bar
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("texts", total=total)
        yield lambda count: bar.advance(task, count)


def _dump(value: object, *, pretty: bool = False) -> bytes:
    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if pretty else 0)
    return orjson.dumps(value, option=option)
