"""What decoding somebody's JSON may raise."""

from __future__ import annotations

import msgspec

# The last is how msgspec refuses endless nesting.
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
