"""The operator says who it is by the UID of its ServiceAccount."""

import base64
import json

import pytest

from assistant_operator.identity import account_uid


def token(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("content", "uid"),
    [
        (
            token(
                {"kubernetes.io": {"namespace": "p", "serviceaccount": {"name": "assistant-operator", "uid": "u-1"}}}
            ),
            "u-1",
        ),
        (token({"sub": "x"}), ""),
        ("operator-token\n", ""),
        ("a.!!.b", ""),
        ("", ""),
    ],
)
def test_the_uid_is_that_of_the_token(tmp_path, content, uid):
    """What is no token of a ServiceAccount has none."""
    file = tmp_path / "token"
    file.write_text(content)
    assert account_uid(file) == uid
    assert account_uid(tmp_path / "missing") == ""
