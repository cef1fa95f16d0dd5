"""`nerve infer`: tag texts in this process; nothing but the result goes to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import orjson
import typer

from nerve import logs
from nerve.cli.stopping import run
from nerve.cli.terminal import stdout_bytes
from nerve.config.server import load_server_config
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


def infer(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to tag; - reads them from stdin, one a line."),
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input-file", "-i", help="File of texts, one a line.")
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
        Format,
        typer.Option(
            "--format",
            "-f",
            help="encoderfile (tokens with all scores; json is the same), entities (one list), "
            "jsonl (one line a text, written as it goes).",
        ),
    ] = Format.ENCODERFILE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
    log_level: Annotated[
        str, typer.Option(envvar="NERVE_LOG_LEVEL", help="Least severe line on stderr.")
    ] = "warning",
) -> None:
    """Tag texts without a server."""
    flags: dict[str, object] = {"log_level": log_level}
    if repository:
        flags["repositories"] = repository
    if model:
        flags["default_model"] = model
    config = load_server_config(flags, os.environ, None)
    logs.set_up(config.log_level)
    collected = list(_collect(texts or [], input_file))
    if not collected:
        raise InvalidField("TEXT", "give a text, - for stdin, or --input-file")
    from nerve.cli.tagger import open_tagger  # noqa: PLC0415  keeps `--help` fast

    async def work() -> None:
        async with open_tagger(config) as tagger:
            with _sink(output) as sink:
                await _write(tagger, collected, format_, sink, final_newline=output is None)
            if tagger.truncated:
                print(
                    f"{tagger.truncated} of {len(collected)} texts were cut because they are longer "
                    "than the model; tokenizer.stride in config.yaml tags them whole",
                    file=sys.stderr,
                )

    run(work())


def _collect(texts: Sequence[str], input_file: Path | None) -> Iterator[str]:
    for number, text in enumerate(texts):
        if text == "-":
            yield from _lines(sys.stdin.buffer, "stdin")
        elif text == "":
            raise InvalidField(f"TEXT {number + 1}", "is empty")
        else:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidField(f"TEXT {number + 1}", "is not valid UTF-8") from None
            yield text
    if input_file is not None:
        try:
            with input_file.open("rb") as file:
                yield from _lines(file, str(input_file))
        except OSError as error:
            raise InvalidField("--input-file", f"{input_file}: {error.strerror}") from error


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            # utf-8-sig: editors on Windows put a byte-order mark before the first line
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InvalidField(name, f"line {number} is not valid UTF-8") from None


def _sink(output: Path | None) -> AbstractContextManager[BinaryIO]:
    if output is None:
        return stdout_bytes()
    try:
        return output.open("wb")
    except OSError as error:
        raise InvalidField("--output", f"{output}: {error.strerror}") from error


async def _write(
    tagger: Tagger, texts: Sequence[str], format_: Format, sink: BinaryIO, *, final_newline: bool
) -> None:
    if format_ is Format.JSONL:
        async for part, entities in _batches(tagger.entities, list, texts):
            for text, found in zip(part, entities, strict=True):
                sink.write(_dump({"text": text, "entities": found}) + b"\n")
            sink.flush()
        return
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
