"""Somebody's own cluster, named by the user. Nothing is installed into it here, and nothing is taken from it."""

import os
import shutil
import subprocess

import yaml

from assistant_cluster.binaries import ensure
from assistant_cluster.errors import ClusterError
from assistant_cluster.kind import rename_context
from assistant_cluster.progress import Progress

SECONDS = 20


def read(progress: Progress) -> str:
    """The kubeconfig of the user's current context (or CLUSTER_CONTEXT), after saying which cluster that is."""
    context = os.environ.get("CLUSTER_CONTEXT")
    choice = [f"--context={context}"] if context else []
    program = _kubectl(progress)
    text = _run([*program, *choice, "config", "view", "--minify", "--flatten", "--raw", "--output=yaml"])
    document = yaml.safe_load(text)
    if not document.get("contexts") or not document.get("clusters"):
        raise ClusterError("Your kubeconfig has no current context. Set one, or name one with CLUSTER_CONTEXT=name.")
    name, server = document["contexts"][0]["name"], document["clusters"][0]["cluster"]["server"]
    progress(f"Using YOUR kube context {name!r} ({server})")
    _run([*program, f"--context={name}", "--request-timeout=10s", "get", "--raw=/readyz"])
    document["current-context"] = name
    return rename_context(yaml.safe_dump(document, sort_keys=False))


def _kubectl(progress: Progress) -> list[str]:
    """The user's kubectl: it may need the plugins of the user's environment to log in."""
    found = shutil.which("kubectl")
    return [found] if found else ensure("kubernetes", progress).command("kubectl")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"The cluster did not answer within {SECONDS} s (`{' '.join(command)}`).") from error
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
