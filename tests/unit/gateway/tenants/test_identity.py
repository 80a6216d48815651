"""Tokens and signing keys, with a clock and a cluster that the test holds in its hand."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from assistant_crds import naming
from assistant_gateway.errors import GatewayError
from assistant_gateway.tenants import identity
from assistant_gateway.tenants.identity import Authenticator, Identity, SigningKeys
from assistant_gateway.tenants.kubernetes import ClusterError

ISSUER = "https://cluster.example"


@functools.cache
def rsa_key(kid: str) -> rsa.RSAPrivateKey:
    """One key of each name for all tests: to make one takes longer than any test."""
    return rsa.generate_private_key(65537, 2048)


class Cluster:
    """The discovery documents of a cluster whose keys can change, and which can be away."""

    def __init__(self) -> None:
        self.keys: dict[str, object] = {}
        self.away = False
        self.asked: list[str] = []
        self.add("one")

    def add(self, kid: str, curve: ec.EllipticCurve | None = None) -> None:
        """Have a key."""
        self.keys[kid] = ec.generate_private_key(curve) if curve else rsa_key(kid)

    async def get(self, path: str) -> bytes:
        """Answer as the API server does."""
        self.asked.append(path)
        if self.away:
            raise ClusterError(0, "away")
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": ISSUER, "jwks_uri": "ignored"}).encode()
        documents = []
        for kid, key in self.keys.items():
            kind = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else None
            document = (kind or jwt.algorithms.RSAAlgorithm).to_jwk(key.public_key(), as_dict=True)
            documents.append({**document, "kid": kid, "use": "sig"})
        return json.dumps({"keys": documents}).encode()

    def sign(self, kid: str = "one", algorithm: str = "RS256", **changes: object) -> str:
        """Return a header with a token as the cluster makes it."""
        claims = {
            "iss": ISSUER,
            "aud": [naming.GATEWAY_AUDIENCE],
            "exp": time.time() + 3600,
            "iat": time.time(),
            "sub": "system:serviceaccount:acme:assistant-api",
            "kubernetes.io": {"namespace": "acme", "serviceaccount": {"name": "assistant-api", "uid": "u"}},
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return "Bearer " + jwt.encode(claims, self.keys[kid], algorithm=algorithm, headers={"kid": kid})


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
async def made() -> tuple[Cluster, Clock, SigningKeys, Authenticator]:
    """A cluster, a clock, and an authenticator that has loaded the keys."""
    cluster, clock = Cluster(), Clock()
    keys = SigningKeys(cluster, clock=clock)
    await keys.refresh()
    return cluster, clock, keys, Authenticator(keys, clock)


async def test_good_token_names_tenant_and_account(made: tuple) -> None:
    """The namespace and the ServiceAccount come from the token's own claims."""
    cluster, _, _, authenticator = made
    assert await authenticator.identify(cluster.sign()) == Identity("acme", "assistant-api")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
async def test_elliptic_keys_are_understood(curve: ec.EllipticCurve, made: tuple) -> None:
    """Clusters that sign with elliptic curves work as well."""
    cluster, clock, _, authenticator = made
    cluster.add("ec", curve)
    clock.now += 11
    algorithm = {256: "ES256", 384: "ES384", 521: "ES512"}[curve.key_size]
    assert await authenticator.identify(cluster.sign("ec", algorithm)) == Identity("acme", "assistant-api")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": ["other"]},
        {"aud": None},
        {"exp": time.time() - 60},
        {"exp": None},
        {"iat": None},
        {"nbf": time.time() + 600},
        {"sub": "system:serviceaccount:other:assistant-api"},
        {"sub": None},
        {"kubernetes.io": None},
        {"kubernetes.io": {"namespace": "acme"}},
        {"kubernetes.io": {"namespace": 3, "serviceaccount": {"name": "assistant-api"}}},
        {"kubernetes.io": "acme"},
    ],
)
async def test_wrong_claim_is_a_401(changes: dict, made: tuple) -> None:
    """Every claim has to be there and right."""
    cluster, _, _, authenticator = made
    with pytest.raises(GatewayError) as raised:
        await authenticator.identify(cluster.sign(**changes))
    assert raised.value.status == 401


async def test_signature_is_checked_once_and_expiry_every_time(made: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known token costs no second signature check, and is refused from the moment it expires."""
    cluster, clock, _, authenticator = made
    checks = count_calls(monkeypatch, identity.jwt, "decode")
    token = cluster.sign(exp=clock.now + 100)
    for _ in range(5):
        await authenticator.identify(token)
    assert checks() == 1
    clock.now += 101
    monkeypatch.setattr(identity, "CLOCK_LEEWAY_SECONDS", -200)  # the library has a clock of its own
    with pytest.raises(GatewayError):
        await authenticator.identify(token)
    assert checks() == 2


def count_calls(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> Callable[[], int]:
    """Count the calls of a function that goes on working."""
    real, calls = getattr(module, name), []

    def counted(*arguments: object, **named: object) -> object:
        calls.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, counted)
    return lambda: len(calls)


async def test_keys_stay_while_the_cluster_is_away(made: tuple) -> None:
    """Tokens are checked with the last good keys when the API server does not answer."""
    cluster, clock, keys, authenticator = made
    cluster.away = True
    clock.now += 1000
    with pytest.raises(ClusterError):
        await keys.refresh()
    assert keys.loaded
    assert (await authenticator.identify(cluster.sign())).namespace == "acme"


async def test_new_key_is_fetched_when_first_seen(made: tuple) -> None:
    """After a rotation the first token with the new key is enough, and costs one request."""
    cluster, clock, _, authenticator = made
    cluster.add("two")
    clock.now += 11
    asked = len(cluster.asked)
    assert (await authenticator.identify(cluster.sign("two"))).namespace == "acme"
    assert len(cluster.asked) - asked == 2


async def test_unknown_keys_are_asked_for_once_in_ten_seconds(made: tuple) -> None:
    """Made-up key ids cannot be used to make the gateway flood the API server."""
    cluster, clock, keys, _ = made
    clock.now += 11
    asked = len(cluster.asked)
    assert [await keys.find(f"made-up-{number}") for number in range(50)] == [None] * 50
    assert len(cluster.asked) - asked == 2


async def test_token_of_a_key_that_is_gone_is_refused(made: tuple) -> None:
    """When the cluster withdraws a key, tokens that were already known by it stop working."""
    cluster, clock, keys, authenticator = made
    token = cluster.sign()
    await authenticator.identify(token)
    cluster.add("two")
    del cluster.keys["one"]
    clock.now += 11
    await keys.refresh()
    with pytest.raises(GatewayError):
        await authenticator.identify(token)


async def test_memory_of_tokens_is_bounded(made: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many tokens are remembered; the one used last is among them."""
    cluster, _, _, authenticator = made
    monkeypatch.setattr(identity, "REMEMBERED_TOKENS", 3)
    for number in range(6):
        await authenticator.identify(cluster.sign(jti=str(number)))
    assert len(authenticator._remembered) == 3


async def test_configured_issuer_is_the_one_that_counts() -> None:
    """Where the issuer is set, the cluster is asked for its keys only."""
    cluster = Cluster()
    keys = SigningKeys(cluster, "https://issuer.example")
    await keys.refresh()
    assert cluster.asked == ["/openid/v1/jwks"]
    with pytest.raises(GatewayError):
        await Authenticator(keys).identify(cluster.sign())
    assert await Authenticator(keys).identify(cluster.sign(iss="https://issuer.example"))


async def test_nothing_is_accepted_before_the_keys_are_there() -> None:
    """Without keys every token is refused."""
    cluster = Cluster()
    cluster.away = True
    with pytest.raises(GatewayError):
        await Authenticator(SigningKeys(cluster)).identify(cluster.sign())
