"""Gateways of others that are measured beside ours, each as it is meant to be run: Portkey, and Envoy as a floor."""

from __future__ import annotations

import json
from pathlib import Path

from machine import answers, running, spawn
from subjects import PROVIDER_KEY, Bench, Subject

from assistant_cluster.server import free_ports

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def start_portkey(bench: Bench, program: tuple[str, Path], number: int = 0) -> Subject:
    """Start Portkey's open gateway on Node; which provider it asks is said by each request's headers."""
    node, script = program
    folder = bench.folder / f"portkey-{number}"
    folder.mkdir()
    (port,) = free_ports(1)
    command = [node, str(script), f"--port={port}", "--headless"]
    process = spawn("portkey", command, {"NODE_ENV": "production"}, folder, bench.core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://127.0.0.1:{port}/")))
    headers = {
        "Authorization": f"Bearer {PROVIDER_KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://{bench.mock}/v1",
    }
    about = (
        "one Node process, headless, NODE_ENV=production, provider and host in the request's headers: without"
        " identities, limits, ledger, metrics and traces; its server keeps Node's own Response, or streams fail"
    )
    return Subject("portkey", f"127.0.0.1:{port}", "mock", headers, processes=[process], configuration=about)


def _envoy(port: int, admin: int, mock: str) -> dict[str, object]:
    """Return a configuration that passes everything on to the mock."""
    host, _, upstream = mock.partition(":")
    route = {"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {"endpoint": {"address": _address(host, int(upstream))}}
    cluster = {
        "name": "mock",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "mock", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"address": _address("127.0.0.1", port), "filter_chains": [{"filters": filters}]}
    return {
        "admin": {"address": _address("127.0.0.1", admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def start_envoy(bench: Bench, program: Path, number: int = 0) -> Subject:
    """Start Envoy as a proxy that reads heads and passes bodies on."""
    folder = bench.folder / f"envoy-{number}"
    folder.mkdir()
    port, admin = free_ports(2)
    file = folder / "envoy.json"
    file.write_text(json.dumps(_envoy(port, admin, bench.mock)))
    command = [str(program), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    process = spawn("envoy", command, {}, folder, bench.core)
    bench.stack.enter_context(running(process, lambda: answers(f"http://127.0.0.1:{admin}/ready")))
    about = "one worker, one route, no filter but the router, no access log: the floor that Envoy's gateways add to"
    return Subject("envoy", f"127.0.0.1:{port}", "mock", processes=[process], configuration=about)
