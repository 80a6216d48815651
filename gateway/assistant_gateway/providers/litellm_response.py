"""A translated answer, in the shape of the answer of a provider that speaks the OpenAI wire.

An event is made when it is asked for and not before, so a client that reads slowly slows the provider down, and nothing
piles up here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from assistant_http.response import Sink


class TranslatedAnswer:
    """A success, see `assistant_http.response.Answer`; refusals are raised before there is one.

    `pull` gives the body: pieces of OpenAI's wire, one event each, nothing at the end. `interrupt` wakes up whoever
    waits in it, `close` ends the provider's connection unless that has been read to its end.
    """

    complete = False  # nobody knows whether whoever reads has to wait

    def __init__(
        self,
        content_type: str,
        pull: Callable[[], Awaitable[bytes]],
        interrupt: Callable[[Exception], None],
        close: Callable[[], None],
    ) -> None:
        self.status = int(HTTPStatus.OK)
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self._pull = pull
        self._interrupt = interrupt
        self._close = close
        self._error: Exception | None = None

    async def next(self, _straight: Sink | None = None) -> bytes:
        """Return the next piece; nothing is handed on by another way.

        Raises:
            HttpError, TimeoutError: the provider broke off; or what `fail` was given.
        """
        if self._error is not None:
            raise self._error
        piece = await self._pull()
        if self._error is not None:
            raise self._error
        return piece

    def fail(self, error: Exception) -> None:
        """End the body with an error, for the one who waits for a piece as well."""
        self._error = error
        self._interrupt(error)

    def close(self) -> None:
        """Give up what has not been read."""
        self._close()
