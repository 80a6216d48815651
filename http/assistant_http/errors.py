"""What can go wrong between a request and the end of its answer."""

from __future__ import annotations


class HttpError(Exception):
    """The exchange failed. The sentence says why in words that hold no address."""


class InvalidUrlError(HttpError):
    """It is no URL of HTTP."""


class NotConnectedError(HttpError):
    """No connection was made, so nothing was sent; its cause is the `OSError`."""


class ConnectTimeoutError(HttpError):
    """No connection was made in time."""


class HeadTimeoutError(HttpError):
    """An answer did not begin in time."""


class StaleConnectionError(HttpError):
    """A connection that had been kept was closed as it was used again: in all likelihood nobody saw the request."""


class NotHttpError(HttpError):
    """What came is not HTTP, or more of it than a head may have."""
