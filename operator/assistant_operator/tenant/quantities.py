"""Kubernetes quantities as numbers: the API server rewrites them, so comparing their text would never settle.

Format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
# Longer ones than the custom resources admit are no quantities that anyone means, and take long to compute with.
LONGEST = 63
LARGEST = Decimal(2**63 - 1)  # what Kubernetes itself can hold
LARGEST_EXPONENT = 40


def parse(text: str | float) -> Decimal:
    """Return the value of a quantity; raises ValueError when it is none, or beyond what Kubernetes can hold."""
    match = _QUANTITY.fullmatch(str(text)) if len(str(text)) <= LONGEST else None
    if match is None:
        raise ValueError(f"{str(text)[:LONGEST]!r} is not a quantity, such as 500Mi or 250m")
    number, exponent, suffix = match.groups()
    # Looked at before it is computed with: decimals raise errors of their own, or grow without end.
    if exponent is not None and (len(exponent) > 4 or abs(int(exponent[1:])) > LARGEST_EXPONENT):
        raise ValueError(f"{text!r} is out of the range of quantities")
    try:
        value = Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]
    except ArithmeticError as error:
        raise ValueError(f"{text!r} is out of the range of quantities") from error
    if abs(value) > LARGEST:
        raise ValueError(f"{text!r} is out of the range of quantities")
    return value


def milli(text: str | float) -> int:
    """Return a quantity in thousandths, rounded up as the API server does; raises ValueError as `parse`."""
    return int((parse(text) * 1000).to_integral_value(ROUND_CEILING))


def whole_bytes(text: str, largest: int) -> int:
    """Return a number of bytes; raises ValueError when it is not a whole one between 1 and `largest`."""
    value = parse(text)
    if value != value.to_integral_value() or not 1 <= value <= largest:
        raise ValueError(f"{text!r} is not a whole number of bytes from 1 to {largest}, such as 500Mi or 1Gi")
    return int(value)
