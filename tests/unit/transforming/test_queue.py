"""What becomes of an answer that is none; the queue with a process is in test_host."""

from __future__ import annotations

import pytest

from nerve.errors import TransformFailed
from nerve.transforming.queue import TransformQueue
from nerve.transforming.wire import Frame, Kind
from nerve.types import Limits


@pytest.mark.parametrize("kind", [Kind.FAILED, Kind.WRONG, Kind.LIMIT])
def test_what_a_process_says_is_one_line_for_a_terminal(kind: Kind) -> None:
    """Though the sandbox sees to that: the process is not to be trusted."""
    queue = TransformQueue("ner", b"", Limits(1, 2, 3))
    with pytest.raises(TransformFailed) as caught:
        queue._checked(Frame(kind, 0, bytearray(b"boom\n2030 FAKE\x1b[31m\r\0\t.")))
    assert r"boom\n2030 FAKE\x1b[31m\r\x00 ." in str(caught.value)
    assert str(caught.value).isprintable()
