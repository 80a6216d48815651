"""How the families are reached: addresses, keys, and what is refused at the start rather than at a call."""

import json

import pytest

from assistant_gateway.providers.catalog import CatalogError, Provider, target
from assistant_gateway.providers.kinds import FAMILIES, KINDS, access

AWS = {"region": "eu-central-1", "accessKeyId": "AKID", "secretAccessKey": "aws-secret-0123456789"}


@pytest.mark.parametrize("kind", FAMILIES)
def test_repr_holds_no_key(kind: str) -> None:
    """A target and its parts can be printed."""
    key = json.dumps(AWS) if kind == "bedrock" else "aws-secret-0123456789"
    made = target("p", Provider(kind=kind, key_ref="k"), key)
    assert made.secret == b"aws-secret-0123456789"
    assert "aws-secret" not in repr(made) + repr(access(kind, "", key))


def test_each_family_has_an_address_and_a_bill() -> None:
    """Without a URL calls go to the family's own address, and its public prices hold; a URL takes its place."""
    claude = target("p", Provider(kind="anthropic", key_ref="k"), "sk-0123456789")
    assert (str(claude.models), claude.billed_by) == ("https://api.anthropic.com/v1/models", "anthropic")
    assert claude.headers["x-api-key"] == "sk-0123456789"
    assert "Authorization" not in claude.headers
    other = target("p", Provider(kind="gemini", key_ref="k", url="https://proxy.example/g/"), "sk-0123456789")
    assert str(other.models) == "https://proxy.example/g/v1beta/models"
    bedrock = target("p", Provider(kind="bedrock", key_ref="k"), json.dumps(AWS))
    assert bedrock.chat.host == "bedrock-runtime.eu-central-1.amazonaws.com"
    bearer = target("p", Provider(kind="bedrock", key_ref="k"), '{"region": "eu-west-1", "apiKey": "br-0123456789"}')
    assert bearer.headers["Authorization"] == "Bearer br-0123456789"


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        (Provider(kind="claude", key_ref="k"), "sk-0123456789", f"kinds are: {', '.join(KINDS)}"),
        (Provider(kind="anthropic"), None, "needs a keyRef"),
        (Provider(kind="anthropic", key_ref="k", url="ftp://x"), "sk-0123456789", "http://"),
        (Provider(kind="anthropic", key_ref="k"), "sk-\n0123456789", "no header can carry"),
        (Provider(kind="bedrock", key_ref="k"), "not-json-0123456789", "is JSON"),
        (Provider(kind="bedrock", key_ref="k"), '{"region": "a/../b", "apiKey": "not-json-0123456789"}', "region"),
        (Provider(kind="bedrock", key_ref="k"), '{"region": "eu-west-1", "accessKeyId": "not-json"}', "needs"),
        (Provider(kind="bedrock", key_ref="k"), '{"region": "eu-west-1", "x": "not-json"}', "is JSON"),
        (Provider(), "sk-0123456789", "url has to start"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_key(settings: Provider, key: str | None, says: str) -> None:
    """The message says what to do, and holds nothing of the key."""
    with pytest.raises(CatalogError) as caught:
        target("p", settings, key)
    assert says in str(caught.value)
    assert "not-json" not in str(caught.value)
    assert "0123456789" not in str(caught.value)
