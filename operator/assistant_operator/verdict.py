"""One finding about a resource: whether something holds, why, and what to do if it does not."""

from __future__ import annotations

import msgspec

from assistant_crds.conditions import Reason


class Verdict(msgspec.Struct, frozen=True):
    """`ok` is None when it cannot be known yet. The message of a False one names the object and the next step."""

    ok: bool | None
    reason: Reason
    message: str

    @property
    def status(self) -> str:
        """The condition status."""
        return {True: "True", False: "False", None: "Unknown"}[self.ok]


def yes(reason: Reason, message: str) -> Verdict:
    """Return a verdict that something holds."""
    return Verdict(True, reason, message)


def no(reason: Reason, message: str) -> Verdict:
    """Return a verdict that something does not hold."""
    return Verdict(False, reason, message)


def waiting(message: str) -> Verdict:
    """Return a verdict on something that cannot be known before something else holds."""
    return Verdict(None, Reason.WAITING, message)
