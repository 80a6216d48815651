"""Bring the vectors of an answer into the encoding that the caller asked for, while the answer passes.

Some servers know no `base64` and answer with numbers; clients that asked for `base64` then read nonsense. An answer
with two thousand vectors would take more memory than the pod has, so one vector is looked at after the other.
"""

from __future__ import annotations

import base64
import re
import sys
from array import array

import msgspec

from assistant_api.decoding import MALFORMED
from assistant_api.embeddings.schemas import Encoding
from assistant_api.gateway import GatewayUnreachableError

MAX_VECTOR = 1 << 20  # bytes
_VECTOR = re.compile(rb'(?<!\\)"embedding"\s*:\s*(?=["\[])')
_LONGEST_KEY = 64  # bytes of `"embedding": ` that may have arrived without what follows them
_OPENS = {"float": ord("["), "base64": ord('"')}
_numbers = msgspec.json.Decoder(list[float]).decode


class Recoder:
    """Takes an answer in pieces; what is not a vector passes unchanged."""

    def __init__(self, wanted: Encoding) -> None:
        self._wanted = wanted
        self._rest = b""
        self._inside = False
        self._same = False  # the answer has the encoding that is wanted

    def feed(self, data: bytes) -> bytes:
        """Return what can be sent on; GatewayUnreachableError for what is no answer with vectors."""
        if self._same:
            return data
        data, out = self._rest + data, []
        while True:
            if self._inside:
                end = data.find(b"]" if data[:1] == b"[" else b'"', 1)
                if end < 0:
                    break
                out.append(self._recoded(data[: end + 1]))
                data, self._inside = data[end + 1 :], False
            if (found := _VECTOR.search(data)) is None:
                kept = max(0, len(data) - _LONGEST_KEY)
                out.append(data[:kept])
                data = data[kept:]
                break
            if data[found.end()] == _OPENS[self._wanted]:
                self._same, self._rest = True, b""
                return b"".join((*out, data))
            out.append(data[: found.end()])
            data, self._inside = data[found.end() :], True
        if len(data) > MAX_VECTOR:
            raise GatewayUnreachableError("a vector is too large")
        self._rest = data
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is left when the answer has ended."""
        rest, self._rest = self._rest, b""
        return rest

    def _recoded(self, vector: bytes) -> bytes:
        try:
            if self._wanted == "base64":
                numbers = array("f", _numbers(vector))
                return b'"%b"' % base64.b64encode(_little_endian(numbers).tobytes())
            numbers = array("f", base64.b64decode(vector[1:-1], validate=True))
            return msgspec.json.encode(_little_endian(numbers).tolist())
        except (*MALFORMED, ValueError, OverflowError) as error:
            raise GatewayUnreachableError("a vector cannot be read") from error


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
