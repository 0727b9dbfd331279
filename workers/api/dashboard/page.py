"""Which files make the dashboard, and how each is given out.

No part of a URL reaches the disk: a name is looked up in a map, or there is no such file. The files
hold no data, so they need no key; what they ask for does.
"""

import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, NamedTuple

from workers.api.http import AnyReply, BytesReply, HttpCall, HttpRefusal

_TEXT: Final = "text/plain; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "app.js": ("app.js", _SCRIPT),
    "asking.js": ("asking.js", _SCRIPT),
    "budgets.js": ("budgets.js", _SCRIPT),
    "charts.js": ("charts.js", _SCRIPT),
    "details.js": ("details.js", _SCRIPT),
    "lists.js": ("lists.js", _SCRIPT),
    "words.js": ("words.js", _SCRIPT),
    "lit-html.js": ("lit-html.js", _SCRIPT),
    "lit-html.LICENSE.txt": ("lit-html.LICENSE.txt", _TEXT),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class StaticFile(NamedTuple):
    """A file as it is sent."""

    data: bytes
    content_type: str
    etag: str


@functools.cache
def static_files() -> Mapping[str, StaticFile]:
    """All files by what stands behind `/dashboard/`, read at the first use."""
    folder = files(__package__) / "static"
    found = {}
    for path, (name, content_type) in _FILES.items():
        data = (folder / name).read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        found[path] = StaticFile(data, content_type, etag)
    return found


def answer(call: HttpCall) -> AnyReply:
    """The file that a call asks for; `path` of the call is what stands behind `/dashboard`."""
    file = static_files().get(call.path.strip("/"))
    if file is None:
        return HttpRefusal(404, "unknown_url", "the dashboard has no such file").reply()
    if call.method not in ("GET", "HEAD"):
        return HttpRefusal(
            405, "method_not_allowed", "the dashboard is read", headers={"Allow": "GET, HEAD"}
        ).reply()
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in call.headers.get("if-none-match", ""):
        return BytesReply(304, headers=headers, content_type=file.content_type)
    data = file.data if call.method == "GET" else b""
    return BytesReply(200, data, headers, file.content_type)
