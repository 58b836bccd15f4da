# SPDX-License-Identifier: Apache-2.0
"""Where the command ``defocus-fast`` begins; ``python -m defocus_fast`` is the same."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as of `typing`, which takes a while to load, in which signals come
if TYPE_CHECKING:
    from typing import NoReturn


class _Stopped(BaseException):
    """A signal asks the program to end. Not KeyboardInterrupt: click has a word and a status of its own for that."""


def main() -> None:
    """Run the command line. A signal ends it with a word, the status that shells give, and no half-written file."""
    try:
        minded = _mind_signals()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # not where it is closed
                stream.reconfigure(errors="replace")  # names of files have characters that encodings have not
        from . import cli

        try:
            cli.main()
        except SystemExit:
            import signal

            for number in minded:  # all is done: while Python ends, its own handlers are gone first
                signal.signal(number, signal.SIG_IGN)
            raise
    except _Stopped as stopped:
        _end("interrupted", 128 + stopped.args[0])
    except KeyboardInterrupt:  # before signals were minded
        _end("interrupted", 130)
    except MemoryError:
        _end("Error: not enough memory", 1)
    except RuntimeError as error:
        if str(error) != "can't start new thread":  # for which Python has no class
            raise
        _end(f"Error: not enough memory: {error}", 1)
    except OSError as error:  # the commands answer for files themselves
        what = "the current folder" if isinstance(error, FileNotFoundError) else "standard output"
        _end(f"Error: {error.filename or what}: {error.strerror}", 1)


def _mind_signals() -> list[int]:
    """Have signals raise _Stopped, and return which."""
    import signal

    def stop(number: int, _frame: object) -> NoReturn:
        raise _Stopped(number)

    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as of other commands whose output nobody reads on
    minded = []
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
        number = getattr(signal, name, None)  # not every system has all
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not ignored
            signal.signal(number, stop)
            minded.append(number)
    return minded


def _end(message: str, status: int) -> NoReturn:
    """End at once: the core may still be computing in a thread, and it cannot be stopped."""
    try:
        if discard := getattr(sys.modules.get("defocus_fast._files"), "discard_parts", None):  # not before it is loaded
            discard()
        print(message, file=sys.stderr)
        print(end="", flush=True)
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
