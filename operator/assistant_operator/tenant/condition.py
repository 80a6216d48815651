"""The result of evaluating one condition of a resource: its status, the reason, and a message with the next step."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from assistant_crds.conditions import Reason


class ConditionStatus(StrEnum):
    """The values that Kubernetes knows for a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionResult(msgspec.Struct, frozen=True):
    """What a condition says. The message of a False one names the object and the next step."""

    status: ConditionStatus
    reason: Reason
    message: str

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status is ConditionStatus.TRUE

    @property
    def is_false(self) -> bool:
        """Whether the condition is known not to hold."""
        return self.status is ConditionStatus.FALSE

    @property
    def is_unknown(self) -> bool:
        """Whether the condition cannot be evaluated yet."""
        return self.status is ConditionStatus.UNKNOWN


def true(reason: Reason, message: str) -> ConditionResult:
    """Return the result of a condition that holds."""
    return ConditionResult(ConditionStatus.TRUE, reason, message)


def false(reason: Reason, message: str) -> ConditionResult:
    """Return the result of a condition that does not hold."""
    return ConditionResult(ConditionStatus.FALSE, reason, message)


def unknown(message: str, reason: Reason = Reason.WAITING) -> ConditionResult:
    """Return the result of a condition that cannot be evaluated before something else is true."""
    return ConditionResult(ConditionStatus.UNKNOWN, reason, message)
