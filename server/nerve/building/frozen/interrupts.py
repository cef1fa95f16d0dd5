"""Runs first in a built program, before what PyInstaller starts with: Ctrl-C only ends it.

`nerve.starting` takes over.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
    signal.signal(signal.SIGINT, signal.SIG_DFL)
