"""Where lines go: a part that can be resumed and becomes the output when it is whole, or a stream."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from nerve.cli.bulk.journal import CannotResume, Journal, PartBusy, Position, sync_folder
from nerve.cli.bulk.records import OutputBroken, Record

CHECKPOINT_S: Final = 2.0
"""Least time between two positions that are kept; each syncs the output."""
MEMBER_RECORDS: Final = 1000
"""Records of a gzip member: a compressed output can be resumed between two."""


def beside(target: Path) -> tuple[Path, Path, Path, Path]:
    """The part of an output, its journal, and what becomes the output and the journal. Pure."""
    part, journal, new, new_journal = (
        target.with_name(target.name + end)
        for end in (".part", ".part.journal", ".part.new", ".part.journal.new")
    )
    return part, journal, new, new_journal


class Output:
    """Lines in order, and the last position up to which all of them are whole."""

    def __init__(self, head: bytes, *, gzipped: bool) -> None:
        """`head` is what the output begins with."""
        self._head, self._gzipped = head, gzipped
        self._pending: list[bytes] = []
        self._ready: list[bytes] = []
        self.position = Position()
        """Of all lines that were added; its bytes count those that are whole."""
        self.whole = Position()
        """Of those that `take` has given so far, or will give next."""

    def begin(self) -> None:
        """At the begin of the output."""
        if self._head:
            self._pending.append(self._head)
        self.cut()

    def add(self, line: bytes, record: Record, *, failed: bool, truncated: bool) -> None:
        """A line, and the record that it is of."""
        before = self.position
        self._pending.append(line)
        self.position = Position(
            before.records + 1,
            before.output_bytes,
            record.mark.hex(),
            before.failed + failed,
            before.truncated + truncated,
        )
        if not self._gzipped or self.position.records % MEMBER_RECORDS == 0:
            self.cut()

    def cut(self) -> None:
        """What was added so far is whole."""
        content = b"".join(self._pending)
        self._pending.clear()
        if self._gzipped and content:
            content = gzip.compress(content, mtime=0)
        if content:
            self._ready.append(content)
        count = self.position.output_bytes + len(content)
        self.position = self.whole = replace(self.position, output_bytes=count)

    def take(self) -> bytes:
        """What is whole and was not taken yet."""
        content = b"".join(self._ready)
        self._ready.clear()
        return content


class Stream(Output):
    """stdout, or a file that is none on a disk: written at once, never resumed."""

    def __init__(self, sink: BinaryIO, head: bytes, *, gzipped: bool = False) -> None:
        super().__init__(head, gzipped=gzipped)
        self._sink = sink

    def flush(self) -> None:
        """Write what is there. Raises OSError."""
        self._sink.write(self.take())
        self._sink.flush()

    def finish(self) -> None:
        """Write all."""
        self.cut()
        self.flush()


class Part(Output):
    """A file beside the output, with a journal. Open it with `start`; `close` it in the end.

    Raises OutputBroken wherever it cannot be written.
    """

    def __init__(self, target: Path, head: bytes, *, gzipped: bool) -> None:
        """`target` is the output; links are followed."""
        super().__init__(head, gzipped=gzipped)
        self.target = target.resolve()
        self.path, self._journal_path, self._new_path, _ = beside(self.target)
        self._identity: Mapping[str, object] | None = None
        self._file: BinaryIO | None = None
        self._kept_at = 0.0
        self._flushed = Position()
        self._keeping = threading.Lock()
        self.complete = False
        """Whether all of the input is in the part."""
        self.renamed = False
        """Whether that is the output already."""

    def lock(self, *, restart: bool) -> None:
        """Open the part, for nobody else. Raises PartBusy: another process writes it."""
        try:
            self._file = os.fdopen(
                os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "rb+", buffering=0
            )
        except OSError as error:
            raise self._broken(error) from error
        if not _locked(self._file):
            raise PartBusy(str(self.path), "another nerve infer is writing it")
        if not _same(self.path, self._file):
            raise PartBusy(str(self.path), "another nerve infer has just finished it")
        if restart:
            self._file.truncate(0)
            self._journal_path.unlink(missing_ok=True)

    def start(self, identity: Mapping[str, object] | None) -> None:
        """Find out where to go on, and forget what lies behind that.

        Args:
            identity: see `Journal`; None if the input cannot be read again.
        Raises:
            CannotResume: what is there is of another run.
        """
        self._identity = identity
        try:
            known = Journal.read(self._journal_path) if identity is not None else None
            size = os.fstat(self._opened().fileno()).st_size
            if identity is None or known is None or not known.position.records:
                if size and identity is not None and known is None:
                    raise CannotResume(str(self.path), "there is no journal beside it")
                self._start_anew()
            elif not size and not self._was_renamed(known):
                self._start_anew()  # somebody has removed the part
            else:
                known.check(self.path, identity)
                self._go_on(known, size)
            self._kept_at = time.monotonic()
        except OSError as error:
            raise self._broken(error) from error

    def _start_anew(self) -> None:
        self._opened().truncate(0)
        if self._identity is None:  # else one of another run would tell of what is written now
            self._journal_path.unlink(missing_ok=True)
        self._write_journal(Position())  # first: what has bytes has a journal, too
        self.begin()
        self.flush()

    def _go_on(self, known: Journal, size: int) -> None:
        position, file = known.position, self._opened()
        self.position = self.whole = self._flushed = position
        self.complete = known.complete
        if self._was_renamed(known) and not size:
            self.renamed = True
            return
        if size < position.output_bytes:
            fault = f"it has {size} of the {position.output_bytes} bytes that it had"
            raise CannotResume(str(self.path), fault)
        file.truncate(position.output_bytes)
        file.seek(position.output_bytes)

    def _was_renamed(self, known: Journal) -> bool:
        """Whether the part is the output already, and only the journal had to go."""
        try:
            size = self.target.stat().st_size
        except OSError:
            return False
        return known.complete and size == known.position.output_bytes

    def flush(self) -> bool:
        """Write what is whole; whether it is time for `keep`."""
        content = memoryview(self.take())
        try:
            while content:
                content = content[self._opened().write(content) :]
        except OSError as error:
            raise self._broken(error) from error
        self._flushed = self.whole
        return time.monotonic() - self._kept_at >= CHECKPOINT_S

    def keep(self) -> None:
        """Have all that was flushed survive whatever comes. For a thread: it waits for the disk."""
        with self._keeping:
            flushed = self._flushed
            try:
                os.fsync(self._opened().fileno())
                self._write_journal(flushed)
            except OSError as error:
                raise self._broken(error) from error
            self._kept_at = time.monotonic()

    def finish(self, convert: Callable[[Path, Path], None] | None = None) -> None:
        """Make it the output; `convert` writes the second file from the first. For a thread."""
        self.cut()
        self.flush()
        self.complete = True
        self.keep()
        try:
            made = self.path
            if self.renamed:
                made = self.target
            elif convert is not None:
                made = self._new_path
                convert(self.path, made)
            made.replace(self.target)
            sync_folder(self.target.parent)
            self.path.unlink(missing_ok=True)
            self._journal_path.unlink(missing_ok=True)
        except OSError as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Let others have it; an empty one is of no use."""
        if self._file is not None:
            # What an interrupted run has left stays, whatever kept this one from beginning.
            if self._identity is None and not os.fstat(self._file.fileno()).st_size:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _write_journal(self, position: Position) -> None:
        if self._identity is not None:
            Journal(self._identity, position, self.complete).write(self._journal_path)

    def _opened(self) -> Any:  # noqa: ANN401  a raw file
        assert self._file is not None  # `lock` was called
        return self._file

    def _broken(self, error: OSError) -> OutputBroken:
        return OutputBroken(str(self.path), error.strerror or str(error))


def _same(path: Path, file: BinaryIO) -> bool:
    """Whether the file is still the one with that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _locked(file: BinaryIO) -> bool:
    """Take it for this process, where the system has such locks."""
    try:
        import fcntl  # noqa: PLC0415  not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
