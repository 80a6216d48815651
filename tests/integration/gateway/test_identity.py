"""Who may call: tokens of a real API server, and every way in which one can be wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from gateway_world import PLATFORM, ROUTES, Cluster, Running, policy

from assistant_crds import contracts, naming

CHAT = {"model": "good", "messages": [{"role": "user", "content": "Hi"}]}


async def post(gateway: Running, authorization: str | None) -> tuple[int, dict]:
    """Send a chat request with this header; return status and error."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with gateway.client.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers) as answer:
        return answer.status, (await answer.json()).get("error", {})


async def test_tenant_is_the_namespace_of_the_token(cluster: Cluster, gateway: Running) -> None:
    """Two tenants with assistants of the same name each see their own models, and nobody else's."""
    cluster.put_policy(policy("identity-a", ["good", "echoes"]))
    cluster.put_policy(policy("identity-b", ["good"]))
    seen = {}
    for namespace in ("identity-a", "identity-b", "identity-none"):
        headers = {"Authorization": f"Bearer {cluster.token(namespace)}"}
        async with gateway.client.get(f"{gateway.url}/v1/models", headers=headers) as answer:
            seen[namespace] = [model["id"] for model in (await answer.json())["data"]]
    assert seen == {"identity-a": ["echoes", "good"], "identity-b": ["good"], "identity-none": []}


async def test_unknown_assistant_is_a_404_in_the_envelope(cluster: Cluster, gateway: Running) -> None:
    """A tenant without this assistant, or without a policy at all, is told so as OpenAI would."""
    status, error = await post(gateway, f"Bearer {cluster.token('identity-none')}")
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer é", "Bearer x"]
)
async def test_no_token_is_a_401(authorization: str | None, gateway: Running) -> None:
    """Without a token there is no service, and the answer says what to send."""
    status, error = await post(gateway, authorization)
    assert (status, error["code"]) == (401, "invalid_api_key")


async def test_token_for_another_audience_is_refused(cluster: Cluster, gateway: Running) -> None:
    """A token that was made for the API server does not open the gateway."""
    status, error = await post(gateway, f"Bearer {cluster.token('identity-a', naming.API, '')}")
    assert status == 401
    assert naming.GATEWAY_AUDIENCE in error["message"]


async def test_other_service_accounts_are_forbidden(cluster: Cluster, gateway: Running) -> None:
    """Another ServiceAccount of the same namespace is known and may not call models."""
    status, error = await post(gateway, f"Bearer {cluster.token('identity-a', 'default-ish')}")
    assert (status, error["code"]) == (403, "service_account_not_allowed")


async def test_operator_may_not_call_models(cluster: Cluster, gateway: Running) -> None:
    """The operator's token is for probes only."""
    status, _ = await post(gateway, f"Bearer {cluster.token(PLATFORM, 'assistant-operator')}")
    assert status == 403


@pytest.mark.parametrize("kid", ["stolen", "made-up", None])
async def test_forged_token_is_refused(kid: str | None, cluster: Cluster, gateway: Running) -> None:
    """A token with all the right claims but another signature is refused, whatever key it names."""
    genuine = cluster.token("identity-a")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    headers = {"kid": jwt.get_unverified_header(genuine)["kid"] if kid == "stolen" else kid} if kid else {}
    forged = jwt.encode(claims, key, algorithm="RS256", headers=headers)
    status, error = await post(gateway, f"Bearer {forged}")
    assert (status, error["code"]) == (401, "invalid_api_key")


async def test_unsigned_and_hmac_tokens_are_refused(cluster: Cluster, gateway: Running) -> None:
    """Neither `none` nor an HMAC over the public key passes for the cluster's signature."""
    genuine = cluster.token("identity-a")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    kid = {"kid": jwt.get_unverified_header(genuine)["kid"]}
    for token in (
        jwt.encode(claims, None, algorithm="none", headers=kid),
        jwt.encode(claims, "x" * 32, algorithm="HS256", headers=kid),
    ):
        status, _ = await post(gateway, f"Bearer {token}")
        assert status == 401


async def test_made_up_key_ids_do_not_make_the_gateway_ask_again_and_again(
    cluster: Cluster, gateway: Running, kube
) -> None:
    """A flood of unknown key ids costs the API server at most one request in ten seconds."""

    def asked() -> int:
        return kube.audit_log.read_text().count("/openid/v1/jwks")

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    before = asked()
    for number in range(20):
        token = jwt.encode({"exp": time.time() + 60}, key, algorithm="RS256", headers={"kid": f"k{number}"})
        assert (await post(gateway, f"Bearer {token}"))[0] == 401
    assert asked() - before <= 2  # each request is logged up to twice


def account(cluster: Cluster, namespace: str, name: str = naming.API) -> str:
    """Return the UID of a ServiceAccount."""
    return cluster.run("get", "serviceaccount", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}").strip()


async def test_the_token_of_a_former_service_account_is_a_401(cluster: Cluster, gateway: Running) -> None:
    """A namespace made again under its name has another account: tokens of the former one are nobody's."""
    former = cluster.token("identity-again")
    cluster.put_policy(policy("identity-again", ["good"], service_account_uid=account(cluster, "identity-again")))
    assert (await eventually(gateway, former, 200)) == 200

    cluster.run("delete", "serviceaccount", naming.API, "-n", "identity-again")
    del cluster.tokens["identity-again", naming.API, naming.GATEWAY_AUDIENCE]
    present = cluster.token("identity-again")
    cluster.put_policy(policy("identity-again", ["good"], service_account_uid=account(cluster, "identity-again")))
    assert (await eventually(gateway, former, 401)) == 401
    for path in ("/v1/models", "/v1/models/good", "/v1/usage"):
        async with gateway.client.get(f"{gateway.url}{path}", headers=bearer(former)) as answer:
            assert answer.status == 401, path
    assert (await eventually(gateway, present, 200)) == 200


async def test_a_policy_of_no_account_lets_nobody_in(cluster: Cluster, gateway: Running) -> None:
    """While a tenant has no ServiceAccount, or is being removed, no token opens anything."""
    cluster.put_policy(policy("identity-nobody", ["good"], service_account_uid=""))
    assert (await eventually(gateway, cluster.token("identity-nobody"), 401)) == 401


async def test_the_token_of_a_former_operator_is_a_401(cluster: Cluster, gateway: Running) -> None:
    """Once an operator has said who it is, its name alone does not open the probes."""
    cluster.put_policy(policy("identity-a", ["good", "echoes"]))
    token = cluster.token(PLATFORM, "assistant-operator")
    url = f"{gateway.url}/internal/v1/tenants/identity-a/probe"
    labels = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
    try:
        for uid, expected in (("another", 401), (account(cluster, PLATFORM, "assistant-operator"), 200)):
            document = base64.b64encode(contracts.encode(contracts.OperatorIdentity(service_account_uid=uid))).decode()
            metadata = {"name": naming.OPERATOR_SECRET, "namespace": ROUTES, "labels": labels}
            secret = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": metadata,
                "data": {naming.OPERATOR_KEY: document},
            }
            cluster.apply(secret)
            assert (await eventually(gateway, token, expected, url)) == expected
    finally:
        cluster.run("delete", "secret", naming.OPERATOR_SECRET, "-n", ROUTES)


def bearer(token: str) -> dict[str, str]:
    """Return the header."""
    return {"Authorization": f"Bearer {token}"}


async def eventually(gateway: Running, token: str, expected: int, url: str = "") -> int:
    """Ask until the status is the expected one, for at most ten seconds; return the last."""
    status = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while status != expected:
                async with gateway.client.get(url or f"{gateway.url}/v1/models/good", headers=bearer(token)) as answer:
                    status = answer.status
                await asyncio.sleep(0.02)
    return status


async def test_probe_is_for_the_operator_alone(cluster: Cluster, gateway: Running) -> None:
    """A tenant may not ask for probes, not even its own; the operator of another namespace may not either."""
    cluster.put_policy(policy("identity-a", ["good", "echoes"]))
    url = f"{gateway.url}/internal/v1/tenants/identity-a/probe"
    for token, expected in (
        (cluster.token("identity-a"), 403),
        (cluster.token("identity-a", "assistant-operator"), 403),
        (cluster.token(PLATFORM, "assistant-operator"), 200),
    ):
        async with gateway.client.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == expected
