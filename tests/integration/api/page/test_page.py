"""A person uses the page in Chromium, against a real API with its stores and a worker."""

from __future__ import annotations

from collections.abc import Iterator

import page_packages
import pytest
from accounts_world import EMAIL, PASSWORD
from api_process import ApiProcess
from page_visits import Troubles, opened
from playwright.sync_api import Browser, Page, expect

HANDBOOK = b"# Workshop\n\nThe bottom bracket of the Larkspur takes 42 newton metres.\n"
# Marks that would show if anything of a text became markup, a script, or a request to elsewhere.
HOSTILE = (
    '<img src=x onerror="window.marked=1"> <script>window.marked=1</script> <b id="marked">bold</b>'
    " [click](javascript:window.marked=1) ![picture](https://images.invalid/p.png) [site](https://site.invalid/a)"
    " \u202eabc\u202c"
)
LOSE_THE_FIRST_STREAM = """
const real = window.fetch;
window.lost = false;
window.fetch = async (...given) => {
  const answer = await real(...given);
  if (window.lost || given[1]?.method !== "POST" || !String(given[0]).endsWith("/messages")) return answer;
  let left = 400;  // bytes
  const cut = new TransformStream({
    transform(part, control) {
      control.enqueue(part.slice(0, left));
      left -= part.length;
      if (left > 0) return;
      window.lost = true;
      control.error(new TypeError("lost"));
    },
  });
  return new Response(answer.body.pipeThrough(cut), answer);
};
"""
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def visit(chromium: Browser, api: ApiProcess) -> Iterator[tuple[Page, Troubles]]:
    """Somebody who opens the page for the first time."""
    with opened(chromium, api) as (page, troubles):
        yield page, troubles
        assert troubles == []


def sign_in(page: Page, language: str = "en") -> None:
    """Sign in, and have the page in this language, whichever another test has chosen for the same person."""
    page.get_by_label("Email address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.locator(".pick .card").first.wait_for()
    page.evaluate(
        """language => fetch("/api/v1/users/me", {method: "PATCH", body: JSON.stringify({language}),
           headers: {"x-assistant-page": "1", "content-type": "application/json"}})""",
        language,
    )
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", language)
    page.locator(".pick .card").first.wait_for()


def ask(page: Page, words: str) -> None:
    page.get_by_label("Ask a question").fill(words)
    page.keyboard.press("Enter")


def branch(page: Page) -> None:
    page.locator(".message.user").hover()
    page.get_by_role("button", name="Edit question").click()
    page.get_by_role("textbox", name="Edit question").fill("And of the Larkspur?")
    page.get_by_role("button", name="Ask this instead").click()
    expect(page.locator(".said")).to_have_text("And of the Larkspur?")
    expect(page.locator(".versions").first).to_contain_text("2 / 2")
    page.get_by_role("button", name="Previous version").first.click()
    expect(page.locator(".said")).to_have_text("How tight is the bottom bracket?")


def change_language(page: Page) -> None:
    page.locator(".rooms a[href='#/account']").click()
    with page.expect_response(lambda response: response.request.method == "PATCH"):  # kept, before it is asked again
        page.get_by_label("Language").select_option("ar")
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    page.reload()
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.get_by_label("اللغة").select_option("en")
    expect(page.locator("html")).to_have_attribute("dir", "ltr")


def test_somebody_works_with_the_page(visit: tuple[Page, Troubles]) -> None:
    """Sign in, upload, ask, open a citation, edit and branch, find it again, change the language, sign out."""
    page, _ = visit
    page.get_by_label("Email address").fill(EMAIL)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    sign_in(page)
    assert page.evaluate("document.cookie") == ""
    assert "eyJ" not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")

    page.get_by_role("link", name="Knowledge").click()
    page.get_by_role("link", name="Handbook").click()
    page.locator("input[type=file]").set_input_files(
        {"name": "handbook.md", "mimeType": "text/markdown", "buffer": HANDBOOK}
    )
    expect(page.locator(".documents li", has_text="handbook.md")).to_contain_text("Ready")

    page.get_by_role("link", name="New conversation").first.click()
    page.locator(".card", has_text="Answers from the handbook, with sources.").click()
    ask(page, "How tight is the bottom bracket?")
    expect(page.locator(".answer")).to_contain_text("42 newton metres")
    page.get_by_role("button", name="Open source 1").first.click()
    source = page.get_by_role("complementary")
    expect(source).to_contain_text("handbook.md")
    expect(source).to_contain_text("42 newton metres")
    page.keyboard.press("Escape")
    expect(source).to_be_hidden()
    branch(page)
    page.keyboard.press("Escape")
    page.get_by_label("Ask a question").fill("a draft")
    page.reload()
    expect(page.get_by_label("Ask a question")).to_have_value("a draft")
    page.get_by_role("searchbox").fill("bottom bracket")
    expect(page.locator(".item")).to_have_count(1)
    change_language(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_an_answer_goes_on_after_the_connection_was_lost(visit: tuple[Page, Troubles]) -> None:
    """The first stream breaks off in mid-event, and every word is there once all the same."""
    page, _ = visit
    page.add_init_script(LOSE_THE_FIRST_STREAM)
    sign_in(page)
    page.locator(".card", has_text="Answers from what it has learned.").click()
    words = " ".join(f"w{number}" for number in range(100))
    ask(page, words)
    expect(page.locator(".answer")).to_have_text(f"You asked: {words}")
    assert page.evaluate("window.lost") is True


def test_hostile_content_is_inert(visit: tuple[Page, Troubles]) -> None:
    """Markup is text, a script's link is none, pictures of elsewhere are not loaded, and links show their host."""
    page, _ = visit
    sign_in(page)
    page.locator(".card", has_text="Answers from what it has learned.").click()
    ask(page, HOSTILE)
    answer = page.locator(".answer")
    expect(answer).to_contain_text("(site.invalid)")
    expect(answer).to_contain_text('<img src=x onerror="window.marked=1">')
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    assert page.evaluate("window.marked") is None
    assert page.locator("#marked, .answer img, .answer script, a[href^=javascript]").count() == 0
    link = answer.get_by_role("link", name="site")
    assert "noopener" in str(link.get_attribute("rel"))
    expect(page.locator(".side .item").first).to_contain_text("<img")


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ar", "dark")])
def test_axe_finds_nothing(chromium: Browser, api: ApiProcess, language: str, scheme: str) -> None:
    """No violation of WCAG 2.2 AA on any room, in either theme and direction."""
    try:
        axe = (page_packages.ensure() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    except page_packages.MissingError as missing:
        pytest.skip(str(missing))
    found: dict[str, list[str]] = {}

    def look(page: Page, state: str) -> None:
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for each in result["violations"]:
            found.setdefault(state, []).append(f"{each['id']}: {[node['html'][:200] for node in each['nodes'][:3]]}")

    with opened(chromium, api, color_scheme=scheme) as (page, troubles):
        look(page, "sign in")
        sign_in(page, language)
        page.locator("#question").fill("| a | b |\n|---|---|\n| 1 | 2 |\n\n```js\nlet a = 1\n```")
        page.keyboard.press("Enter")
        expect(page.locator(".tools.last").last).to_be_visible()
        look(page, "chat")
        page.locator(".item .icon").first.click()
        look(page, "menu")
        page.keyboard.press("Escape")
        for room, there in (
            ("", ".pick .card"),
            ("knowledge", ".cards .card"),
            ("knowledge/handbook", ".drop"),
            ("usage", ".figure"),
            ("people", "tbody tr"),
            ("audit", "tbody tr"),
            ("account", ".device"),
        ):
            page.evaluate(f"location.hash = '#/{room}'")
            page.locator(there).first.wait_for()
            look(page, room or "welcome")
        page.locator("h1").first.click()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        look(page, "shortcuts")
        assert troubles == []
    assert found == {}
