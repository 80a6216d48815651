"""What is measured: our gateway, our whole chain, LiteLLM Proxy, nginx; each a process, configured for production."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster
from machine import Process, answers, running, spawn
from sqlalchemy.engine import make_url

from assistant_api import database
from assistant_cluster import stores
from assistant_cluster.server import free_ports
from assistant_crds import contracts, naming
from assistant_crds.contracts import ApiKeyConfig, AssistantConfig, AssistantPolicy, Budget, ModelRoute, TenantPolicy
from assistant_gateway import ledger
from assistant_operator.adapters import postgres as operator_postgres
from assistant_operator.adapters.ledger import Ledger
from assistant_operator.adapters.migrations import Migrations

NAMESPACE = "bench"
PLATFORM = "assistant-platform"
ROUTES = "assistant-platform-routes"
ASSISTANT = "support"
CHAT = "/v1/chat/completions"
IDENTITY = contracts.TenantIdentity(namespace=NAMESPACE, uid="bench", key=naming.tenant_key("bench"))
PROVIDER_KEY = "sk-bench-provider-key"
WIDE = {"requests_per_minute": 10**7, "tokens_per_day": 10**12}  # limits that are counted and never reached
BUDGET = Budget(amount_micros=10**13, currency="USD", period="Month")
TRACED = "0.1"


@dataclass
class Subject:
    """Something that answers chat completions, and the processes whose cost is its own."""

    name: str
    address: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    path: str = CHAT
    processes: list[Process] = field(default_factory=list)
    configuration: str = ""


@dataclass
class Bench:
    """What all subjects share."""

    folder: Path
    core: int  # the subjects'
    mock: str  # host:port
    stack: ExitStack
    allow_hosts: list[str] = field(default_factory=list)  # of tenants' own servers


def policy(**more: AssistantPolicy) -> TenantPolicy:
    """A tenant with an assistant, `more` of them by name, and limits of each kind on both levels."""
    route = ModelRoute(model="mock", provider="bench")
    return contracts.seal(
        TenantPolicy(
            tenant=IDENTITY,
            generation="",
            models_allow=["bench/*"],
            assistants={ASSISTANT: AssistantPolicy(route=route, **WIDE, budget=BUDGET), **more},
            knowledge_bases={},
            time_zone="Europe/Berlin",
            **WIDE,
            budget=BUDGET,
        )
    )


def _traces(bench: Bench) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{bench.mock}", "OTEL_TRACES_SAMPLER_ARG": TRACED}


def start_gateway(bench: Bench, cluster: Cluster, mounted: dict[str, str], number: int = 0) -> Subject:
    """Start the gateway as its pod does, and wait until it is ready. `mounted`: addresses of Redis and the ledger."""
    folder = bench.folder / f"gateway-{number}"
    for name, content in {
        "credentials/token": cluster.token(PLATFORM, "assistant-gateway"),
        "keys/bench": PROVIDER_KEY,
        **{f"secrets/{name}": address for name, address in mounted.items()},
        "catalog.yaml": json.dumps(_catalog(bench)),  # JSON is YAML
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    port, metrics_port = free_ports(2)
    environment = {
        "GATEWAY_NAMESPACE": PLATFORM,
        "GATEWAY_ROUTES_NAMESPACE": ROUTES,
        "GATEWAY_CATALOG_FILE": str(folder / "catalog.yaml"),
        "GATEWAY_PROVIDER_KEYS_DIR": str(folder / "keys"),
        "GATEWAY_SECRETS_DIR": str(folder / "secrets"),
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        "GATEWAY_KUBERNETES_URL": cluster.url,
        "GATEWAY_KUBERNETES_CREDENTIALS_DIR": str(folder / "credentials"),
        "GATEWAY_DRAIN_SECONDS": "0",
        "GATEWAY_STREAM_SECONDS": "1",
        **_traces(bench),
    }
    process = spawn("gateway", [sys.executable, "-m", "assistant_gateway"], environment, folder, bench.core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://127.0.0.1:{metrics_port}/readyz")))
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE, naming.API)}"}
    about = "one process, Redis, limits of each kind on tenant and assistant, ledger in Postgres, 10 % traces"
    return Subject("gateway", f"127.0.0.1:{port}", ASSISTANT, headers, processes=[process], configuration=about)


def _catalog(bench: Bench) -> dict[str, object]:
    prices = {"inputPerMillion": "0.40", "outputPerMillion": "1.60", "maxOutputTokens": 32768}
    provider = {"url": f"http://{bench.mock}/v1", "keyRef": "bench", "models": {"mock": prices}}
    return {"providers": {"bench": provider}, "tenantEndpoints": {"allowHosts": bench.allow_hosts}}


async def tenant_database(postgres: stores.Postgres) -> str:
    """Make the tenant's database as the operator does; return the DSN its pods get."""
    password = secrets.token_hex(16)
    migrations = Migrations(Path(database.__file__).parent / "migrations")
    operator = operator_postgres.Postgres(postgres.dsn, migrations, lambda: None)
    await operator.ensure(operator_postgres.Database(IDENTITY.key, password, connections=40))
    login = make_url(postgres.dsn).set(
        database=naming.database(IDENTITY.key), username=naming.login_role(IDENTITY.key), password=password
    )
    return login.render_as_string(hide_password=False)


def start_api(bench: Bench, cluster: Cluster, gateway: Subject, mounted: dict[str, str], number: int = 0) -> Subject:
    """Start a tenant's API as its pod does, and wait until it is ready. `mounted`: its stores' addresses."""
    folder = bench.folder / f"api-{number}"
    (folder / "stores").mkdir(parents=True)
    absent = {"weaviate_url": "http://127.0.0.1:1", "weaviate_grpc": "127.0.0.1:1", "weaviate_api_key": "none"}
    for name, value in {**absent, **mounted}.items():
        (folder / "stores" / name).write_text(value)
    (folder / "token").write_text(cluster.token(NAMESPACE, naming.API))
    key = "ak_" + secrets.token_urlsafe(32)
    (folder / "tenant.json").write_bytes(contracts.encode(_tenant_config(f"http://{gateway.address}", key)))
    port, metrics_port = free_ports(2)
    environment = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "API_METRICS_PORT": str(metrics_port),
        "API_CONFIG_FILE": str(folder / "tenant.json"),
        "API_SECRETS_DIR": str(folder / "stores"),
        "API_GATEWAY_TOKEN_FILE": str(folder / "token"),
        "API_DRAIN_SECONDS": "0",
        "API_SHUTDOWN_SECONDS": "1",
        **_traces(bench),
    }
    process = spawn("api", [sys.executable, "-m", "assistant_api"], environment, folder, bench.core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://127.0.0.1:{port}/readyz")))
    about = "tenant API (one process, API key, Postgres, Redis, no retrieval) in front of that gateway, 10 % traces"
    return Subject(
        "chain",
        f"127.0.0.1:{port}",
        ASSISTANT,
        {"Authorization": f"Bearer {key}"},
        processes=[process, *gateway.processes],
        configuration=about,
    )


def _tenant_config(gateway_url: str, key: str) -> contracts.TenantConfig:
    assistant = AssistantConfig(
        name=ASSISTANT,
        generation=1,
        display_name="Support",
        description="",
        instructions="Answer from the handbook. Say so when it does not hold the answer.",
        knowledge_bases=[],
        max_chunks=4,
        min_score=0.0,
        created=1_700_000_000,
    )
    return contracts.seal(
        contracts.TenantConfig(
            tenant=IDENTITY,
            generation="",
            gateway_url=gateway_url,
            collection=naming.VECTOR_COLLECTION,
            api_keys=[ApiKeyConfig(name="bench", sha256=hashlib.sha256(key.encode()).hexdigest())],
            assistants=[assistant],
            knowledge_bases=[],
        )
    )


def start_litellm(bench: Bench, program: Path, number: int = 0) -> Subject:
    """Start LiteLLM Proxy as its "Production Best Practices" say, without database and Redis, which cost it time."""
    folder = bench.folder / f"litellm-{number}"
    folder.mkdir()
    key = "sk-" + secrets.token_urlsafe(24)
    model = {"model": "openai/mock", "api_base": f"http://{bench.mock}/v1", "api_key": PROVIDER_KEY}
    config = {
        "model_list": [{"model_name": "mock", "litellm_params": model}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True, "telemetry": False},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    command = [str(program), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_MODE": "PRODUCTION",  # no .env files
        "LITELLM_LOG": "ERROR",  # no line per request
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched at start
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_TELEMETRY": "False",
    }
    process = spawn("litellm", [*command, "--num_workers", "1"], environment, folder, bench.core)
    ready = f"http://127.0.0.1:{port}/health/readiness"
    bench.stack.enter_context(running(process, lambda: answers(ready)))
    about = (
        "one uvicorn worker with uvloop and httptools (its documentation: one per core), master key,"
        " LITELLM_MODE=PRODUCTION, LITELLM_LOG=ERROR, no database, no Redis, no callbacks: without limits, ledger and"
        " traces"
    )
    headers = {"Authorization": f"Bearer {key}"}
    return Subject("litellm", f"127.0.0.1:{port}", "mock", headers, processes=[process], configuration=about)


NGINX = """daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64k; keepalive_requests 1000000000; keepalive_timeout 300;
  upstream mock {{ server {mock}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location = /ready {{ return 200; }}
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def start_nginx(bench: Bench, program: str, number: int = 0) -> Subject:
    """Start nginx as a proxy that passes bytes on at once."""
    folder = bench.folder / f"nginx-{number}"
    folder.mkdir()
    (port,) = free_ports(1)
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, mock=bench.mock, user=_user()))
    command = [program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    process = spawn("nginx", command, {}, folder, bench.core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://127.0.0.1:{port}/ready")))
    about = "one worker, kept-alive connections, proxy_buffering off, no access log: a floor that only passes bytes on"
    return Subject("nginx", f"127.0.0.1:{port}", "mock", processes=[process], configuration=about)


def _user() -> str:
    """As root, nginx would become another user, who may not enter the folder; without root the line is a warning."""
    return "user root;" if os.getuid() == 0 else ""


def start_mock(bench: Bench, program: Path, core: int) -> Subject:
    """Start the model provider that everybody asks, on the core of the load generator."""
    process = spawn("mock", [str(program), "mock", bench.mock], {"GOMAXPROCS": "1"}, bench.folder / "mock", core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://{bench.mock}/v1/models")))
    return Subject("direct", bench.mock, "mock", processes=[process], configuration="the mock itself, without a proxy")


def ledger_of(postgres: stores.Postgres) -> str:
    """Make the ledger's database as the operator does; return the URL that the gateway gets."""
    login = make_url(postgres.dsn).set(
        database=naming.LEDGER, username=naming.login_role(naming.LEDGER), password=secrets.token_hex(16)
    )
    url = login.render_as_string(hide_password=False)
    migrations = Migrations(Path(ledger.__file__).parent / "migrations")
    asyncio.run(Ledger(postgres.dsn, url, migrations, lambda: None).ensure())
    return url


def database_of(postgres: stores.Postgres) -> str:
    """`tenant_database` for callers without a loop."""
    return asyncio.run(tenant_database(postgres))


Start = Callable[[int], Subject]
