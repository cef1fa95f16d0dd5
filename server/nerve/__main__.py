"""`nerve`, and `python -m nerve`. Small, so that Ctrl-C is quiet while all else is imported."""

from __future__ import annotations

from collections.abc import Callable

from nerve.starting import begin


def main() -> None:
    """Entry point."""
    begin(_command)


def _command() -> Callable[[], None]:
    from nerve.cli import main as command  # noqa: PLC0415  see above

    return command


if __name__ == "__main__":
    main()
