"""A translated answer, in the shape of the answer of a provider that speaks the OpenAI wire.

The relay uses a few parts of aiohttp's answer; these are they. An event is made when it is asked for and not before, so
a client that reads slowly slows the provider down, and nothing piles up here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from multidict import CIMultiDict


class Content:
    """The body: pieces of OpenAI's wire, one event each."""

    def __init__(self, pull: Callable[[], Awaitable[bytes]], interrupt: Callable[[BaseException], None]) -> None:
        self._pull = pull
        self._interrupt = interrupt
        self._error: BaseException | None = None

    def is_eof(self) -> bool:
        """Return whether all of it is here: nobody knows, and whoever reads may have to wait."""
        return False

    async def readany(self) -> bytes:
        """Return the next piece, nothing at the end.

        Raises:
            ClientError, ConnectionError, TimeoutError: the provider broke off; or what was set from outside.
        """
        if self._error is not None:
            raise self._error
        piece = await self._pull()
        if self._error is not None:
            raise self._error
        return piece

    def set_exception(self, error: BaseException) -> None:
        """End the body with an error, for the one who waits for a piece as well."""
        self._error = error
        self._interrupt(error)


class TranslatedAnswer:
    """A success; refusals are raised before there is one."""

    def __init__(self, content_type: str, content: Content, close: Callable[[], None]) -> None:
        self.status = int(HTTPStatus.OK)
        self.headers: Mapping[str, str] = CIMultiDict({"Content-Type": content_type})
        self.content = content
        self._close = close

    def close(self) -> None:
        """End the provider's connection unless it has been read to its end."""
        self._close()
