"""What is loaded when: LiteLLM only where a provider needs it, and then before it is called."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import pytest

from assistant_gateway import errors
from assistant_gateway.providers import client
from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.client import ProviderClient
from assistant_gateway.providers.egress import GuardedResolver
from assistant_gateway.providers.openai_wire import Upstream

FIELDS = {"model": msgspec.Raw(b'"m"'), "messages": msgspec.Raw(b"[]")}
KEYED = Provider(kind="anthropic", key_ref="a", url="http://127.0.0.1:9")


def test_a_gateway_without_translated_providers_runs_without_litellm(tmp_path: Path) -> None:
    """Neither starting it nor reading prices nor looking whether it will be needed imports LiteLLM."""
    (tmp_path / "catalog.yaml").write_text("providers: {a: {url: http://127.0.0.1:9/v1}}")
    program = """
        import asyncio, sys
        from pathlib import Path
        from assistant_gateway.config import Settings
        from assistant_gateway.providers.price_map import PriceMap
        from assistant_gateway.providers import client
        from assistant_gateway.server import Server

        client.LOOK_SECONDS = 0.01

        async def main(folder):
            settings = Settings(
                namespace="p", routes_namespace="r", catalog_file=folder / "catalog.yaml", provider_keys_dir=folder,
                host="127.0.0.1", port=0, metrics_port=0, kubernetes_url="http://127.0.0.1:9",
                kubernetes_credentials_dir=folder,
            )
            server = Server(settings)
            await server.start()
            assert server.port
            await asyncio.sleep(0.2)  # longer than between two looks at the catalogue
            assert PriceMap.installed().price("anthropic", "claude-haiku-4-5") is not None
            await server.stop(drain_seconds=0)

        asyncio.run(main(Path(sys.argv[1])))
        status = Path("/proc/self/status").read_text()
        print("litellm" in sys.modules, "httpx" in sys.modules, status.split("VmRSS:")[1].split()[0])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    litellm, httpx, resident = ran.stdout.splitlines()[-1].split()
    assert (litellm, httpx) == ("False", "False")
    assert int(resident) <= 100 * 1024


class Translations:
    """Counts how often LiteLLM would have been loaded."""

    def __init__(self) -> None:
        self.loaded = threading.Event()

    def load(self) -> None:
        """Note it."""
        assert threading.current_thread() is not threading.main_thread()
        self.loaded.set()


async def test_litellm_is_loaded_when_the_catalogue_gets_a_provider_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for providers that speak the OpenAI wire; without a call; beside the event loop."""
    translations = Translations()
    monkeypatch.setattr(client, "_translations", lambda: translations)
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.001)
    targets = {"o": target("o", Provider(url="http://127.0.0.1:9/v1"), None)}
    loading = asyncio.create_task(client.preload(lambda: targets))
    await asyncio.sleep(0.05)
    assert not translations.loaded.is_set()
    targets["a"] = target("a", KEYED, "sk-0123456789")
    await loading
    assert translations.loaded.is_set()


async def test_loading_does_not_hold_up_the_event_loop_and_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first calls wait for one import, beside the loop, which goes on."""
    upstream = Upstream(GuardedResolver(list))
    dispatcher = ProviderClient(upstream, 1000)
    begun, free = [], asyncio.Event()

    def load() -> object:
        begun.append(1)
        asyncio.run_coroutine_threadsafe(free.wait(), loop).result()  # the loop has to run for this to end
        raise ImportError("no litellm")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(dispatcher, "_load", load)
    provider = target("a", KEYED, "sk-0123456789")
    calls = [asyncio.create_task(dispatcher.send(provider, embedding=False, fields=FIELDS, trace={})) for _ in range(2)]
    await asyncio.sleep(0.05)
    calls.append(asyncio.create_task(dispatcher.send(provider, embedding=False, fields=FIELDS, trace={})))
    calls[0].cancel()  # one that hangs up does not end it for the others
    await asyncio.sleep(0)
    free.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    await upstream.close()
    assert len(begun) == 1
    assert isinstance(found[0], asyncio.CancelledError)
    for error in found[1:]:
        assert isinstance(error, errors.GatewayError)
        assert (error.status, error.code) == (502, "translation_unavailable")
