"""Official downloads, verified against the publisher's checksum file.

The checksum comes from the same place as the file: it protects from broken transfers, not from a publisher's
compromised server. Building from source goes through Go's checksum database and our go.sum instead.
"""

import hashlib
import http.client
import io
import re
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from assistant_cluster.tools import ARCHITECTURE, Tool

CONNECT_SECONDS = 5


class DownloadError(Exception):
    """Why there was no download."""


def fetch(tool: Tool, program: str, target: Path) -> None:
    """Download one program of a tool to `target`."""
    values = {
        "version": tool.version,
        "bare": tool.version.removeprefix("v"),
        "arch": ARCHITECTURE,
        "program": program,
    }
    url = tool.download.url.format(**values)
    expected = find_checksum(_get(tool.download.checksum.format(**values)).decode(errors="replace"), Path(url).name)
    content = _get(url)
    actual = hashlib.sha256(content).hexdigest()
    if expected is None or actual != expected:
        raise DownloadError(f"{url} has SHA-256 {actual}, its publisher says {expected or 'nothing'}")
    if tool.download.member:
        content = _member(content, tool.download.member.format(**values), url)
    target.write_bytes(content)
    target.chmod(0o755)


def find_checksum(text: str, file: str) -> str | None:
    """The SHA-256 of `file` in a checksum file: either the bare digest, or lines `digest  name`."""
    if bare := re.fullmatch(r"\s*([0-9a-fA-F]{64})\s*", text):
        return bare[1].lower()
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(\S+)", line.strip())
        if match and Path(match[2]).name == file:
            return match[1].lower()
    return None


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 - https, from our table
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url} answered {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url} is not reachable: {getattr(error, 'reason', error)}") from error
    return content


def _member(archive: bytes, name: str, url: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for entry in tar:
                if entry.isfile() and entry.name.removeprefix("./") == name and (file := tar.extractfile(entry)):
                    return file.read()
    except tarfile.TarError as error:
        raise DownloadError(f"{url} is not a readable archive: {error}") from error
    raise DownloadError(f"{url} holds no {name}")
