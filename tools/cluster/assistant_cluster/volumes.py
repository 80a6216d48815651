"""PersistentVolumes of the node: folders of the machine, offered again empty once their claim is gone."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from assistant_cluster.layout import Layout

COUNT = 8
SIZE = "5Gi"
CLASS = "standard"


def names() -> list[str]:
    """Names of the volumes."""
    return [f"local-{number}" for number in range(COUNT)]


def wipe(layout: Layout, name: str) -> None:
    """Make a volume's folder, empty. Kubernetes sets its group when a pod with fsGroup mounts it."""
    folder = layout.volumes / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def manifests(layout: Layout, wanted: list[str]) -> str:
    """The PersistentVolume objects."""
    return yaml.safe_dump_all([_volume(layout, name) for name in wanted], sort_keys=False)


def released(volumes: list[dict[str, Any]]) -> list[str]:
    """Volumes whose claim is gone: their data belong to nobody and would be seen by the next claim."""
    phases = {"Released", "Failed"}
    return [
        volume["metadata"]["name"]
        for volume in volumes
        if volume["metadata"]["name"] in names() and volume.get("status", {}).get("phase") in phases
    ]


def _volume(layout: Layout, name: str) -> dict[str, Any]:
    folder: Path = layout.volumes / name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(folder)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "kubernetes.io/hostname", "operator": "In", "values": [layout.name]}
                            ]
                        }
                    ]
                }
            },
        },
    }
