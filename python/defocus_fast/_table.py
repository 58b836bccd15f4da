# SPDX-License-Identifier: Apache-2.0
"""The core's table of options (cpp/include/defocus_fast/options.hpp) as signatures and documentation.

``python -m defocus_fast._table > python/defocus_fast/_options.py`` writes it down for those who cannot ask the core.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
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
CALLS = {
    "Estimator": "EstimatorOptions",
    "estimate": "FrameOptions",
    "estimate_into": "StrideOptions",
    "detect_edges": "CannyOptions",
    "domain_transform_filter": "FilterOptions",
    "propagate": "PropagationOptions",
}
HEAD = '''# SPDX-License-Identifier: Apache-2.0
"""The core's table of options, for type checkers and for the command line, which answers before the core is loaded.

Written by ``python -m defocus_fast._table``; see cpp/include/defocus_fast/options.hpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict


class Row(NamedTuple):
    """An option; fields as in the core's OptionInfo."""

    kind: str
    optional: bool
    default: Any
    minimum: float
    maximum: float
    names: tuple[str, ...]
    text: str
    nothing: str'''
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


def description(option: _core.Option) -> str:
    """Everything that the table says about an option."""
    default = f"None: {option.nothing}" if option.nothing else repr(option.default)
    return f"{option.text} Expects {option.expected}; default {default}."


def annotation(option: _core.Option) -> str:
    """Return its type."""
    names = ", ".join(f'"{name}"' for name in option.names)
    known = f"Literal[{names}]" if option.kind == "name" else TYPES[option.kind]
    return f"{known} | None" if option.optional else known


def module() -> str:
    """Return the text of the module _options."""
    lines = [HEAD]
    for call, name in CALLS.items():
        lines += ["", "", f"class {name}(TypedDict, total=False):", f'    """Of ``{call}``."""', ""]
        lines += [f"    {option.name}: {annotation(option)}" for option in _core.option_table(call)]
    lines += ["", "", "# fmt: off", "ESTIMATOR = {"]
    for option in _core.option_table("Estimator"):
        values = (option.kind, option.optional, option.default, option.minimum, option.maximum, tuple(option.names))
        lines.append(f"    {option.name!r}: Row{values!r}(".replace(")(", ","))
        for text, end in (option.text, ","), (option.nothing, "),"):
            wrapped = textwrap.wrap(text, 104, drop_whitespace=False) or [""]
            lines += [f"        {line!r}" for line in wrapped]
            lines[-1] += end
    return "\n".join([*lines, "}"]) + "\n"


if __name__ == "__main__":
    print(module(), end="")
