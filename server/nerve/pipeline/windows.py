"""Long texts in overlapping windows: which token counts where, and how entities are merged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nerve.types import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a text: all of it, what is left after a cut, or one of several windows.

    `ids`, `type_ids` (tokens,) int64; `offsets` (tokens, 2) int64 in code points of the whole
    text; `kept` (tokens,) is False for tokens that the tokenizer added; `pieces` are the
    vocabulary pieces.
    """

    ids: IntArray
    type_ids: IntArray
    offsets: IntArray
    kept: BoolArray
    pieces: list[str]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as rows. `tokens` is the length that it would have uncut, special ones counted.

    Windows are in the order in which transformers makes them: from the end of the text to its
    beginning (`backward`) where the tokenizer truncates on the left.
    """

    windows: tuple[Window, ...]
    tokens: int
    truncated: bool
    backward: bool = False


def total_length(bodies: Sequence[int], overlap: int) -> int:
    """Tokens of a text from the lengths of its windows (no special tokens), which share `overlap`."""
    return sum(bodies) - overlap * (len(bodies) - 1)


def owned(windows: Sequence[Window], overlap: int) -> list[BoolArray]:
    """Which kept tokens of each window count, so that each token of the text counts once.

    Shared tokens are split in the middle: each goes to the window in which it stands further
    from the border, where the model sees more of its context.
    """
    if len(windows) == 1:
        return [windows[0].kept]
    masks = []
    for number, window in enumerate(windows):
        positions = np.flatnonzero(window.kept)
        low = overlap // 2 if number else 0
        high = len(positions) - (overlap - overlap // 2 if number + 1 < len(windows) else 0)
        mask = np.zeros(len(window.kept), dtype=np.bool_)
        mask[positions[low:high]] = True
        masks.append(mask)
    return masks


def joined(windows: Sequence[Window], overlap: int) -> Window:
    """The row that a text would be if it had not been cut.

    Args:
        windows: of one text, in text order, each with at least one kept token if there are several.
        overlap: kept tokens that each window shares with the one before it.
    Returns:
        Every kept token once; what the tokenizer added stays at the two ends of the text only.
    """
    if len(windows) == 1:
        return windows[0]
    parts = []
    for number, window in enumerate(windows):
        positions = np.flatnonzero(window.kept)
        low = int(positions[overlap]) if number else 0
        high = int(positions[-1]) + 1 if number + 1 < len(windows) else len(window.kept)
        parts.append((window, slice(low, high)))
    return Window(
        ids=np.concatenate([window.ids[part] for window, part in parts]),
        type_ids=np.concatenate([window.type_ids[part] for window, part in parts]),
        offsets=np.concatenate([window.offsets[part] for window, part in parts]),
        kept=np.concatenate([window.kept[part] for window, part in parts]),
        pieces=[piece for window, part in parts for piece in window.pieces[part]],
    )


def merge(starts: IntArray, ends: IntArray, scores: Sequence[np.float32]) -> list[int]:
    """Which entities of overlapping windows stay, in text order (contracts: aggregation, 9).

    Of those that begin inside the one before, the longer stays, then the better scored; labels
    are not compared. As in transformers, one of width 0 in front is reported twice.
    """
    order = sorted(range(len(starts)), key=lambda each: int(starts[each]))
    if not order:
        return []
    out: list[int] = []
    held = order[0]
    for each in order:
        if starts[held] <= starts[each] < ends[held]:
            longer = (ends[each] - starts[each]) - (ends[held] - starts[held])
            if longer > 0 or (longer == 0 and scores[each] > scores[held]):
                held = each
        else:
            out.append(held)
            held = each
    out.append(held)
    return out
