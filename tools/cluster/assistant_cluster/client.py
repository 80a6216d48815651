"""The few reads that starting a cluster needs, straight over HTTPS: a kubectl process per poll would be too slow."""

import base64
import http.client
import json
import ssl
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import yaml

SECONDS = 5


class Client:
    """Reads from the API server of a kubeconfig with inlined certificates."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        address = urllib.parse.urlsplit(cluster["server"])
        self._host, self._port = str(address.hostname), address.port or 443
        self._context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        # The ssl module takes a client certificate from a file only.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
            file.flush()
            self._context.load_cert_chain(file.name)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when the server cannot be reached."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=SECONDS, context=self._context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def read(self, path: str) -> dict[str, Any] | None:
        """An object, or None when it is absent or the server is."""
        status, body = self.get(path)
        if status != http.client.OK:
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self.get("/readyz")[0] == http.client.OK

    def node_ready(self, name: str) -> bool:
        """Whether the kubelet of this node reported Ready."""
        return condition(self.read(f"/api/v1/nodes/{name}"), "Ready")

    def deployment_available(self, namespace: str, name: str) -> bool:
        """Whether a Deployment has the pods it needs."""
        return condition(self.read(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), "Available")


def condition(document: dict[str, Any] | None, kind: str) -> bool:
    """Whether an object's condition is True."""
    conditions = (document or {}).get("status", {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
