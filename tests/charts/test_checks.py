"""The checks of `helm test`, run against real stores: they pass when all is well, and name what is not."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ledger_database import make_ledger

from assistant_cluster import stores

FILES = Path(__file__).parents[2] / "charts" / "assistant-platform" / "files"


class Parts(BaseHTTPRequestHandler):
    """Operator and gateway as far as the checks go: ready, and closed to strangers."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 401)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The checks' environment, with the three real stores behind it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parts)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    secrets = tmp_path_factory.mktemp("secrets")
    with stores.postgres() as postgres, stores.redis() as redis, stores.weaviate() as weaviate:
        for name, value in {
            "postgres_dsn": postgres.dsn,
            "ledger_url": asyncio.run(make_ledger(postgres)),
            "redis_operator_url": redis.operator_url,
            "redis_gateway_url": redis.gateway_url,
            "weaviate_url": weaviate.url,
            "weaviate_api_key": weaviate.api_key,
        }.items():
            (secrets / name).write_text(value)
        url = f"http://127.0.0.1:{server.server_port}"
        names = ("OPERATOR_URL", "GATEWAY_URL", "GATEWAY_METRICS_URL")
        yield dict.fromkeys(names, url) | {"SECRETS_DIR": str(secrets)}
    server.shutdown()
    server.server_close()


def run(settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(FILES / "installation.py")],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_all_is_well(settings: dict[str, str]) -> None:
    """Nine checks, nine lines, success."""
    done = run(settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[:5].strip() for line in done.stdout.splitlines()] == ["ok"] * 9


def test_what_is_wrong_is_named_and_no_password_shown(settings: dict[str, str], tmp_path: Path) -> None:
    """A wrong password, a closed port and a dead gateway are three failures; the rest is still checked."""
    secrets = shutil.copytree(settings["SECRETS_DIR"], tmp_path / "secrets")
    url = (secrets / "redis_gateway_url").read_text()
    password = url.split(":")[2].partition("@")[0]
    (secrets / "redis_gateway_url").write_text(url.replace(password, "not-the-password"))
    (secrets / "postgres_dsn").write_text("postgresql://assistant_operator:hidden@127.0.0.1:1/postgres")
    done = run(settings | {"SECRETS_DIR": str(secrets), "GATEWAY_METRICS_URL": "http://127.0.0.1:1"})
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split(": ")[0][6:] for line in failed] == [
        "gateway is ready",
        "postgres as operator",
        "redis as gateway",
    ]
    assert len(done.stdout.splitlines()) == 9
    for word in ("hidden", "not-the-password", password):
        assert word not in done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(FILES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_sh(script: Path) -> None:
    """The images' sh may be dash or busybox."""
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr


def test_redis_is_ready_once_it_answers(tmp_path: Path) -> None:
    """The probe's script says yes to a running Redis, no to one with another password and to none at all."""
    with stores.redis() as redis:
        url = urlsplit(redis.operator_url)

        def probe(password: str) -> "subprocess.CompletedProcess[str]":
            (tmp_path / "operator-password").write_text(password)
            settings = {"SECRETS_DIR": str(tmp_path), "REDIS_PORT": str(url.port)}
            return subprocess.run(
                ["sh", str(FILES / "redis-ready.sh")],
                env=os.environ | settings,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )

        assert probe(str(url.password)).returncode == 0
        refused = probe("wrong")
        assert refused.returncode == 1
        assert "redis: " in refused.stdout
    assert probe(str(url.password)).returncode == 1
