"""The files that ``tlsnode serve --http FOLDER`` answers with: those below the folder, and nothing else."""

from __future__ import annotations

import html
import mimetypes
import os
import stat
import urllib.parse
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

_INDEX: Final = "index.html"
_HTML: Final = "text/html; charset=utf-8"


class Found(NamedTuple):
    """What is at a place.

    Attributes:
        status: What to answer.
        content_type: What kind of thing it is.
        content: It, or the file in which it is.
        size: How long it is, in bytes.
        location: Where it is instead, if it is elsewhere.
    """

    status: HTTPStatus
    content_type: str
    content: bytes | Path
    size: int
    location: str | None = None


def look_up(folder: Path, target: str) -> Found:
    """Return what a request is for: a file, the ``index.html`` of a folder or else a list of what is in it.

    Names that begin with a dot, and links that lead out of the folder, are not there.

    Args:
        folder: The folder.
        target: The target of the request: a path, or a URL.
    """
    # A path may begin with two slashes, which in a URL would be a host.
    try:
        path = target.partition("?")[0] if target.startswith("/") else urllib.parse.urlsplit(target).path
    except ValueError:
        return _not_found()
    path = urllib.parse.unquote(path)
    parts = [part for part in path.split("/") if part]
    if any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return _not_found()
    root = folder.resolve()
    try:
        place = root.joinpath(*parts).resolve()
        if not place.is_relative_to(root):
            return _not_found()
        if place.is_dir():
            if not path.endswith("/"):
                return _moved("/" + "".join(f"{urllib.parse.quote(part)}/" for part in parts))
            index = place / _INDEX
            if not (index.is_file() and index.resolve().is_relative_to(root)):
                return _list(place, "/".join(parts))
            place = index
        elif path.endswith("/"):
            return _not_found()
        facts = place.stat()
        # Nothing that could make the reader wait, such as a pipe.
        if not stat.S_ISREG(facts.st_mode) or not os.access(place, os.R_OK):
            return _not_found()
    except (OSError, RuntimeError):
        return _not_found()
    kind, encoding = mimetypes.guess_type(place.name)
    content_type = kind if kind is not None and encoding is None else "application/octet-stream"
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    return Found(HTTPStatus.OK, content_type, place, facts.st_size)


def _list(place: Path, name: str) -> Found:
    entries = sorted(
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in place.iterdir()
        if not entry.name.startswith(".")
    )
    # A name with a colon is no scheme.
    lines = [
        f'<li><a href="./{urllib.parse.quote(entry, errors="surrogateescape")}">{_escaped(entry)}</a>'
        for entry in entries
    ]
    items = "\n".join(lines)
    title = _escaped(f"/{name}")
    page = f"<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{items}\n</ul>\n"
    return _made(HTTPStatus.OK, page)


def _escaped(name: str) -> str:
    return html.escape(name.encode(errors="replace").decode())


def _not_found() -> Found:
    return _made(HTTPStatus.NOT_FOUND, "<!DOCTYPE html>\n<title>404</title>\n<p>There is no such file.</p>\n")


def _moved(location: str) -> Found:
    return _made(HTTPStatus.MOVED_PERMANENTLY, "")._replace(location=location)


def _made(status: HTTPStatus, page: str) -> Found:
    content = page.encode()
    return Found(status, _HTML, content, len(content))
