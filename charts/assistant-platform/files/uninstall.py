# ruff: noqa: INP001  # a script in a ConfigMap, of no package
"""Refuse to uninstall the platform while there are Assistants or KnowledgeBases: a Job before `helm uninstall`.

Standard library only. Ends with 1, which stops Helm, and says which ones and what to do.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

CREDENTIALS = Path(os.environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
SHOWN = 10


def listed(resource: str) -> list[str]:
    """Return `namespace/name` of every object of the resource; none when the cluster does not know it."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    request = urllib.request.Request(  # noqa: S310 - https, see above
        f"{server}/apis/assistantplatform.io/v1alpha1/{resource}",
        headers={"Authorization": f"Bearer {(CREDENTIALS / 'token').read_text()}"},
    )
    context = ssl.create_default_context(cafile=str(CREDENTIALS / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:  # noqa: S310
            items = json.load(answer)["items"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        raise
    return [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items]


def main() -> int:
    """Print what is left, and return the exit code."""
    left = [f"  {resource} {name}" for resource in ("assistants", "knowledgebases") for name in listed(resource)]
    if not left:
        return 0
    more = [f"  and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    lines = [
        "Not uninstalled: these resources still exist, and only the operator can remove their data:",
        *left[:SHOWN],
        *more,
        "Delete them first: kubectl delete assistants,knowledgebases --all --all-namespaces",
        f"To keep the platform instead: {os.environ['ROLLBACK']} (Helm takes no upgrade before that)",
        "To uninstall all the same, and leave their data behind: helm uninstall --no-hooks",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
