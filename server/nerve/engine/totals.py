"""What an engine has run so far, in all and by batch size. Pure."""

from __future__ import annotations

from nerve.types import BatchTotals, CostModel, EngineStatistics


class Totals:
    """Counts runs."""

    def __init__(self) -> None:
        self._rows = self._tokens = self._padded = 0
        self._sizes: dict[int, BatchTotals] = {}

    def count(
        self,
        rows: int,
        *,
        tokens: int,
        padded_tokens: int,
        padding_s: float,
        running_s: float,
        output_s: float,
    ) -> None:
        """A run of so many rows; the seconds are those that `BatchTotals` adds up."""
        self._rows += rows
        self._tokens += tokens
        self._padded += padded_tokens
        before = self._sizes.get(rows) or BatchTotals(rows)
        self._sizes[rows] = BatchTotals(
            rows,
            before.runs + 1,
            before.padding_s + padding_s,
            before.running_s + running_s,
            before.output_s + output_s,
        )

    def statistics(self, *, queued_rows: int, cost: CostModel | None) -> EngineStatistics:
        """Everything counted, beside what is said of the queue now."""
        sizes = tuple(self._sizes[rows] for rows in sorted(self._sizes))
        batches = sum(each.runs for each in sizes)
        return EngineStatistics(
            batches, self._rows, self._tokens, self._padded, queued_rows, cost, sizes
        )
