"""A tenant with people and knowledge, its API and worker as processes, and Chromium that looks at its page."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator

import msgspec
import pytest
from accounts_world import EMAIL, PASSWORD
from api_gateway import FakeGateway
from api_process import ApiProcess, api_process, assistant, document
from api_tenant import make_tenant
from page_visits import SECONDS
from playwright.sync_api import Browser, sync_playwright
from worker_process import worker_process

from assistant_api.auth.tokens import SEED_BYTES, encode64
from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import seal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS = "the page's tests need Chromium: apt-get install chromium fonts-noto-core"


@pytest.fixture(scope="module")
def api(
    postgres: stores.Postgres,
    weaviate_store: stores.Weaviate,
    gateway: FakeGateway,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApiProcess]:
    """The API of a tenant with the assistants `plain` and `support`, which knows the handbook, and its worker."""
    if CHROMIUM is None:
        pytest.skip(NEEDS)
    tenant = asyncio.run(make_tenant(postgres, weaviate_store, ["handbook"]))
    folder = tmp_path_factory.mktemp("page")
    admin = folder / "admin"
    admin.mkdir()
    (admin / "email").write_text(EMAIL)
    (admin / "password").write_text(PASSWORD)
    assistants = [assistant("plain", instructions=""), assistant("support", "handbook")]
    assistants[0] = msgspec.structs.replace(assistants[0], description="Answers from what it has learned.")
    assistants[1] = msgspec.structs.replace(assistants[1], description="Answers from the handbook, with sources.")
    config = document(gateway.url, assistants, tenant.knowledge_bases, key=tenant.key)
    keys = {name: encode64(secrets.token_bytes(SEED_BYTES)).decode() for name in (naming.SIGNING_KEY, naming.AUDIT_KEY)}
    with (
        api_process(folder / "pod", seal(config), {**tenant.mounted(), **keys}, admin_dir=str(admin)) as api,
        worker_process(folder / "worker", tenant, gateway.url),
    ):
        api.wait_ready()
        yield api


@pytest.fixture(scope="module")
def chromium(api: ApiProcess) -> Iterator[Browser]:
    """One browser for all tests, started when all else is there: its library keeps an event loop in this thread."""
    del api
    assert CHROMIUM is not None
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=SECONDS * 1000)
        try:
            yield browser
        finally:
            browser.close()
