"""The local cluster for demo and tests: kind where Docker is, a single real node where it is not."""

from assistant_cluster.errors import ClusterError
from assistant_cluster.lifecycle import ClusterInfo, down, find, up

__all__ = ["ClusterError", "ClusterInfo", "down", "find", "up"]
