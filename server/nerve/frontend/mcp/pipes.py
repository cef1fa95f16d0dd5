"""Takes stdin and stdout for the protocol, before anything else can read or write there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Pipes(NamedTuple):
    """Descriptors of the protocol; children do not inherit them."""

    read_fd: int
    write_fd: int


@contextmanager
def claimed() -> Iterator[Pipes]:
    """Until the end of the block stdin has nothing, and what is printed goes to stderr."""
    pipes = Pipes(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield pipes
    finally:  # the private ones stay open: a thread may still be waiting in one
        os.dup2(pipes.read_fd, 0)
        os.dup2(pipes.write_fd, 1)
