# SPDX-License-Identifier: Apache-2.0
"""Where the command ``defocus-fast`` begins; ``python -m defocus_fast`` is the same."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


class _Stopped(BaseException):
    """A signal asks the program to end. Not KeyboardInterrupt: click has a word and a status of its own for that."""


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped(number)


def main() -> None:
    """Run the command line. A signal ends it with a word, the status that shells give, and no half-written file."""
    try:
        for name in ("SIGHUP", "SIGINT", "SIGTERM"):
            number = getattr(signal, name, None)  # not every system has all
            if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not ignored
                signal.signal(number, _stop)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # not where it is closed
                stream.reconfigure(errors="replace")  # names of files have characters that encodings have not
        from . import cli  # which takes a while, in which signals come

        cli.main()
    except (_Stopped, KeyboardInterrupt) as stopped:
        with contextlib.suppress(OSError):
            print("interrupted", file=sys.stderr)
            sys.stdout.flush()
        # The core may still be computing in its thread, and it cannot be stopped: do not wait for it.
        os._exit(128 + (stopped.args or [signal.SIGINT])[0])


if __name__ == "__main__":
    main()
