"""The built files of the page, as `api/web/` makes them (decision 77): read once, at start, and compressed once."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
ASSETS = "assets"
DIGEST = "sources.sha256"  # of what the built files come of
# The framework adds the charset to text.
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

# Nothing comes from elsewhere, nothing is inline, and strings become no markup but by the one policy of the page's
# framework, which makes its own templates with it: words of models, documents and people never are markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


@dataclass(frozen=True)
class File:
    """One file; `packed` is what most browsers get."""

    content: bytes
    media_type: str
    packed: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", gzip.compress(self.content, 9, mtime=0))


class Files:
    """The page in memory; a name that is not among `assets` is no file of it."""

    def __init__(self, index: File, assets: dict[str, File]) -> None:
        self.index = index
        self.assets = assets

    @classmethod
    def load(cls, folder: Path = STATIC) -> Files:
        """Read the page."""
        assets = {path.name: _file(path) for path in (folder / ASSETS).iterdir() if path.suffix in MEDIA_TYPES}
        return cls(_file(folder / INDEX), assets)


def _file(path: Path) -> File:
    return File(path.read_bytes(), MEDIA_TYPES[path.suffix])
