"""kubectl and Helm, called as programs with time-outs; what they say on failure is what the user reads."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from assistant_demo.errors import DemoError

Object = dict[str, Any]
FIELD_MANAGER = "assistant-demo"


class CommandError(DemoError):
    """A program failed; `output` is what it wrote to its standard error."""

    def __init__(self, command: str, output: str) -> None:
        super().__init__(f"`{command}` failed: {output.strip() or 'without a word'}")
        self.output = output


@dataclass(frozen=True)
class Kubernetes:
    """A cluster, by its kubeconfig, and the programs to talk to it."""

    kubeconfig: Path
    kubectl_command: tuple[str, ...]
    helm_command: tuple[str, ...]

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run kubectl; returns its output."""
        return self._run((*self.kubectl_command, *arguments), stdin, seconds)

    def helm(self, *arguments: str, stdin: str | None = None, seconds: float = 300) -> str:
        """Run Helm; returns its output."""
        return self._run((*self.helm_command, *arguments), stdin, seconds)

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return an object, or None when it is not there."""
        scope = ("-n", namespace) if namespace else ()
        found = self.kubectl("get", kind, name, *scope, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found.strip() else None

    def list(self, kinds: str, namespace: str = "", selector: str = "") -> list[Object]:
        """Return the objects of some kinds, of one namespace or of all."""
        scope = ("-n", namespace) if namespace else ("--all-namespaces",)
        chosen = ("-l", selector) if selector else ()
        items: list[Object] = json.loads(self.kubectl("get", kinds, *scope, *chosen, "-o", "json"))["items"]
        return items

    def apply(self, *objects: Object) -> None:
        """Apply objects; server-side, so that no Secret is copied into an annotation."""
        self.kubectl(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-"),
            stdin=yaml.safe_dump_all(objects),
        )

    def delete(self, kind: str, name: str, namespace: str = "", *, seconds: float = 180) -> None:
        """Delete an object and wait until it is gone; nothing happens when it is not there."""
        scope = ("-n", namespace) if namespace else ()
        wait = ("--ignore-not-found", "--wait=true", f"--timeout={seconds:.0f}s")
        self.kubectl("delete", kind, name, *scope, *wait, seconds=seconds + 10)

    def _run(self, command: tuple[str, ...], stdin: str | None, seconds: float) -> str:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            )
        except subprocess.TimeoutExpired:
            raise CommandError(shown, f"no answer within {seconds:.0f} s") from None
        except OSError as error:
            raise CommandError(shown, str(error)) from error
        if done.returncode != 0:
            raise CommandError(shown, done.stderr)
        return done.stdout


def manifests(path: Path, **values: str) -> list[Object]:
    """Return the objects of a YAML file, with `$NAME` replaced by the given values."""
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return [document for document in yaml.safe_load_all(text) if document]


def secret(name: str, namespace: str, values: dict[str, str]) -> Object:
    """Return a Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "stringData": values,
    }
