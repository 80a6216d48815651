"""Parameters of paths and queries that several rooms take in the same way."""

from __future__ import annotations

from uuid import UUID

from assistant_api.errors import ApiError, Kind, invalid_field

MAX_PAGE = 100  # entries


def check_limit(limit: int, most: int = MAX_PAGE) -> None:
    """Refuse a page of more than `most` entries, or of none; ApiError names the field `limit`."""
    if not 1 <= limit <= most:
        raise invalid_field("limit", "range", low="1", high=str(most))


def identifier(text: str, missing: Kind) -> UUID:
    """Return an object's id; text that cannot be one is the id of no object, so the ApiError is `missing`."""
    try:
        return UUID(text)
    except ValueError as error:
        raise ApiError(missing) from error
