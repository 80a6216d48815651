"""What is no access token of this tenant is refused: the attacks that RFC 8725 names, and near misses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from accounts_world import AccountsWorld, Caller
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assistant_api.auth.tokens import Tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")


def b64(content: bytes | str | dict[str, Any]) -> str:
    if isinstance(content, dict):
        content = json.dumps(content, separators=(",", ":"))
    raw = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Forger:
    """Makes tokens out of a good one; it holds the tenant's key, so that only what a case changes is wrong."""

    def __init__(self, world: AccountsWorld, good: str) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(world.seed)
        self.tokens = Tokens(world.seed)
        self.good = good
        header, payload, self.signature = good.split(".")
        self.header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(f"{header}=="))
        self.payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(f"{payload}=="))

    def sign(self, header: Any, payload: Any, key: Ed25519PrivateKey | None = None) -> str:
        signed = f"{b64(header)}.{b64(payload)}"
        return f"{signed}.{b64((key or self.key).sign(signed.encode()))}"

    def head(self, **changes: Any) -> str:
        return self.sign({**self.header, **changes}, self.payload)

    def claim(self, **changes: Any) -> str:
        return self.sign(self.header, {**self.payload, **changes})

    def without(self, name: str) -> str:
        return self.sign(self.header, {key: value for key, value in self.payload.items() if key != name})

    def unsigned(self, algorithm: str, signature: str = "") -> str:
        return f"{b64({**self.header, 'alg': algorithm})}.{b64(self.payload)}.{signature}"

    def symmetric(self, secret: bytes) -> str:
        signed = f"{b64({**self.header, 'alg': 'HS256'})}.{b64(self.payload)}"
        return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"

    def text(self, payload: str) -> str:
        return self.sign(self.header, payload)

    @property
    def written(self) -> str:
        return json.dumps(self.payload, separators=(",", ":"))


CASES: dict[str, Callable[[Forger], str]] = {
    "alg none": lambda f: f.unsigned("none"),
    "alg None": lambda f: f.unsigned("None"),
    "alg nOnE with the signature": lambda f: f.unsigned("nOnE", f.signature),
    "alg empty": lambda f: f.head(alg=""),
    "alg of another kind": lambda f: f.head(alg="ES256"),
    "alg Ed25519": lambda f: f.head(alg="Ed25519"),
    "alg missing": lambda f: f.sign({"kid": f.header["kid"], "typ": "at+jwt"}, f.payload),
    "alg a list": lambda f: f.head(alg=["EdDSA"]),
    "HS256 with the public key": lambda f: f.symmetric(f.tokens.jwks()["keys"][0]["x"].encode()),
    "HS256 with the raw public key": lambda f: f.symmetric(f.key.public_key().public_bytes_raw()),
    "HS256 with nothing": lambda f: f.symmetric(b""),
    "HS256 with the key id": lambda f: f.symmetric(f.header["kid"].encode()),
    "another key": lambda f: f.sign(f.header, f.payload, Ed25519PrivateKey.generate()),
    "another key in the header": lambda f: f.head(jwk=f.tokens.jwks()["keys"][0]),
    "kid unknown": lambda f: f.head(kid="other"),
    "kid a path": lambda f: f.head(kid="../../../../dev/null"),
    "kid a statement": lambda f: f.head(kid="' OR 1=1 --"),
    "kid missing": lambda f: f.sign({"alg": "EdDSA", "typ": "at+jwt"}, f.payload),
    "jku": lambda f: f.head(jku="http://127.0.0.1:1/keys"),
    "x5u": lambda f: f.head(x5u="http://127.0.0.1:1/chain"),
    "x5c": lambda f: f.head(x5c=["MIIB"]),
    "crit": lambda f: f.head(crit=["exp"]),
    "b64 false": lambda f: f.head(b64=False, crit=["b64"]),
    "zip": lambda f: f.head(zip="DEF"),
    "typ JWT": lambda f: f.head(typ="JWT"),
    "typ of an id token": lambda f: f.head(typ="id+jwt"),
    "typ missing": lambda f: f.sign({"alg": "EdDSA", "kid": f.header["kid"]}, f.payload),
    "header with a space": lambda f: f.sign(json.dumps(f.header), f.payload),
    "header with alg twice": lambda f: f.sign('{"alg":"none",' + json.dumps(f.header)[1:], f.payload),
    "aud of another service": lambda f: f.claim(aud="assistant-gateway"),
    "aud a list": lambda f: f.claim(aud=["assistant-api"]),
    "aud missing": lambda f: f.without("aud"),
    "iss of another tenant": lambda f: f.claim(iss="urn:assistantplatform:tenant:t_0000000000"),
    "iss missing": lambda f: f.without("iss"),
    "iss null": lambda f: f.claim(iss=None),
    "exp passed": lambda f: f.claim(iat=int(time.time()) - 700, exp=int(time.time()) - 100),
    "exp now": lambda f: f.claim(exp=int(time.time())),
    "exp missing": lambda f: f.without("exp"),
    "exp null": lambda f: f.claim(exp=None),
    "exp text": lambda f: f.claim(exp=str(f.payload["exp"])),
    "exp fractional": lambda f: f.claim(exp=f.payload["exp"] + 0.5),
    "exp far": lambda f: f.claim(exp=f.payload["iat"] + 86_400),
    "exp huge": lambda f: f.text(f.written.replace(str(f.payload["exp"]), "1e400")),
    "iat to come": lambda f: f.claim(iat=f.payload["iat"] + 300, exp=f.payload["iat"] + 400),
    "iat missing": lambda f: f.without("iat"),
    "nbf": lambda f: f.claim(nbf=f.payload["iat"]),
    "sub missing": lambda f: f.without("sub"),
    "sub no id": lambda f: f.claim(sub="admin"),
    "sid missing": lambda f: f.without("sid"),
    "jti missing": lambda f: f.without("jti"),
    "role twice": lambda f: f.text(f.written[:-1] + ',"role":"owner"}'),
    "sub twice": lambda f: f.text(f'{{"sub":"{uuid4()}",{f.written[1:]}'),
    "claims in another order": lambda f: f.text(json.dumps(dict(reversed(f.payload.items())), separators=(",", ":"))),
    "claims with spaces": lambda f: f.text(json.dumps(f.payload)),
    "an unknown claim": lambda f: f.claim(admin=True),
    "claims a list": lambda f: f.text("[]"),
    "claims no JSON": lambda f: f.text("{"),
    "claims empty": lambda f: f.text(""),
    "version a text": lambda f: f.claim(ver="1"),
    "payload of another token": lambda f: ".".join(
        (f.good.split(".")[0], b64({**f.payload, "role": "owner", "jti": "x"}), f.signature)
    ),
    "signature cut": lambda f: f.good[:-4],
    "signature empty": lambda f: f.good.rpartition(".")[0] + ".",
    "signature missing": lambda f: f.good.rpartition(".")[0],
    "signature with padding": lambda f: f"{f.good}==",
    "signature with stray bits": lambda f: f.good[:-1] + chr(ord(f.good[-1]) + 1),
    "signature of zeros": lambda f: f"{f.good.rpartition('.')[0]}.{b64(bytes(64))}",
    "four parts": lambda f: f"{f.good}.{f.signature}",
    "five parts": lambda f: "eyJ.a.b.c.d",
    "dots": lambda f: "eyJ..",
    "oversize": lambda f: f.claim(jti="x" * 3000),
    "oversize signature": lambda f: f.good + "A" * 5000,
    "not ASCII": lambda f: f"{f.good[:-1]}é",
    "quoted": lambda f: f'"{f.good}"',
}


async def test_there_are_enough_cases() -> None:
    """Each is another way to be wrong."""
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
async def test_what_is_no_token_is_refused(owner: Caller, world: AccountsWorld, case: str) -> None:
    """401 with a problem, for REST and for OpenAI's wire, and the good token beside it is taken."""
    forger = Forger(world, owner.access)
    token = CASES[case](forger)
    assert token != owner.access
    for path in ("/api/v1/users/me", "/v1/models"):
        headers = {"authorization": f"Bearer {token}".encode()}
        answer = await owner.client.get(path, headers=headers)
        assert answer.status_code == 401, (case, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_forger_could_make_a_good_token(owner: Caller, world: AccountsWorld) -> None:
    """What the cases change is all that is wrong with them."""
    forger = Forger(world, owner.access)
    fresh = forger.claim(jti="another")
    assert fresh != owner.access
    assert (await owner("GET", "users/me", token=fresh)).status_code == 200
