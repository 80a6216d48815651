"""Build the page: describe the API, generate its types, check all sources, and bundle them into the API's package.

`make page` runs it; Node and npm are needed for this only. What it makes is checked in, so that images, developers and
tests need neither (decision 77). `--into FOLDER` builds elsewhere, with the sources' environment in that folder's
parent, and writes nothing here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

from assistant_api.app import create_app
from assistant_api.clients import Clients
from assistant_api.description import complete
from assistant_api.i18n import Catalogs
from assistant_api.page.files import DIGEST, STATIC
from assistant_api.tenant_config import TenantConfigHolder

HERE = Path(__file__).parent
LOCALES = HERE.parents[1] / "locales"
INPUTS = ("index.html", "package-lock.json", "vite.config.js")  # beside `src`
SECONDS = 600


def digest() -> str:
    """Return the SHA-256 of everything that the built files come of."""
    sources = sorted(path for path in (HERE / "src").rglob("*") if path.is_file() and path.name != "schema.d.ts")
    found = hashlib.sha256()
    for path in [*sources, *(HERE / name for name in INPUTS)]:
        found.update(f"{path.relative_to(HERE).as_posix()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def description() -> dict[str, Any]:
    """Return the OpenAPI description as the API serves it."""
    clients = cast("Any", Clients)(*[cast("Any", None)] * 4)
    edge = create_app(TenantConfigHolder(Path("/nonexistent")), clients, Catalogs.load(LOCALES))
    return complete(cast("Any", edge.app).openapi_schema.to_schema())


def build(work: Path, into: Path) -> None:
    """Build in `work`, which holds the sources; CalledProcessError when a step fails, with its words on stderr."""
    if not (work / "node_modules").is_dir():
        _run(work, "npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts")
    (work / "description.json").write_text(json.dumps(description()))
    for step in ("types", "check", "build"):
        _run(work, "npm", "run", "--silent", step, PAGE_OUT=str(into))
    (into / DIGEST).write_text(f"{digest()}\n")


def copy_sources(work: Path) -> None:
    """Put the sources of this folder into another one, in place of older ones."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "src", ignore_errors=True)
    shutil.copytree(HERE / "src", work / "src")
    for name in (*INPUTS, "package.json", "tsconfig.json"):
        shutil.copy(HERE / name, work / name)


def _run(folder: Path, *command: str, **environment: str) -> None:
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True, timeout=SECONDS)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--into", type=Path)
    chosen: Path | None = options.parse_args().into
    if chosen is None:
        build(HERE, STATIC)
    else:
        copy_sources(chosen.parent)
        build(chosen.parent, chosen)
