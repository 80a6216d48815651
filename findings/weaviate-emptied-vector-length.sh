#!/usr/bin/env bash
# Package:  github.com/weaviate/weaviate/cmd/weaviate-server@v1.38.8 (built with Go: minutes the first time)
# Expected: a collection without objects takes vectors of any length, and a length that it does not take is the
#           caller's error. Sources: Weaviate's pull request 2635 (an empty index has no length to compare with);
#           Weaviate's OpenAPI document, POST /objects: 422 "The request syntax is correct, but the server couldn't
#           process it due to semantic issues".
# Seen:     after its last object was deleted a collection still refuses every other length, with HTTP 500, which
#           clients take for a passing fault. After a restart of the server the same object is taken.
# Here:     crds/knowledgebases.yaml: a knowledge base keeps its model and dimensions, an emptied one too;
#           api/assistant_api/knowledge/embedding.py compares the length before anything is written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
CGO_ENABLED=0 GOBIN=$folder go install -trimpath -ldflags '-s -w' \
    github.com/weaviate/weaviate/cmd/weaviate-server@v1.38.8
FOLDER=$folder python3 - <<'END'
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

FOLDER = os.environ["FOLDER"]
OBJECT = "36ddd591-2dee-4e7e-a3cc-eb86d30a4303"
PORTS = ("GRPC_PORT", "CLUSTER_GOSSIP_BIND_PORT", "CLUSTER_DATA_BIND_PORT", "RAFT_PORT", "RAFT_INTERNAL_RPC_PORT")
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ("HTTP", "GO_PROFILING_PORT", *PORTS)]
http, *others = [str(free.getsockname()[1]) for free in sockets]
for free in sockets:
    free.close()
ENVIRONMENT = {
    **os.environ,
    **dict(zip(("GO_PROFILING_PORT", *PORTS), others)),
    "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
    "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
    "CLUSTER_HOSTNAME": "one",
    "DISABLE_TELEMETRY": "true",
    "PERSISTENCE_DATA_PATH": f"{FOLDER}/data",
    "RAFT_BOOTSTRAP_EXPECT": "1",
}


def ask(method, path, document=None):
    """Return the status of an answer."""
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{http}/v1/{path}", data, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def served(work):
    """Return what `work` returns while the server runs on the same data."""
    command = [f"{FOLDER}/weaviate-server", "--scheme", "http", "--host", "127.0.0.1", "--port", http]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 120
            while ask("GET", ".well-known/ready") != 200:
                if server.poll() is not None or time.monotonic() > until:
                    sys.exit("Weaviate did not start")
                time.sleep(0.5)
            return work()
        finally:
            server.terminate()


def put(length):
    """Write the one object, with a vector of this length."""
    return ask("POST", "objects", {"class": "Passage", "id": OBJECT, "vector": [1] * length})


def empty_it():
    """Make a collection, write and delete one object, and write it again with a longer vector."""
    ask("POST", "schema", {"class": "Passage", "vectorizer": "none"})
    assert put(3) == 200
    assert ask("DELETE", f"objects/Passage/{OBJECT}") == 204
    return put(4)


emptied, restarted = served(empty_it), served(lambda: put(4))
print(f"a longer vector in an emptied collection: expected 200 (or 422), seen {emptied}; after a restart {restarted}")
sys.exit(0 if (emptied, restarted) == (500, 200) else "changed: an emptied collection answers otherwise")
END
