# SPDX-License-Identifier: Apache-2.0
"""XMP sidecars: a rating or a label is put into the file beside a photograph, and all else that is in it stays."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO, Any

from lxml import etree  # type: ignore[import-untyped]

from ._files import write_whole

_NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "darktable": "http://darktable.sf.net/",
}
_EMPTY = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="defocus_fast"><rdf:RDF xmlns:rdf="{_NAMESPACES["rdf"]}">
</rdf:RDF></x:xmpmeta>""".encode()
_LARGEST = 64 << 20  # bytes; sidecars with long histories and masks have a few MB
_RATING = {"xmp:Rating": "5"}
# digiKam looks at its own number first, and takes 0 for "none" without looking further.
_LABEL = {"xmp:Label": "Green", "digiKam:ColorLabel": "4"}
MARKS = {"rating": _RATING, "label": _LABEL}
# Where a photographer's decision may stand, and what is none: darktable gives new photographs one star.
_DECISIONS = {"rating": ("xmp:Rating",), "label": (*_LABEL, "darktable:colorlabels")}
_UNDECIDED = {"rating": ("", "0", "1"), "label": ("", "0")}


def mark(path: Path, kind: str) -> str:
    """Put a rating or a label into a sidecar, which is made if it is absent; return what the photographer has there.

    If the photographer has given another rating than 0 or 1, or another label, that is returned and the file is left as
    it is. Otherwise "" is returned, and the file holds the mark. It is replaced as a whole.

    Args:
        path: of the sidecar. Where it is a link, its target is written.
        kind: "rating" makes xmp:Rating 5; "label" makes xmp:Label Green, and digiKam:ColorLabel the same.

    Raises:
        ValueError: the file is not XMP, has a document type, which XMP has not, or more than 64 MB.
        OSError: it cannot be read or written.
    """
    target = Path(os.path.realpath(path))
    mode = None
    content = _EMPTY
    with contextlib.suppress(FileNotFoundError):
        found = target.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise ValueError(f"expected an XMP sidecar of at most {_LARGEST >> 20} MB")
        mode = stat.S_IMODE(found.st_mode)
        content = target.read_bytes()
    root = _parse(content)
    rdf = next(root.iter(_name("rdf:RDF")), None)
    if rdf is None:
        raise ValueError("expected an XMP sidecar, got XML without rdf:RDF")
    descriptions = rdf.findall(_name("rdf:Description"))
    marks = MARKS[kind]
    for name in _DECISIONS[kind]:
        for description in descriptions:
            value = _value(description, name)
            if value not in (*_UNDECIDED[kind], marks.get(name)):
                return value
    changes = [_set(rdf, descriptions, name, value) for name, value in marks.items()]
    if any(changes):
        whole = etree.tostring(root.getroottree(), encoding="UTF-8", xml_declaration=True)

        def write(file: IO[bytes]) -> None:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(whole + b"\n")

        write_whole(target, write)
    return ""


def _name(name: str) -> str:
    """Return prefix:name as lxml writes it."""
    prefix, name = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{name}"


def _value(description: Any, name: str) -> str:
    """Return a property, "" if it is absent; a list's members follow each other. It is an attribute or an element."""
    value = description.get(_name(name))
    if value is None and (element := description.find(_name(name))) is not None:
        value = " ".join(text for part in element.itertext() if (text := part.strip()))
    return (value or "").strip().removesuffix(".0")


def _set(rdf: Any, descriptions: list[Any], name: str, value: str) -> bool:
    """Set a property wherever it stands, or else in a description of its own; return whether anything is changed."""
    changed = False
    placed = False
    for description in descriptions:
        element = description.find(_name(name))
        if element is None and description.get(_name(name)) is None:
            continue
        placed = True
        changed = changed or _value(description, name) != value
        if element is None:
            description.set(_name(name), value)
        else:
            element.text = value
    if not placed:
        # Not among another's attributes: there the namespace might have no prefix, or another program's.
        about = _name("rdf:about")
        prefix = name.split(":")[0]
        added = etree.SubElement(rdf, _name("rdf:Description"), nsmap={prefix: _NAMESPACES[prefix]})
        added.set(about, descriptions[0].get(about, "") if descriptions else "")
        added.set(_name(name), value)
        added.tail = "\n"
    return changed or not placed


def _parse(content: bytes) -> Any:
    # Entities could name files or grow without end. The parser expands none, and only a document type can define any.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"expected an XMP sidecar, got a file that is no XML: {error.msg}") from None
    if root.getroottree().docinfo.doctype:
        raise ValueError("expected an XMP sidecar, got XML with a document type")
    return root
