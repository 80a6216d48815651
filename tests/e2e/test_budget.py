"""A budget of one cent on the whole platform: spent, refused, shown, raised, and out of the tenant's reach."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from e2e_platform import PLATFORM, ROUTES, NewTenant, Platform, Tenant, eventually

from assistant_crds import naming
from assistant_demo.installation import PROVIDER_KEYS
from assistant_demo.settings import STAND_IN

CENT = {"amount": "0.01", "currency": "USD", "period": "Month"}
DOLLAR = {"amount": "1.00", "currency": "USD", "period": "Month"}
HELLO = [{"role": "user", "content": "Hello"}]
TOKENS = 20  # of an answer: 2,000 micro-units at the price in `e2e_values`
FEW = 50  # calls that a cent may admit at most, if the stand-in's answers are short
RAISED_SECONDS = 10.0  # the promise is 2 s; a busy machine gets some grace
SHOWN_SECONDS = 90.0  # status shows usage once a minute at most
USER = "ada@example.com"


def ask(client: openai.OpenAI, model: str = "frugal") -> openai.types.CompletionUsage | None:
    """Ask once, on a short leash."""
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=TOKENS, user=USER)  # type: ignore[arg-type]
    assert answer.choices[0].message.content
    return answer.usage


def spend(client: openai.OpenAI) -> tuple[int, openai.RateLimitError]:
    """Ask until refused; returns how often there was an answer, and the refusal."""
    for answered in range(FEW):
        try:
            ask(client)
        except openai.RateLimitError as error:
            return answered, error
    raise AssertionError(f"{FEW} calls were admitted by a budget of one cent")


def columns(tenant: Tenant) -> dict[str, str]:
    """What `kubectl get asst` prints of the frugal assistant."""
    head, row = tenant.cluster.kubectl("get", "asst", "frugal", "-n", tenant.namespace).splitlines()
    starts = [head.index(title) for title in head.split()]
    return {
        title: row[start:end].strip()
        for title, start, end in zip(head.split(), starts, [*starts[1:], None], strict=True)
    }


def usage(tenant: Tenant, **parameters: str) -> dict[str, Any]:
    """Return the tenant's report of usage."""
    with tenant.http() as client:
        answer = client.get("/v1/usage", params=parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def requests(found: dict[str, Any]) -> int:
    """Calls of a report, those on their way to the ledger included."""
    return sum(total["requests"] for total in [*found["totals"], *(found["pending"] or {}).get("totals", [])])


def test_a_budget_of_a_cent_answers_then_refuses_and_a_raised_one_admits(new_tenant: NewTenant) -> None:
    """From the first answer to the refusal, in every place where people look, and back by one `kubectl apply`."""
    tenant = new_tenant("cent")
    tenant.assistant("frugal", limits={"budget": CENT})
    tenant.wait_ready()
    with tenant.openai() as client:
        answered, refusal = spend(client)
        print(f"\nanswers for one cent: {answered}")
        assert answered >= 1
        _check_refusal(refusal)
        _check_shown(tenant)
        _check_usage(tenant, answered)

        applied = time.monotonic()
        tenant.assistant("frugal", limits={"budget": DOLLAR})
        eventually(lambda: _admitted(client), seconds=RAISED_SECONDS + 20, every=0.1)
        took = time.monotonic() - applied
        print(f"raised budget admits after {took:.2f} s")
        assert took <= RAISED_SECONDS
    tenant.wait_condition("assistant", "frugal", "QuotaExhausted", "False", seconds=SHOWN_SECONDS)
    assert columns(tenant)["LIMIT"] == "1.00 USD/Month"


def _check_refusal(refusal: openai.RateLimitError) -> None:
    """The class, the code, and what is left: less than a call may cost, and never below nothing."""
    headers = refusal.response.headers
    assert refusal.code == "budget_exhausted"
    assert refusal.status_code == 429
    assert headers["x-should-retry"] == "false"
    assert 0 < int(headers["retry-after"]) <= 31 * 86_400
    assert headers["x-budget-limit"] == "0.010000"
    assert Decimal(0) <= Decimal(headers["x-budget-remaining"]) < Decimal("0.01")
    assert headers["x-budget-currency"] == "USD"


def _check_shown(tenant: Tenant) -> None:
    """SPENT and LIMIT in the table, and the condition with its reason; the assistant stays Ready all the same."""
    condition = tenant.wait_condition("assistant", "frugal", "QuotaExhausted", "True", seconds=SHOWN_SECONDS)
    assert condition["reason"] == "BudgetExhausted"

    def shown() -> None:
        row = columns(tenant)
        assert row["LIMIT"] == "0.01 USD/Month"
        assert row["SPENT"] in {"<0.01 USD", "0.01 USD"}
        assert row["READY"] == "True"

    eventually(shown, seconds=SHOWN_SECONDS, every=1)


def _check_usage(tenant: Tenant, answered: int) -> None:
    """Each answer is in the report, with its cost and for its user; the refused call is not; no more than a cent."""

    def arrived() -> dict[str, Any]:
        found = usage(tenant, group_by="assistant,user,model")
        assert requests(found) == answered, found
        assert sum(total["requests"] for total in found["totals"]) == answered, "not in the ledger yet"
        return found

    found = eventually(arrived, seconds=30, every=0.5)
    (row,) = found["data"]
    assert (row["assistant"], row["user"], row["model"]) == ("frugal", USER, STAND_IN.chat)
    assert (row["requests"], row["currency"], row["estimated_requests"]) == (answered, "USD", 0)
    assert Decimal(0) < Decimal(row["cost"]) <= Decimal("0.01")
    # Prices of `e2e_values`, each call rounded up to a micro-unit.
    exact = Decimal(row["input_tokens"]) * Decimal("0.0000001") + Decimal(row["output_tokens"]) * Decimal("0.0001")
    assert exact <= Decimal(row["cost"]) <= exact + answered * Decimal("0.000001")
    with tenant.http() as client:
        problem = client.get("/api/v1/usage", params={"from": "yesterday"}, headers={"accept-language": "de"})
        assert (problem.status_code, problem.json()["field"]) == (400, "from")
        table = client.get("/api/v1/usage", params={"group_by": "user"}, headers={"accept": "text/csv"})
        assert table.headers["content-type"].startswith("text/csv")
        assert table.text.splitlines()[1].startswith(f"{USER},{answered},")


def _admitted(client: openai.OpenAI) -> None:
    try:
        ask(client)
    except openai.RateLimitError as error:
        raise AssertionError(str(error)) from error


# --- what a tenant can reach


@pytest.fixture(scope="module")
def limited(shared_tenant: NewTenant) -> Tenant:
    """A tenant whose assistant has a budget."""
    tenant = shared_tenant("limited")
    tenant.assistant("frugal", limits={"budget": CENT})
    tenant.wait_ready()
    return tenant


def test_no_secret_of_a_tenant_holds_a_provider_key_or_a_limit(limited: Tenant, platform: Platform) -> None:
    """Whoever reads every Secret of the namespace finds the tenant's own credentials, and nothing of the gateway's."""
    provider_keys = set(platform.secret(PLATFORM, PROVIDER_KEYS).values())
    assert provider_keys, "there is no key to steal: the test shows nothing"
    policy = platform.secret(ROUTES, naming.policy_secret(limited.store_key))[naming.POLICY_KEY]
    assert "amountMicros" in policy, "the limit is elsewhere: the test shows nothing"
    secrets = limited.cluster.list("secrets", limited.namespace)
    assert secrets
    for found in secrets:
        for name, encoded in (found.get("data") or {}).items():
            value = base64.b64decode(encoded).decode(errors="replace")
            assert not any(key in value for key in provider_keys), f"{found['metadata']['name']}/{name}"
            assert "amountMicros" not in value
            assert naming.LEDGER not in value


@pytest.fixture(scope="module")
def as_pod(limited: Tenant) -> Callable[..., httpx.Response]:
    """Make a function that calls the API server as the tenant's `assistant-api`, with nothing but its token."""
    view = json.loads(limited.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    server = view["clusters"][0]["cluster"]
    encoded = server.get("certificate-authority-data")
    trusted = ssl.create_default_context(
        cafile=server.get("certificate-authority"), cadata=base64.b64decode(encoded).decode() if encoded else None
    )

    def call(method: str, path: str, audience: str = "", content: str | None = None) -> httpx.Response:
        audiences = [f"--audience={audience}"] if audience else []
        command = ("create", "token", naming.API, "-n", limited.namespace, "--duration=10m")
        token = limited.cluster.kubectl(*command, *audiences).strip()
        headers = {"authorization": f"Bearer {token}"}
        if content is not None:
            headers["content-type"] = "application/merge-patch+json"
        with httpx.Client(base_url=server["server"], verify=trusted, trust_env=False, timeout=30) as client:
            return client.request(method, path, headers=headers, content=content)

    return call


def test_the_token_of_a_tenants_pod_changes_no_limit(limited: Tenant, as_pod: Callable[..., httpx.Response]) -> None:
    """Neither its Assistant, nor its Tenant, nor its policy; and the token that pods carry is none here at all."""
    group = f"/apis/{naming.API_VERSION}"
    own = f"{group}/namespaces/{limited.namespace}/assistants/frugal"
    policy = f"/api/v1/namespaces/{ROUTES}/secrets/{naming.policy_secret(limited.store_key)}"
    richer = json.dumps({"spec": {"limits": {"budget": {**CENT, "amount": "1000000.00"}}}})
    assert as_pod("GET", "/version").status_code == 200, "the token does not work at all: the test shows nothing"
    for method, path, content in (
        ("PATCH", own, richer),
        ("PATCH", f"{own}/status", json.dumps({"status": {"limit": "much"}})),
        ("DELETE", own, None),
        ("PATCH", f"{group}/tenants/{limited.namespace}", richer),
        ("GET", policy, None),
        ("PATCH", policy, json.dumps({"data": {naming.POLICY_KEY: base64.b64encode(b"{}").decode()}})),
        ("GET", f"/api/v1/namespaces/{limited.namespace}/secrets", None),
    ):
        answer = as_pod(method, path, content=content)
        assert answer.status_code == 403, (method, path, answer.status_code, answer.text)
    assert as_pod("PATCH", own, naming.GATEWAY_AUDIENCE, content=richer).status_code == 401
    assert limited.get("assistant", "frugal")["spec"]["limits"]["budget"] == CENT
