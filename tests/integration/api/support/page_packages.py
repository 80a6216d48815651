"""The packages that the page is built and looked at with: installed once by its lock, and kept in this machine's cache.

`python tests/integration/api/support/page_packages.py` makes them before the tests, and says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).parents[4] / "api" / "web"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assistant-platform" / "page"
SECONDS = 600


class MissingError(Exception):
    """They cannot be had on this machine."""


def ensure() -> Path:
    """Return a folder with `node_modules`.

    Raises:
        MissingError: there is no npm, or the packages could not be had.
    """
    place = CACHE / hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()[:16]
    if (place / ".ready").exists():
        return place
    if shutil.which("npm") is None:
        raise MissingError("the page's packages need Node and npm, which are not there")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(WEB / name, place / name)
    command = ["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"npm did not install the page's packages within {SECONDS} s") from error
    if done.returncode != 0:
        raise MissingError(f"npm could not install the page's packages: {done.stderr[-1000:]}")
    (place / ".ready").touch()
    return place


if __name__ == "__main__":
    try:
        ensure()
    except MissingError as missing:
        print(missing, file=sys.stderr)
