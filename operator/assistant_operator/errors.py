"""What can go wrong outside of this process, in the words the status of a resource uses."""

from __future__ import annotations


class NotLeaderError(Exception):
    """A write was refused because another operator may lead by now."""


class ClusterError(Exception):
    """The Kubernetes API refused a request. `code` is the HTTP status, `subject` the object, such as `Service/x`."""

    def __init__(self, code: int, subject: str, message: str) -> None:
        super().__init__(f"{subject}: {message}")
        self.code = code
        self.subject = subject
        self.message = message


class ClusterUnreachableError(Exception):
    """The Kubernetes API did not answer."""


class StoreUnreachableError(Exception):
    """A store did not answer, or refused the operator. `store` is `postgres`, `redis` or `weaviate`."""

    def __init__(self, store: str, detail: str) -> None:
        super().__init__(f"{store}: {detail}")
        self.store = store
        self.detail = detail

    @property
    def late(self) -> bool:
        """Whether nothing came in time, as opposed to a refusal: that may be the operator's own fault."""
        return "Timeout" in self.detail


class ProbeError(Exception):
    """An HTTP probe got no usable answer; the text says why, without secrets."""
