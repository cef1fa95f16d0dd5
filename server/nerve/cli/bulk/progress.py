"""What a run tells on stderr while it goes on: a bar where somebody looks, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nerve.cli.report import remark

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_S: Final = 30.0
"""Between two lines, where nobody looks."""


@dataclass(slots=True)
class Count:
    """How far a run is; pure but for the clock that its callers read.

    `read` of `total` of the input are done, as the reader counts; `began_read` and `began_records`
    were when it began, at `began` (monotonic seconds).
    """

    total: int | None
    began: float
    began_read: int | None = None
    began_records: int = 0
    read: int = 0
    records: int = 0

    def advance(self, *, read: int, records: int) -> None:
        """So much is done now."""
        if self.began_read is None:
            self.began_read = 0 if not self.began_records else read
        self.read, self.records = read, records

    def rate(self, now: float) -> float:
        """Records a second, of this run."""
        took_s = now - self.began
        return (self.records - self.began_records) / took_s if took_s > 0 else 0.0

    def left_s(self, now: float) -> float | None:
        """Seconds that the rest will take, by the share of the input that is read; None if unknown."""
        if not self.total or self.began_read is None or self.read <= self.began_read:
            return None
        done = self.read - self.began_read
        return max(0, self.total - self.read) * (now - self.began) / done

    def line(self, now: float) -> str:
        """A sentence."""
        parts = [f"{self.records:,} texts", f"{self.rate(now):.0f} a second"]
        if self.total:
            parts.append(f"{min(1.0, self.read / self.total):.0%} of the input")
        if (left_s := self.left_s(now)) is not None:
            parts.append(f"{told_s(left_s)} left")
        return ", ".join(parts)


def told_s(seconds: float) -> str:
    """A duration for people. Pure."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Teller:
    """Shows a count."""

    def __init__(self, count: Count) -> None:
        self.count = count

    def tell(self) -> None:
        """It has changed."""


@dataclass(slots=True)
class _Lines(Teller):
    count: Count
    _told_at: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= LINE_S:
            self._told_at = now
            remark(self.count.line(now))


class _Bar(Teller):
    def __init__(self, count: Count, progress: Progress) -> None:
        super().__init__(count)
        self._progress = progress
        self._task = progress.add_task("", total=count.total)

    def tell(self) -> None:
        self._progress.update(
            self._task, completed=self.count.read, description=self.count.line(time.monotonic())
        )


@contextmanager
def telling(count: Count) -> Iterator[Teller]:
    """Until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines(count)
        return
    from rich.console import Console  # noqa: PLC0415  only when there is a bar
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(count, progress)
