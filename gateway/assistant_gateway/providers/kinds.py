"""The families of providers that do not speak the OpenAI wire: where each is, how it is shown its key, who bills.

A closed list: each of them is tested against a server that speaks its wire. What speaks OpenAI's is relayed natively.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

NATIVE = "openai"


class Family(NamedTuple):
    """What is known of a family. `hosts` are those that LiteLLM addresses; calls to any other are refused."""

    library: str  # LiteLLM's name of it
    base: str
    hosts: frozenset[str]
    models: str  # path that lists models without costing money; empty: there is none
    key_header: str
    last: bytes  # what stands in a stream that was not cut short
    key_prefix: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    embeds: bool = False  # whether embeddings are translated


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "anthropic": Family(
            "anthropic",
            "https://api.anthropic.com",
            frozenset({"api.anthropic.com"}),
            "/v1/models",
            "x-api-key",
            b"message_stop",
            headers=MappingProxyType({"anthropic-version": "2023-06-01"}),
        ),
        "gemini": Family(
            "gemini",
            "https://generativelanguage.googleapis.com",
            frozenset({"generativelanguage.googleapis.com"}),
            "/v1beta/models",
            "x-goog-api-key",
            b'"finishReason"',
            embeds=True,
        ),
        "cohere": Family(
            "cohere_chat",
            "https://api.cohere.com",
            frozenset({"api.cohere.com", "api.cohere.ai"}),
            "/v1/models",
            "Authorization",
            b"message-end",
            "Bearer ",
            embeds=True,
        ),
        # The endpoint that runs models lists none; which host it is depends on the region.
        "bedrock": Family("bedrock", "", frozenset(), "", "Authorization", b"messageStop", "Bearer "),
    }
)
KINDS = (NATIVE, *FAMILIES)


class AwsKey(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The content of a key file for Bedrock: an access key pair, or an API key of Bedrock's; and the region."""

    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"AwsKey(region={self.region!r})"


class Access(msgspec.Struct, frozen=True):
    """How one provider is reached. Holds keys: never logged."""

    base: str
    headers: Mapping[str, str]  # for the list of models
    credentials: Mapping[str, str]  # LiteLLM's names of them
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Access({self.base!r})"


def access(kind: str, url: str, key: str | None) -> Access:
    """Return how a provider of this kind is reached; `url` empty: at the family's own address.

    Raises:
        ValueError: the key is not what the family takes; nothing of it is in the text.
    """
    family = FAMILIES[kind]
    if kind == "bedrock":
        return _bedrock(family, url, key)
    headers = dict(family.headers)
    if key:
        headers[family.key_header] = family.key_prefix + key
    return Access(url or family.base, headers, {"api_key": key or ""}, (key,) if key else ())


def _bedrock(family: Family, url: str, key: str | None) -> Access:
    if not key:  # calls are refused until it is there
        return Access(url or "https://bedrock-runtime.us-east-1.amazonaws.com", {}, {}, ())
    try:
        said = msgspec.json.decode(key, type=AwsKey)
    except msgspec.MsgspecError:
        raise ValueError(
            'a key for bedrock is JSON: {"region": ..., "accessKeyId": ..., "secretAccessKey": ..., "sessionToken"?:'
            ' ...} or {"region": ..., "apiKey": ...}'
        ) from None
    if not said.region.replace("-", "").isalnum() or not said.region.isascii():
        raise ValueError("the key's region is not a region's name")
    base = url or f"https://bedrock-runtime.{said.region}.amazonaws.com"
    names = {"aws_region_name": said.region, "aws_bedrock_runtime_endpoint": base}
    if said.api_key:
        headers = {family.key_header: family.key_prefix + said.api_key}
        return Access(base, headers, {**names, "api_key": said.api_key}, (said.api_key,))
    if not said.access_key_id or not said.secret_access_key:
        raise ValueError("a key for bedrock needs accessKeyId and secretAccessKey, or apiKey")
    names |= {"aws_access_key_id": said.access_key_id, "aws_secret_access_key": said.secret_access_key}
    secrets = [said.secret_access_key]
    if said.session_token:
        names["aws_session_token"] = said.session_token
        secrets.append(said.session_token)
    return Access(base, {}, names, tuple(secrets))
