"""What a provider says of its own error, in any of the shapes that providers have for it.

Every server that calls itself OpenAI-compatible has one of its own: an envelope, an array around it, a text, a list of
fields that are wrong (FastAPI), problem details (RFC 9457), gRPC's status, a number beside the answer.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from assistant_gateway.wire.decoding import UNREADABLE

LARGEST_ERROR = 64 * 1024
LONGEST_TEXT = 500  # of an error that is no JSON
_DEEPEST = 6  # errors inside of errors

_ERRORS = ("error", "errors", "err", "Error", "fault", "base_resp", "exception")
_MESSAGES = ("message", "msg", "Message", "error_message", "errorMessage", "error_msg", "status_msg", "faultstring")
_TEXTS = ("error_description", "detail", "details", "title", "reason", "statusText")
_CODES = ("code", "error_code", "errorCode", "status_code", "statusCode", "status", "http_status", "http_code")
_KINDS = ("type", "error_type", "errorType", "status", "errorcode")
_PAUSES = ("retry_after", "retryAfter", "retry_after_seconds", "retryDelay")
# HTTP statuses for the words that stand where OpenAI has a code or type; gRPC's among them.
_STATUSES = (
    (401, r"auth|api_?key|unauthenticated|invalid_token"),
    (402, r"insufficient|billing|payment|arrear|quota_exhausted|credit"),
    (429, r"rate_?limit|too_?many|resource_?exhausted|throttl|quota|1302|1305"),
    (403, r"permission|forbidden|access_?denied"),
    (404, r"not_?found|model_not_exist"),
    (503, r"overload|unavailable|capacity|busy|loading"),
    (504, r"time_?d?_?out|deadline"),
    (400, r"invalid|bad_?request|context_length|content_?filter|content_policy|unprocessable|validation|too_large"),
)
_BY_WORDS = tuple((status, re.compile(words)) for status, words in _STATUSES)


class Detail(msgspec.Struct, frozen=True):
    """What a provider says of its own error; any JSON may be in there."""

    message: object = None
    param: object = None
    code: object = None
    kind: object = None  # OpenAI's `type`
    flagged: bool = False  # by OpenRouter's moderation
    pause: object = None  # after which to ask again

    @property
    def words(self) -> frozenset[str]:
        """Its code and type, in lower case."""
        return frozenset(str(word).lower() for word in (self.code, self.kind) if isinstance(word, str | int))

    @property
    def status(self) -> int:
        """The HTTP status that it would have had: some answer 200 and put the error inside. 500 where nothing says."""
        for word in (self.code, self.kind):
            number = _number(word)
            if number is not None and 400 <= number < 600:
                return number
        words = " ".join(sorted(self.words))
        return next((status for status, known in _BY_WORDS if known.search(words)), 500)


def read(body: bytes) -> Detail | None:
    """Return the error in a body, None where there is none or it is no JSON."""
    if len(body) > LARGEST_ERROR:
        return None  # no words of an error, and too much to decode
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return _found(document, 0) if isinstance(document, dict | list) else None


def text(body: bytes) -> Detail | None:
    """Return the error in a body that is text; None for pages, which say nothing, and for what is no text."""
    try:
        said = " ".join(body[: 4 * LONGEST_TEXT].decode().split())
    except UnicodeDecodeError:
        return None
    if not said or said[0] in "<{[" or not said.isprintable():
        return None
    return Detail(said[:LONGEST_TEXT])


def _number(word: object) -> int | None:
    if isinstance(word, bool) or not isinstance(word, int | float | str):
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) else None


def _found(document: object, depth: int) -> Detail | None:
    """Return the error in a value that may be one, or hold one."""
    if depth > _DEEPEST:
        return None
    if isinstance(document, str):
        return _of_text(document, depth)
    if isinstance(document, list):  # Gemini's, and lists of what is wrong
        return _found(document[0], depth + 1) if document else None
    if not isinstance(document, dict):
        return None
    for name in _ERRORS:
        inner = document.get(name)
        if inner and not _is_fine(inner) and (found := _found(inner, depth + 1)) is not None:
            return _completed(found, document)
    return _of_object(document, depth)


def _is_fine(inner: object) -> bool:
    """Whether it only says that nothing is wrong: MiniMax's status beside every answer."""
    return inner is True or (isinstance(inner, dict) and _number(inner.get("status_code")) == 0)


def _of_text(said: str, depth: int) -> Detail | None:
    """Return the error in a text, which may be JSON once more: gateways quote each other so."""
    if said[:1] in {"{", "["} and len(said) <= LARGEST_ERROR:
        try:
            found = _found(msgspec.json.decode(said), depth + 1)
        except UNREADABLE:
            found = None
        if found is not None:
            return found
    return Detail(said) if said.strip() else None


def _of_object(said: dict[str, Any], depth: int) -> Detail | None:
    message: object = next((said[name] for name in _MESSAGES if said.get(name)), None)
    if message is None:
        message = next((said[name] for name in _TEXTS if said.get(name)), None)
    if message is None and not (depth and ("code" in said or "type" in said)):
        if isinstance(said.get("loc"), list):
            return _field(said)
        return None
    if isinstance(said.get("loc"), list):
        return _field(said)
    inner = _found(message, depth + 1) if message is not None else None
    return _completed(inner or Detail(message), said)


def _field(said: dict[str, Any]) -> Detail:
    """Return what FastAPI says of a field that is wrong."""
    where = ".".join(str(part) for part in said["loc"] if part != "body")
    return Detail(said.get("msg"), where or None)


def _completed(found: Detail, around: dict[str, Any]) -> Detail:
    """Return an error with what stands beside its words."""
    code = next((around[name] for name in _CODES if _says(around.get(name))), None)
    kind = next((around[name] for name in _KINDS if isinstance(around.get(name), str)), None)
    inner = around.get("innererror")  # Azure's reason
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        kind = inner["code"]
    metadata = around.get("metadata")
    flagged = isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata)
    return Detail(
        found.message,
        found.param if found.param is not None else around.get("param"),
        found.code if _says(found.code) else code,
        found.kind if found.kind is not None else kind,
        found.flagged or flagged,
        found.pause if found.pause is not None else _pause(around),
    )


def _says(code: object) -> bool:
    return isinstance(code, str | int) and not isinstance(code, bool) and code not in {"", 0, 200}


def _pause(said: dict[str, Any]) -> object:
    """Return the pause that an error names: some name it in the body alone (Google's RetryInfo)."""
    details = said.get("details")
    for place in (said, *(details if isinstance(details, list) else ())):
        if isinstance(place, dict):
            found = next((place[name] for name in _PAUSES if place.get(name) is not None), None)
            if found is not None:
                return found
    return None
