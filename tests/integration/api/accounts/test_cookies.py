"""Sessions of browsers: cookies that scripts cannot read and that count for the page of this origin only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import Morsel, SimpleCookie
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from accounts_world import EMAIL, GOOD_PASSWORD, PASSWORD, Caller
from api_process import KEY, ApiProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

TLS = {"x-forwarded-proto": "https"}  # what a proxy that ends TLS says
SIGN_IN = {"email": EMAIL, "password": PASSWORD}


def set_by(answer: httpx.Response) -> dict[str, Morsel[str]]:
    found: dict[str, Morsel[str]] = {}
    for line in answer.headers.get_list("set-cookie"):
        found.update(SimpleCookie(line))
    return found


@pytest.fixture
def page(apis: list[ApiProcess]) -> dict[str, str]:
    """The headers of a request by the page."""
    return {"origin": apis[0].url, "x-assistant-page": "1", "sec-fetch-site": "same-origin"}


@pytest_asyncio.fixture(loop_scope="module")
async def browser(apis: list[ApiProcess], page: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A browser whose page is signed in."""
    async with httpx.AsyncClient(base_url=apis[0].url, headers=page, timeout=60) as client:
        answer = await client.post("/api/v1/auth/cookie/login", json=SIGN_IN)
        assert answer.status_code == 200, answer.text
        yield client


async def test_no_token_is_in_the_answer(browser: httpx.AsyncClient) -> None:
    """Both are in cookies: of this host only, sent by no other site, out of scripts' reach."""
    answer = await browser.post("/api/v1/auth/cookie/login", json=SIGN_IN)
    assert answer.json().keys() == {"user_id", "session_id", "role"}
    cookies = set_by(answer)
    assert cookies.keys() == {"assistant-access", "assistant-refresh"}
    for cookie in cookies.values():
        assert cookie["httponly"]
        assert cookie["samesite"].lower() == "strict"
        assert (cookie["path"], cookie["domain"], cookie["secure"]) == ("/", "", "")
        assert cookie.value not in answer.text
    assert int(cookies["assistant-access"]["max-age"]) <= 600


async def test_over_tls_the_cookies_belong_to_this_host_alone(
    browser: httpx.AsyncClient, apis: list[ApiProcess]
) -> None:
    """`__Host-` and `Secure`; the plain names, which a neighbour could set, count for nothing there."""
    secure = {**TLS, "origin": apis[0].url.replace("http:", "https:")}
    answer = await browser.post("/api/v1/auth/cookie/login", json=SIGN_IN, headers=secure)
    cookies = set_by(answer)
    assert cookies.keys() == {"__Host-assistant-access", "__Host-assistant-refresh"}
    assert all(cookie["secure"] and cookie["path"] == "/" for cookie in cookies.values())
    plain = {"cookie": f"assistant-access={browser.cookies['assistant-access']}"}
    refused = await httpx.AsyncClient(base_url=apis[0].url).get("/api/v1/users/me", headers={**secure, **plain})
    assert refused.status_code == 401
    named = {"cookie": f"__Host-assistant-access={cookies['__Host-assistant-access'].value}"}
    assert (
        await httpx.AsyncClient(base_url=apis[0].url).get("/api/v1/users/me", headers={**TLS, **named})
    ).status_code == 200


async def test_a_cookie_is_as_good_as_a_token(browser: httpx.AsyncClient) -> None:
    """For reading and for changing."""
    assert (await browser.get("/api/v1/users/me")).json()["email"] == EMAIL
    changed = await browser.patch("/api/v1/users/me", json={"language": "de"})
    assert (changed.status_code, changed.json()["language"]) == (200, "de")
    assert (await browser.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": None},
        {"x-assistant-page": None},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
async def test_another_page_changes_nothing(
    browser: httpx.AsyncClient, page: dict[str, str], wrong: dict[str, Any]
) -> None:
    """Another site, a neighbour below the same domain, a form: none is the page, and none signs anybody in."""
    headers = {name: value for name, value in {**page, **wrong}.items() if value is not None}
    async with httpx.AsyncClient(base_url=browser.base_url, headers=headers, cookies=browser.cookies) as other:
        for method, path, body in (
            ("PATCH", "/api/v1/users/me", {"name": "Mallory"}),
            ("POST", "/api/v1/auth/cookie/login", SIGN_IN),
            ("POST", "/api/v1/auth/cookie/refresh", None),
            ("POST", "/api/v1/auth/cookie/logout", None),
        ):
            answer = await other.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
            assert not set_by(answer)
    assert (await browser.get("/api/v1/users/me")).json()["name"] != "Mallory"


@pytest.mark.parametrize(
    ("site", "status"), [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)]
)
async def test_another_page_reads_nothing(browser: httpx.AsyncClient, site: str, status: int) -> None:
    """An address that somebody opens is read; what another page asks for is not, with the cookie of a visitor."""
    assert (await browser.get("/api/v1/users/me", headers={"sec-fetch-site": site})).status_code == status


async def test_a_session_goes_on_by_its_cookie(browser: httpx.AsyncClient) -> None:
    """The page asks for the next tokens and sees none of them."""
    before = browser.cookies["assistant-refresh"]
    answer = await browser.post("/api/v1/auth/cookie/refresh")
    assert answer.status_code == 200
    assert browser.cookies["assistant-refresh"] != before
    assert (await browser.get("/api/v1/users/me")).status_code == 200
    del browser.cookies["assistant-refresh"]
    assert (await browser.post("/api/v1/auth/cookie/refresh")).json()["code"] == "invalid_refresh_token"


async def test_signing_out_takes_the_cookies_away(browser: httpx.AsyncClient) -> None:
    """The session has ended, too: a copy of its cookie is worth nothing."""
    copy = browser.cookies["assistant-access"]
    answer = await browser.post("/api/v1/auth/cookie/logout")
    assert answer.status_code == 204
    assert all(cookie.value == "" and cookie["max-age"] == "0" for cookie in set_by(answer).values())
    async with httpx.AsyncClient(base_url=browser.base_url, cookies={"assistant-access": copy}) as thief:
        assert (await thief.get("/api/v1/users/me")).status_code == 401


async def test_an_api_key_in_a_cookie_is_none(apis: list[ApiProcess], page: dict[str, str]) -> None:
    """Keys are for programs, which send a header."""
    async with httpx.AsyncClient(base_url=apis[0].url, headers=page, cookies={"assistant-access": KEY}) as client:
        assert (await client.get("/api/v1/conversations")).status_code == 401


async def test_an_invited_person_registers_and_is_signed_in(
    owner: Caller, apis: list[ApiProcess], page: dict[str, str]
) -> None:
    """In one step, by cookie."""
    invitation = await owner.invite("member")
    asked = {"email": f"{uuid4().hex}@acme.com", "password": GOOD_PASSWORD, "name": "Ada", "invitation": invitation}
    async with httpx.AsyncClient(base_url=apis[0].url, headers=page, timeout=60) as client:
        answer = await client.post("/api/v1/auth/cookie/register", json=asked)
        assert (answer.status_code, answer.json()["role"]) == (201, "member")
        assert (await client.get("/api/v1/users/me")).json()["name"] == "Ada"
