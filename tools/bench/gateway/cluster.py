"""What the gateway asks of a Kubernetes API server: the cluster's signing keys, and the Secrets that hold policies.

The tokens are real: signed by the key that is served, checked by the gateway as it checks the kubelet's.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from assistant_crds import naming

ISSUER = "https://kubernetes.default.svc.cluster.local"
TOKEN_SECONDS = 3600


class Cluster:
    """Served documents, and the key that signs tokens."""

    def __init__(self, secrets: list[dict[str, Any]]) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        self.documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": ISSUER},
            "/openid/v1/jwks": {"keys": [{**jwk, "kid": "bench", "use": "sig", "alg": "RS256"}]},
        }
        self.secrets = {"kind": "SecretList", "metadata": {"resourceVersion": "1"}, "items": secrets}
        self.closing = threading.Event()
        self.url = ""

    def token(self, namespace: str, account: str) -> str:
        """A token as the kubelet projects it into a pod."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": [naming.GATEWAY_AUDIENCE],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "bench"}},
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "bench"})


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if "watch" in query:  # nothing ever changes: be silent until the time is over
            self._head(200)
            self.cluster.closing.wait(float(query.get("timeoutSeconds", ["60"])[0]))
            return
        document = self.cluster.documents.get(parts.path)
        if document is None and parts.path.endswith("/secrets"):
            document = self.cluster.secrets
        self._head(404 if document is None else 200)
        self.wfile.write(json.dumps(document or {}).encode())

    def _head(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def cluster(secrets: list[dict[str, Any]]) -> Iterator[Cluster]:
    """Serve on a free port of the loopback interface."""
    served = Cluster(secrets)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": served}))
    server.daemon_threads = True
    server.block_on_close = False
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        server.server_close()
