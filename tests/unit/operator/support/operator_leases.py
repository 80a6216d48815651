"""The API server, as far as one Lease is concerned; it may be asked from any thread."""

import threading

from assistant_operator.errors import ClusterUnreachableError


class Leases:
    """The API server's Lease, with its versions."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.down = False
        self.written = threading.Condition()

    async def get(self, kind, name, namespace):
        self._check()
        return self.lease and {**self.lease, "spec": dict(self.lease["spec"]), "metadata": dict(self.lease["metadata"])}

    async def create(self, obj):
        self._check()
        return None if self.lease else self._store(obj)

    async def replace(self, obj):
        self._check()
        if self.lease is None or obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return None
        return self._store(obj)

    def _check(self):
        if self.down:
            raise ClusterUnreachableError("no connection")

    def _store(self, obj):
        with self.written:
            self.version += 1
            self.written.notify_all()
        self.lease = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    def wait_for_writes(self, count):
        """Block the calling thread until so many writes have come."""
        with self.written:
            last = self.version + count
            assert self.written.wait_for(lambda: self.version >= last, 60)

    async def close(self):
        """Close nothing."""
