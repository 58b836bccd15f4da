# SPDX-License-Identifier: Apache-2.0
"""The core's table of options (cpp/include/defocus_fast/options.hpp) as signatures and documentation."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from . import _core

TYPES = {
    "flag": "bool",
    "integer": "int",
    "number": "float",
    "text": "str",
    "path": "str | os.PathLike[str]",
    "object": "Callable[[str, list[int], int], object]",
}
F = TypeVar("F", bound=Callable[..., Any])


def takes(call: str) -> Callable[[F], F]:
    """Give a function whose keyword arguments go to the core the signature and documentation of the core's `call`."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters += [
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation(option)
            )
            for option in _core.option_table(call)
        ]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        if function.__doc__:  # not with python -OO
            function.__doc__ = document(function.__doc__, call)
        return function

    return decorate


def document(text: str, call: str) -> str:
    """Fill in the options of `call` for "{options}"."""
    before = text.split("{options}")[0]
    indent = before[before.rfind("\n") + 1 :]
    entries = []
    for option in _core.option_table(call):
        entry = f"{option.name}: {description(option)}"
        entries.append(textwrap.fill(entry, 120, initial_indent=indent, subsequent_indent=indent + "    "))
    return text.replace(indent + "{options}", "\n".join(entries))


def description(option: SimpleNamespace) -> str:
    """Everything that the table says about an option."""
    default = f"None: {option.nothing}" if option.nothing else repr(option.default)
    return f"{option.text} Expects {option.expected}; default {default}."


def annotation(option: SimpleNamespace) -> str:
    """Return its type."""
    names = ", ".join(f'"{name}"' for name in option.names)
    known = f"Literal[{names}]" if option.kind == "name" else TYPES[option.kind]
    return f"{known} | None" if option.optional else known
