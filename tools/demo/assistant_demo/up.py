"""The main job, step by step: from a bare machine to an answer with its source. Read `run` from top to bottom."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from assistant_demo import machine
from assistant_demo.documents import handbook
from assistant_demo.endpoint import reach
from assistant_demo.errors import DemoError
from assistant_demo.installation import (
    MANIFESTS,
    NAMESPACE,
    install,
    install_stand_in,
    served,
    unready,
    values,
    wait_for_workloads,
)
from assistant_demo.kubernetes import Kubernetes, Object, manifests
from assistant_demo.presentation import show_answer, show_how_to_go_on
from assistant_demo.settings import STAND_IN_NAMESPACE, Model
from assistant_demo.tenant_api import Document, TenantApi
from assistant_demo.terminal import BOLD, DIM, Step, Terminal

TENANT = "demo"
ASSISTANT = "support"
KNOWLEDGE_BASE = "handbook"
API_SERVICE, API_PORT = "assistant-api", 8080
API_KEY_SECRET, API_KEY_KEY = "assistant-api-key", "api-key"
ADMIN_SECRET, ADMIN_EMAIL, ADMIN_PASSWORD = "assistant-admin", "email", "password"
QUESTION = "To which torque are the rear axle nuts of the Larkspur L4 tightened, and when are they checked again?"
READY_SECONDS = 180
INGEST_SECONDS = 300
COUNT_SECONDS = 60


@dataclass(frozen=True)
class Running:
    """What the demo left running, and how to call it."""

    cluster: Kubernetes
    url: str
    key: str


def run(terminal: Terminal, model: Model, *, ask: bool = True) -> Running:
    """Bring everything up that is not up yet, and ask a question."""
    terminal.line(terminal.styled("Assistant Platform", BOLD) + f": the demo. The model is {model}.")
    with machine.only_one():
        return _run(terminal, model, ask=ask)


def _run(terminal: Terminal, model: Model, *, ask: bool) -> Running:
    with terminal.step("Cluster") as step:
        cluster, step.result = machine.cluster_up(step)
    with terminal.step("Images") as step:
        images, step.result = machine.build_images(step)
    with terminal.step("Platform") as step:
        install_platform(cluster, step, images, model)
    with terminal.step("Tenant") as step:
        model = served(cluster, step, model)
        declare(cluster, step, model)
        step.wait(lambda: _unready(cluster), seconds=READY_SECONDS, hint=_describe(), every=0.5)
        step.result = f"assistant {ASSISTANT} and knowledge base {KNOWLEDGE_BASE} ({model.embedding}) are Ready"
    with terminal.step("Endpoint") as step:
        running = connect(cluster, step, TENANT)
        step.result = running.url
        _write_environment(running)
    with TenantApi(running.url, running.key) as api:
        with terminal.step("Documents") as step:
            step.result = upload(cluster, api, step)
        if ask:
            _ask(terminal, api, model)
    _show_resources(terminal, cluster)
    show_how_to_go_on(terminal, running.url, machine.shown(environment_file()), ASSISTANT)
    return running


def install_platform(cluster: Kubernetes, step: Step, images: dict[str, str], model: Model, *layers: Object) -> None:
    """Install the charts, and the stand-in model where it is needed, and wait until all of it runs."""
    namespaces: tuple[str, ...] = (NAMESPACE,)
    if model.stand_in:
        install_stand_in(cluster, images["demo"])
        namespaces += (STAND_IN_NAMESPACE,)
    changed = install(cluster, step, model, values(images, model), *layers)
    wait_for_workloads(cluster, step, namespaces)
    step.result = f"{'installed' if changed else 'unchanged'} in namespace {NAMESPACE}"


def declare(cluster: Kubernetes, step: Step, model: Model) -> None:
    """Apply the tenant's resources, with the chosen model."""
    cluster.apply(*manifests(MANIFESTS / "tenant.yaml"))
    (knowledge_base,) = manifests(MANIFESTS / "handbook.yaml")
    embedding = {"provider": model.provider, "name": model.embedding, "dimensions": model.dimensions}
    knowledge_base["spec"]["embedding"] = embedding
    (assistant,) = manifests(MANIFESTS / "support.yaml")
    assistant["spec"]["model"] |= {"provider": model.provider, "name": model.chat}
    existing = cluster.get("knowledgebase", KNOWLEDGE_BASE, TENANT)
    if existing and existing["spec"]["embedding"] != embedding:
        step.say("the embedding model changed, so the knowledge base is made anew: vectors of two models do not mix")
        cluster.delete("knowledgebase", KNOWLEDGE_BASE, TENANT)
    cluster.apply(knowledge_base, assistant)


def _unready(cluster: Kubernetes) -> str | None:
    reasons = [unready(resource) for resource in cluster.list("assistants,knowledgebases", TENANT)]
    return " ".join(reason for reason in reasons if reason) or None


def _describe() -> str:
    return f"Look at: kubectl describe asst,kb -n {TENANT}; kubectl logs -n {NAMESPACE} deployment/assistant-operator"


def connect(cluster: Kubernetes, step: Step, namespace: str) -> Running:
    """Return how to call a tenant's API from here, once it answers."""
    key = _secret(cluster, namespace, API_KEY_SECRET)[API_KEY_KEY]
    url = reach(cluster, machine.folder(), namespace, API_SERVICE, API_PORT)
    with TenantApi(url, key) as api:
        step.wait(api.answers, seconds=60, hint=f"Look at: kubectl get pods -n {namespace}", every=0.3)
    return Running(cluster, url, key)


def _secret(cluster: Kubernetes, namespace: str, name: str) -> dict[str, str]:
    found = cluster.get("secret", name, namespace)
    if found is None:
        raise DemoError(f"The Secret {name} is missing in namespace {namespace}. {_describe()}")
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def upload(cluster: Kubernetes, api: TenantApi, step: Step) -> str:
    """Upload the handbook and wait until every document is searchable; returns what there is now."""
    documents = {path.name: api.upload(KNOWLEDGE_BASE, path) for path in handbook(machine.folder() / "handbook")}

    def reason() -> str | None:
        for name, document in documents.items():
            if document["status"] in {"pending", "processing"}:
                documents[name] = api.document(KNOWLEDGE_BASE, document["id"])
            if documents[name]["status"] == "failed":
                raise DemoError(f"{name} could not be read: {documents[name]['error']['message']}")
        waiting = [name for name, document in documents.items() if document["status"] != "ready"]
        return f"reading {', '.join(waiting)}" if waiting else None

    hint = f"Look at: kubectl logs -n {TENANT} deployment/assistant-worker"
    step.wait(reason, seconds=INGEST_SECONDS, hint=hint, every=0.3)
    step.wait(lambda: _uncounted(cluster), seconds=COUNT_SECONDS, hint=_describe(), every=0.5)
    return _told(list(documents.values()))


def _uncounted(cluster: Kubernetes) -> str | None:
    """Why the status does not show the upload yet: the operator counts every few seconds."""
    status = (cluster.get("knowledgebase", KNOWLEDGE_BASE, TENANT) or {}).get("status", {})
    counted = not status.get("pending") and status.get("documents", 0) > 0 and not status.get("orphans")
    return None if counted and status.get("vectors") else "all documents are read; the operator counts them"


def _told(documents: list[Document]) -> str:
    chunks = sum(document.get("chunks") or 0 for document in documents)
    return f"{len(documents)} documents, {chunks} passages: {', '.join(document['name'] for document in documents)}"


def _ask(terminal: Terminal, api: TenantApi, model: Model) -> None:
    sources = show_answer(terminal, QUESTION, api.ask(ASSISTANT, QUESTION))
    if not any(source.filename.endswith(".pdf") for source in sources):
        hint = _describe() if model.stand_in else "Ask again, or choose another model."
        raise DemoError(f"The answer cites no passage of the PDF, which holds the fact. {hint}")


def _show_resources(terminal: Terminal, cluster: Kubernetes) -> None:
    command = ("get", "asst,kb", "-n", TENANT)
    terminal.line()
    terminal.line(terminal.styled(f"$ kubectl {' '.join(command)}", DIM))
    terminal.line(cluster.kubectl(*command).rstrip())


def _write_environment(running: Running) -> None:
    """Leave the addresses for shells and programs, readable by the user only: the file holds a key and a password."""
    path = environment_file()
    admin = _secret(running.cluster, TENANT, ADMIN_SECRET)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(
        "# Written by `make demo`. OpenAI clients take $ASSISTANT_URL/v1 as their base URL.\n"
        f"KUBECONFIG={running.cluster.kubeconfig}\n"
        f"ASSISTANT_URL={running.url}\n"
        f"ASSISTANT_API_KEY={running.key}\n"
        f"ASSISTANT_ADMIN_EMAIL={admin[ADMIN_EMAIL]}\n"
        f"ASSISTANT_ADMIN_PASSWORD={admin[ADMIN_PASSWORD]}\n",
        encoding="utf-8",
    )


def environment_file() -> Path:
    """Where the demo's addresses are kept."""
    return machine.folder() / "demo.env"
