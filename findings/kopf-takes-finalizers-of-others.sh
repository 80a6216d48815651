#!/usr/bin/env bash
# Package:  kopf==1.45.2
# Expected: a handler of events (`@kopf.on.event`) changes nothing of the objects that it is told of. Source: Kopf's
#           documentation, "Handlers", "Event-watching handlers": "This can be useful if the operator needs to watch
#           over the objects of another operator or controller, without adding its own data."
# Seen:     an operator with nothing but such a handler removes `kopf.zalando.org/KopfFinalizerMarker`, Kopf's default
#           name, from each object that it lists: that of another operator as well, whose clean-up is then skipped
#           when the object is deleted.
# Here:     operator/assistant_operator/handlers.py names a finalizer that no object ever has.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder" kopf==1.45.2
PYTHONPATH=$folder python3 - <<'END'
import asyncio
import http.server
import json
import logging
import sys
import threading
import time

import kopf

def kind(name, plural, namespaced):
    """Return the description of a kind of object."""
    verbs = ["get", "list", "watch", "patch"]
    return {"kind": name, "name": plural, "singularName": name.lower(), "namespaced": namespaced, "verbs": verbs}


# An object of another operator, which uses Kopf as well and blocks its deletion.
BOOK = {
    "metadata": {
        "name": "one",
        "namespace": "default",
        "uid": "1",
        "resourceVersion": "5",
        "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"],
    }
}
ANSWERS = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [kind("Namespace", "namespaces", namespaced=False)]},
    "/apis": {
        "groups": [{"name": "example.com", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}]
    },
    "/apis/example.com/v1": {"resources": [kind("Book", "books", namespaced=True)]},
    "/apis/example.com/v1/books": {"metadata": {"resourceVersion": "5"}, "items": [BOOK]},
}
patches = []


class Kubernetes(http.server.BaseHTTPRequestHandler):
    """Answers what is asked, and keeps what it is told to change."""

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, _, question = self.path.partition("?")
        if "watch=true" in question:
            time.sleep(60)
        self.answer(ANSWERS[path])

    def do_PATCH(self):
        patches.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(BOOK)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
threading.Thread(target=server.serve_forever, daemon=True).start()
registry = kopf.OperatorRegistry()
seen = []


@kopf.on.login(registry=registry)
def login(**_):
    return kopf.ConnectionInfo(server=f"http://127.0.0.1:{server.server_port}")


@kopf.on.startup(registry=registry)
def configure(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True


@kopf.on.event("example.com", "v1", "books", registry=registry)
def watch(name, **_):
    seen.append(name)


async def main():
    stop = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, clusterwide=True, standalone=True, stop_flag=stop)
    )
    until = time.monotonic() + 60
    while not (seen and patches) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait([operator], timeout=10)


logging.disable(logging.CRITICAL)
asyncio.run(main())
removed = any({"op": "remove", "path": "/metadata/finalizers"} in patch for patch in patches)
print(f"objects seen: {seen}; expected no change of them, seen {patches}")
sys.exit(0 if seen and removed else "changed: Kopf leaves the finalizer of others alone, or sees no objects")
END
