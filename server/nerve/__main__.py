"""`nerve`, and `python -m nerve`. Small, so that Ctrl-C is quiet while all else is imported."""

from __future__ import annotations

import signal

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point."""
    catches = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup
    try:
        if catches:  # there is nothing to clean up yet
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        from nerve.cli import main as command  # noqa: PLC0415  see above

        if catches:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:
        if catches:  # nor is there any more
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
