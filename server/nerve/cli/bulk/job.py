"""A run of `nerve infer` over an input: reader, tagger, window, encoder and output, joined."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import nerve
from nerve.cli.bulk.encoding import Encoder, new_encoder
from nerve.cli.bulk.feed import Feed, PrefixChanged
from nerve.cli.bulk.formats import Kind, Shape
from nerve.cli.bulk.journal import CannotResume, Position
from nerve.cli.bulk.output import Output, Part, Stream
from nerve.cli.bulk.progress import Count, Teller, telling
from nerve.cli.bulk.records import BadRecord, Failed, Outcome, Reader, Record
from nerve.cli.bulk.window import Tagging, open_window
from nerve.cli.report import remark

EXIT_WITH_ERRORS: Final = 3
"""All is done, and some records have an error in place of entities."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for. `input_file` None: texts of the command line, or stdin."""

    input_file: Path | None
    input_kind: Kind
    output: Shape
    text_field: str
    entities_field: str
    keep_going: bool
    restart: bool

    @property
    def beside(self) -> Path | None:
        """The Parquet file whose columns go into a Parquet file as they are."""
        parquet = self.input_kind is Kind.PARQUET and self.output.kind is Kind.PARQUET
        return self.input_file if parquet else None

    @property
    def in_rows(self) -> bool:
        """Whether errors have a column, whether there are some or not."""
        return self.keep_going and self.output.kind in (Kind.CSV, Kind.PARQUET)

    def encoder(self, reader: Reader) -> Encoder:
        """What writes the records of `reader`."""
        return new_encoder(
            self.output.kind,
            reader.columns if self.output.kind is Kind.CSV else (),
            self.entities_field,
            errors=self.in_rows,
            carry=self.beside is None,
        )

    def identity(self, tagging: Tagging) -> dict[str, object]:
        """All that the output depends on beside the input, by names for people."""
        return {
            "nerve": nerve.__version__,
            "--input-format": self.input_kind.value,
            "--format": self.output.kind.value,
            "compression": self.output.gzipped,
            "--text-field": self.text_field,
            "--entities-field": self.entities_field,
            "the column for errors of --keep-going": self.in_rows,
            **tagging.identity,
        }


class Sink(Protocol):
    """Where outcomes go, in order."""

    @property
    def output(self) -> Output:
        """What collects them."""

    async def flush(self) -> None:
        """Write what is whole."""


class StreamSink:
    """stdout, or what is no file on a disk."""

    def __init__(self, sink: BinaryIO, head: bytes, *, gzipped: bool) -> None:
        self.output: Stream = Stream(sink, head, gzipped=gzipped)
        self.output.begin()

    async def flush(self) -> None:
        """See `Sink.flush`."""
        self.output.flush()


class PartSink:
    """A file that is resumed."""

    def __init__(self, part: Part) -> None:
        self.output: Part = part

    async def flush(self) -> None:
        """See `Sink.flush`; now and then what was written is made to last."""
        if self.output.flush():
            await asyncio.to_thread(self.output.keep)


@dataclass(slots=True)
class Job:
    """One run. `position` is where it is."""

    wanted: Wanted
    reader: Reader
    encoder: Encoder
    sink: Sink

    @property
    def position(self) -> Position:
        """Of what was added to the output."""
        return self.sink.output.position

    async def run(self, tagging: Tagging) -> None:
        """Tag what is left of the input.

        Raises:
            BadRecord: a record has no text, or it cannot be tagged; all before it is written.
            What reading, tagging and writing raise; PrefixChanged.
        """
        begun = self.position
        count = Count(self.reader.total, time.monotonic(), began_records=begun.records)
        with (
            Feed(
                self.reader,
                whole=self.wanted.input_file is not None,
                skip=begun.records,
                mark=bytes.fromhex(begun.mark),
            ) as feed,
            telling(count) as teller,
        ):
            async with open_window(feed.next, tagging.tag, tagging.flight) as window:
                async for chunk in window.outcomes():
                    try:
                        self._add(chunk, teller)
                    finally:
                        await self.sink.flush()

    def _add(self, chunk: list[tuple[Record, Outcome]], teller: Teller) -> None:
        for record, found in chunk:
            outcome = found
            try:
                line = self.encoder.line(record, outcome)
            except (ValueError, TypeError) as error:
                outcome = Failed(str(error))
                line = b""
            failed = isinstance(outcome, Failed)
            if isinstance(outcome, Failed):
                if not self.wanted.keep_going:
                    raise BadRecord(record.source, record.place, outcome.error)
                line = line or self.encoder.line(_bare(record), outcome)
            truncated = not isinstance(outcome, Failed) and outcome.truncated
            self.sink.output.add(line, record, failed=failed, truncated=truncated)
        record, _ = chunk[-1]
        teller.count.advance(read=record.read, records=self.position.records)
        teller.tell()


def _bare(record: Record) -> Record:
    """Without what does not fit into the output."""
    return Record(record.source, record.place, "", record.mark, record.read, record.size)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: `opened` gives who tags."""

    wanted: Wanted
    reader: Reader
    encoder: Encoder
    opened: AbstractAsyncContextManager[Tagging]


async def run_stream(plan: Plan, sink: BinaryIO) -> Position:
    """Write to what cannot be resumed. Raises as `Job.run`."""
    async with plan.opened as tagging:
        gzipped = plan.wanted.output.gzipped
        writing = StreamSink(sink, plan.encoder.head(), gzipped=gzipped)
        job = Job(plan.wanted, plan.reader, plan.encoder, writing)
        try:
            await job.run(tagging)
        except asyncio.CancelledError:
            remark(f"stopped after {job.position.records} texts; this cannot be gone on with")
            raise
        writing.output.finish()
        return job.position


async def run_part(plan: Plan, part: Part) -> Position:
    """Write a part that becomes the output when it is whole; `part` is locked.

    Raises as `Job.run`, CannotResume; what has been tagged is kept.
    """
    wanted, reader = plan.wanted, plan.reader
    resumable = wanted.input_file is not None
    async with plan.opened as tagging:
        part.start(wanted.identity(tagging) if resumable else None)
        if begun := part.position.records:
            remark(f"going on after {begun} texts that are in {part.path}")
        job = Job(wanted, reader, plan.encoder, PartSink(part))
        try:
            if not part.renamed:  # a whole part, too: the input may be another one, or longer
                part.complete = False
                await job.run(tagging)
            await _finish(wanted, part)
        except PrefixChanged:
            fault = f"the first {begun} records of {reader.name} are not those that it was made of"
            raise CannotResume(str(part.path), fault) from None
        except asyncio.CancelledError:
            remark(_stopped(part, resumable=resumable))
            raise
        finally:
            if not part.complete:
                part.flush()
                part.keep()
        return part.position


def _stopped(part: Part, *, resumable: bool) -> str:
    done = f"stopped after {part.whole.records} texts, which are in {part.path}"
    return f"{done}; the same command goes on" if resumable else f"{done}; stdin is not read again"


async def _finish(wanted: Wanted, part: Part) -> None:
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise InterruptedError  # a kind of OSError: nothing is renamed

    def convert(lines: Path, target: Path) -> None:
        from nerve.cli.bulk.parquet_writing import Conversion  # noqa: PLC0415  an extra

        conversion = Conversion(
            lines, wanted.beside, wanted.text_field, wanted.entities_field, errors=wanted.keep_going
        )
        conversion.write(target, check)

    parquet = wanted.output.kind is Kind.PARQUET
    try:
        await asyncio.to_thread(part.finish, convert if parquet else None)
    finally:
        stop.set()


def told(position: Position) -> int:
    """Say what should be known of a run that is over; the exit status."""
    if position.truncated:
        print(
            f"{position.truncated} of {position.records} texts were cut because they are longer "
            "than the model; tokenizer.stride in config.yaml tags them whole",
            file=sys.stderr,
        )
    if not position.failed:
        return 0
    remark(f"{position.failed} of {position.records} records have an error in place of entities")
    return EXIT_WITH_ERRORS
