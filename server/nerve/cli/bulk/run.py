"""From what the command line says to a run: which files, which sink, which tagger."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from nerve.cli.bulk.formats import Kind, shape_of_input, shape_of_output
from nerve.cli.bulk.records import ERROR_FIELD, OutputBroken, Reader
from nerve.cli.bulk.sources import STDIN, GivenTexts, Several, open_input
from nerve.cli.https import Identity
from nerve.cli.stopping import run, stoppable
from nerve.cli.terminal import stdout_bytes
from nerve.config.server import ServerConfig
from nerve.errors import InvalidField

if TYPE_CHECKING:
    from nerve.cli.bulk.job import Wanted
    from nerve.cli.bulk.window import Tagging

NOTHING_GIVEN: Final = "give a text, - for stdin, or --input-file"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `nerve infer`, as they were given; `kind` of the output is known."""

    texts: Sequence[str]
    input_file: Path | None
    input_format: Kind | None
    kind: Kind
    output: Path | None
    _: KW_ONLY
    text_field: str
    entities_field: str
    keep_going: bool
    restart: bool


class Remote(NamedTuple):
    """A server and how it is asked.

    `timeout_s` is for one answer, `wait_s` the longest time without any answer.
    """

    url: str
    identity: Identity
    model: str | None
    timeout_s: float
    wait_s: float


def check_fields(text_field: str, entities_field: str, *, keep_going: bool) -> None:
    """Raises InvalidField: a name is missing, or is that of another field."""
    for flag, name in (("--text-field", text_field), ("--entities-field", entities_field)):
        if not name:
            raise InvalidField(flag, "is empty")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidField(flag, "is not valid UTF-8") from None
    if text_field == entities_field:
        raise InvalidField("--entities-field", f"{entities_field!r} is the field of the text")
    if keep_going and ERROR_FIELD in (text_field, entities_field):
        flag = "--text-field" if text_field == ERROR_FIELD else "--entities-field"
        raise InvalidField(flag, f"{ERROR_FIELD!r} is the field for errors of --keep-going")


def run_bulk(asked: Asked, by: ServerConfig | Remote) -> int:
    """Tag everything; the exit status.

    Args:
        asked: what is to be done.
        by: the settings of the model in this process, or a server.
    Raises:
        NerveError: it cannot be done, or not to the end.
    """
    from nerve.cli.bulk.job import Plan, run_part, run_stream, told  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.bulk.journal import Position  # noqa: PLC0415
    from nerve.cli.bulk.output import Part  # noqa: PLC0415

    wanted = _wanted(asked)
    file = None if asked.output is None or not _is_file(asked.output) else asked.output
    if asked.restart and (file is None or wanted.input_file is None):
        raise InvalidField("--restart", "only a run from a file to a file is gone on with")
    reader = _reader(asked, wanted)
    try:
        plan = Plan(wanted, reader, wanted.encoder(reader), _opened(by))
        if file is not None:
            part = Part(file, plan.encoder.head(), gzipped=wanted.output.gzipped)
            part.lock(restart=asked.restart)
            try:
                with stoppable():
                    return told(run(run_part(plan, part)))
            finally:
                part.close()
        position = Position()
        with stdout_bytes() if asked.output is None else written(asked.output) as sink:
            position = run(run_stream(plan, sink))
        return told(position)  # of nothing, if nobody wanted to read on
    finally:
        reader.close()


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that is written at once, or a pipe, or a device. Raises OutputBroken."""
    try:
        with path.open("wb") as sink:
            yield sink
    except OSError as error:
        raise OutputBroken(str(path), error.strerror or str(error)) from error


def _wanted(asked: Asked) -> Wanted:
    """Raises InvalidField: the formats do not fit the places."""
    from nerve.cli.bulk.job import Wanted  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.bulk.parquet import require_pyarrow  # noqa: PLC0415

    path = asked.input_file
    file = None if path is None or asked.texts or str(path) == STDIN or not _is_file(path) else path
    kind = shape_of_input(file, asked.input_format).kind
    output = shape_of_output(asked.output, asked.kind)
    if output.kind is Kind.PARQUET:
        require_pyarrow("--format")
        if asked.output is not None and not _is_file(asked.output):
            raise InvalidField("--output", f"{asked.output}: Parquet needs a file on a disk")
    if asked.output and file:
        _check_apart(file, asked.output)
    return Wanted(
        file,
        kind,
        output,
        asked.text_field,
        asked.entities_field,
        keep_going=asked.keep_going,
        restart=asked.restart,
    )


def _check_apart(file: Path, output: Path) -> None:
    """Raises InvalidField: the input would be written over."""
    from nerve.cli.bulk.output import beside  # noqa: PLC0415  keeps `--help` fast

    if not file.exists():
        return
    for number, path in enumerate((output, *beside(output.resolve()))):
        if path.exists() and file.samefile(path):
            fault = f"writes {path}, which is the input" if number else "is the input"
            raise InvalidField("--output", f"{output} {fault}; name another file")


def _reader(asked: Asked, wanted: Wanted) -> Reader:
    """Raises InvalidField, InputBroken."""
    readers: list[Reader] = []
    try:
        for stdin, texts in itertools.groupby(asked.texts, key=lambda text: text == STDIN):
            given = list(texts)
            if stdin:
                name = Path(STDIN)
                readers.append(open_input(name, asked.input_format, text_field=asked.text_field))
            else:
                readers.append(GivenTexts(given, text_field=asked.text_field))
        if asked.input_file is not None:
            carry = wanted.beside is None
            readers.append(
                open_input(
                    asked.input_file, asked.input_format, text_field=asked.text_field, carry=carry
                )
            )
    except BaseException:
        for each in readers:
            each.close()
        raise
    if not readers:
        raise InvalidField("TEXT", NOTHING_GIVEN)
    return readers[0] if len(readers) == 1 else Several(readers)


def _is_file(path: Path) -> bool:
    """Whether it is a file on a disk, or will be one; unlike /dev/stdout, or a pipe."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _opened(by: ServerConfig | Remote) -> AbstractAsyncContextManager[Tagging]:
    if isinstance(by, ServerConfig):
        from nerve.cli.bulk.local import open_local  # noqa: PLC0415  keeps `--help` fast

        return open_local(by)
    from nerve.cli.bulk.server import open_server  # noqa: PLC0415

    return open_server(by)
