"""What is said in conversations and answered: kept, streamed, resumed, stopped, branched; on a real database."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess, api_process
from callers import caller

from assistant_crds.contracts import TenantConfig

EVENTS = {"accept": "text/event-stream"}
LONG = "word " * 150  # takes a second and a half to be answered
WORDS = f"You asked: {LONG}"


@pytest.fixture(scope="module")
def other(config: TenantConfig, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """Another replica."""
    with api_process(tmp_path_factory.mktemp("other") / "pod", config, {"postgres_dsn": dsn}) as api:
        api.wait_ready()
        yield api


@pytest.fixture
async def address(client: httpx.AsyncClient) -> str:
    """The path of the messages of a new conversation."""
    return f"/{(await client.post('', json={'assistant': 'plain'})).json()['id']}/messages"


async def say(client: httpx.AsyncClient, address: str, words: str = "Hello", **more: Any) -> dict[str, Any]:
    answered = await client.post(address, json={"content": words, **more})
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


async def read(client: httpx.AsyncClient, address: str) -> list[tuple[str, str]]:
    """Role and text of the active path."""
    return [(each["role"], each["content"]) for each in (await client.get(address)).json()["data"]]


@dataclass
class Events:
    """Events as they came."""

    names: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The text of all deltas."""
        return "".join(data["text"] for name, data in zip(self.names, self.data, strict=True) if "delta" in name)


async def events_of(response: httpx.Response, events: Events, most: int = 10**6) -> None:
    """Read up to `most` events."""
    assert response.headers["content-type"].startswith("text/event-stream")
    number = name = ""
    async for line in response.aiter_lines():
        kind, _, value = line.partition(": ")
        if kind == "id":
            number = value
        elif kind == "event":
            name = value
        elif kind == "data":
            events.names.append(name)
            events.numbers.append(number)
            events.data.append(json.loads(value))
            if len(events.names) >= most:
                return


async def begun(client: httpx.AsyncClient, address: str, words: str, most: int = 4) -> Events:
    """Ask for events, read the first of them, and go away."""
    events = Events()
    async with client.stream("POST", address, json={"content": words}, headers=EVENTS) as response:
        await events_of(response, events, most)
    return events


async def followed(client: httpx.AsyncClient, address: str, after: str) -> Events:
    """The events after one, to their end."""
    events = Events()
    async with client.stream("GET", f"{address}/events", headers={"last-event-id": after}) as response:
        assert response.status_code == 200
        await events_of(response, events)
    return events


async def ended(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    """Wait until a message is not running any more."""
    async with asyncio.timeout(40):
        while (found := (await client.get(address)).json())["status"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return dict(found)


async def test_what_is_said_and_answered_is_kept(client: httpx.AsyncClient, address: str) -> None:
    """With the model and its tokens; the conversation takes its title from the first words."""
    turn = await say(client, address, "How are\nyou?")
    answer, question = turn["message"], turn["user_message"]
    assert (question["role"], question["content"], question["parent_id"]) == ("user", "How are\nyou?", None)
    assert (answer["role"], answer["parent_id"], answer["status"]) == ("assistant", question["id"], "complete")
    assert answer["content"].split() == ["You", "asked:", "How", "are", "you?"]
    assert (answer["model"], answer["usage"]) == ("fake/model", {"input_tokens": 1, "output_tokens": 5})
    page = (await client.get(address)).json()
    assert page == {"data": [question, answer], "next_cursor": None}
    assert (await client.get(f"{address}/{answer['id']}")).json() == answer
    conversation = (await client.get(address.removesuffix("/messages"))).json()
    assert (conversation["title"], conversation["messages"]) == ("How are you?", 2)
    assert conversation["active_message_id"] == answer["id"]


async def test_the_model_is_sent_the_path_and_told_of_nothing_else(
    client: httpx.AsyncClient, address: str, gateway: FakeGateway
) -> None:
    """Instructions first, then the turns; usage is counted for the caller."""
    await say(client, address, "One")
    await say(client, address, "Two")
    roles = [(message["role"], message["content"].strip()) for message in gateway.chats[-1]["messages"]]
    assert roles == [
        ("system", "Be brief."),
        ("user", "One"),
        ("assistant", "You asked: One"),
        ("user", "Two"),
    ]
    assert gateway.headers[-1]["x-assistant-user"] == "api-key:first"


async def test_old_turns_that_do_not_fit_are_left_out_and_counted(
    client: httpx.AsyncClient, address: str, gateway: FakeGateway
) -> None:
    """Whole turns, never in silence."""
    for _ in range(3):
        await say(client, address, "x" * 12_000)
    answer = (await say(client, address, "Short"))["message"]
    assert answer["omitted_turns"] == 2
    assert len(gateway.chats[-1]["messages"]) == 4


async def test_an_answer_comes_as_numbered_events(client: httpx.AsyncClient, address: str) -> None:
    """A beginning, pieces of text whose numbers grow, and an end with the whole message."""
    events = Events()
    async with client.stream("POST", address, json={"content": "Hello there"}, headers=EVENTS) as response:
        await events_of(response, events)
    assert events.names[0] == "message.started"
    assert set(events.names[1:-1]) == {"message.delta"}
    assert events.names[-1] == "message.completed"
    places = [int(number.removesuffix(".end")) for number in events.numbers]
    assert places == sorted(places)
    assert events.words.split() == ["You", "asked:", "Hello", "there"]
    assert events.data[-1]["content"] == events.words
    assert events.data[-1]["id"] == events.data[0]["message_id"]


async def test_an_answer_goes_on_without_its_reader_and_can_be_resumed(
    client: httpx.AsyncClient, address: str, other: ApiProcess
) -> None:
    """Here or on another replica, while it is written or later: every character comes once."""
    first = await begun(client, address, LONG)
    message = f"{address}/{first.data[0]['message_id']}"
    async with caller(other, KEY) as elsewhere:
        rest, far = await asyncio.gather(
            followed(client, message, first.numbers[-1]), followed(elsewhere, message, first.numbers[-1])
        )
    for events in (rest, far, await followed(client, message, first.numbers[-1])):
        assert (first.words + events.words).split() == WORDS.split()
        assert events.names[-1] == "message.completed"
        assert "message.started" not in events.names
    assert (await followed(client, message, "0")).words.split() == WORDS.split()
    assert [role for role, _ in await read(client, address)] == ["user", "assistant"]
    done = await client.get(f"{message}/events", headers={"last-event-id": rest.numbers[-1]})
    assert (done.status_code, done.content) == (204, b"")


async def test_a_reader_who_waits_for_the_whole_answer_may_go_away(client: httpx.AsyncClient, address: str) -> None:
    """Both messages are there all the same."""
    with pytest.raises(httpx.ReadTimeout):
        await client.post(address, json={"content": LONG}, timeout=0.7)
    async with asyncio.timeout(40):
        while not (page := (await client.get(address)).json()["data"]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    answer = page[-1]
    assert (await ended(client, f"{address}/{answer['id']}"))["content"].split() == WORDS.split()


async def test_an_answer_whose_process_was_killed_ends_in_an_error_that_is_seen(
    client: httpx.AsyncClient, config: TenantConfig, dsn: str, tmp_path: Path, gateway: FakeGateway, address: str
) -> None:
    """For who reads on elsewhere, when its lease has run out; what was written stays, and the conversation goes on."""
    calls = len(gateway.chats)
    with api_process(tmp_path / "pod", config, {"postgres_dsn": dsn}) as doomed:
        doomed.wait_ready()
        async with caller(doomed, KEY) as elsewhere:
            events = Events()
            async with elsewhere.stream("POST", address, json={"content": "endless"}, headers=EVENTS) as response:
                await events_of(response, events, 5)
                message = f"{address}/{events.data[0]['message_id']}"
                async with asyncio.timeout(40):
                    while not (await client.get(message)).json()["content"]:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                doomed.process.kill()
                doomed.process.wait()
    async with asyncio.timeout(60):
        rest = await followed(client, message, events.numbers[1])
    assert rest.names[-1] == "message.failed"
    last = rest.data[-1]
    assert (last["status"], last["error"]["code"]) == ("incomplete", "stream_interrupted")
    assert last["content"].startswith("You asked: endless")
    again = (await say(client, address, "Again"))["message"]
    assert again["status"] == "complete"
    assert len(gateway.chats) == calls + 2  # nothing was asked twice


async def test_a_process_that_stops_keeps_what_there_is(
    client: httpx.AsyncClient, config: TenantConfig, dsn: str, tmp_path: Path, address: str
) -> None:
    """The reader is told, and the answer is incomplete, not lost."""
    with api_process(tmp_path / "pod", config, {"postgres_dsn": dsn}, shutdown_seconds="0.5") as stopping:
        stopping.wait_ready()
        events = Events()
        async with (
            caller(stopping, KEY) as elsewhere,
            elsewhere.stream("POST", address, json={"content": "endless"}, headers=EVENTS) as response,
        ):
            lines = asyncio.create_task(events_of(response, events))
            while len(events.names) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stopping.process.send_signal(signal.SIGTERM)
            await lines
        assert stopping.process.wait(30) == 0
        assert "Traceback" not in stopping.log()
    assert events.names[-1] == "message.failed"
    found = (await client.get(f"{address}/{events.data[0]['message_id']}")).json()
    assert (found["status"], found["error"]["code"]) == ("incomplete", "stream_interrupted")
    assert found["content"] == events.words


@pytest.mark.parametrize("replica", ["here", "elsewhere"])
async def test_an_answer_can_be_stopped(
    client: httpx.AsyncClient, address: str, other: ApiProcess, gateway: FakeGateway, replica: str
) -> None:
    """From any replica; the model's work ends, and what was written is the answer."""
    before = gateway.open_calls
    first = await begun(client, address, "endless")
    message = f"{address}/{first.data[0]['message_id']}"
    async with caller(other, KEY) as elsewhere:
        stopped = await (client if replica == "here" else elsewhere).post(f"{message}/stop")
    assert stopped.status_code == 202
    found = await ended(client, message)
    assert (found["status"], found["error"]) == ("stopped", None)
    assert found["content"].startswith(first.words)
    async with asyncio.timeout(30):
        while gateway.open_calls > before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await client.post(f"{message}/stop")).status_code == 202


async def test_one_answer_is_written_at_a_time(client: httpx.AsyncClient, address: str) -> None:
    """A second message meanwhile is refused, and leaves nothing behind."""
    first = await begun(client, address, "endless")
    refused = await client.post(address, json={"content": "Hello"})
    assert (refused.status_code, refused.json()["code"]) == (409, "answer_under_way")
    await client.post(f"{address}/{first.data[0]['message_id']}/stop")
    await ended(client, f"{address}/{first.data[0]['message_id']}")
    assert len(await read(client, address)) == 2


async def test_a_request_that_is_sent_again_asks_the_model_once(
    client: httpx.AsyncClient, address: str, gateway: FakeGateway
) -> None:
    """The same key finds the same answer, as events too; with other words it is refused."""
    calls = len(gateway.chats)
    key = {"idempotency-key": str(uuid4())}
    made = [await client.post(address, json={"content": "Once"}, headers=key) for _ in range(2)]
    assert made[0].json() == made[1].json()
    events = Events()
    async with client.stream("POST", address, json={"content": "Once"}, headers={**key, **EVENTS}) as response:
        await events_of(response, events)
    assert events.data[-1] == made[0].json()["message"]
    assert len(gateway.chats) == calls + 1
    other = await client.post(address, json={"content": "Twice"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


async def test_an_answer_that_is_refused_says_why_and_is_kept(client: httpx.AsyncClient, address: str) -> None:
    """As a problem with the gateway's numbers, and as a message that has failed, in the reader's language."""
    refused = await client.post(address, json={"content": "budget_exhausted"})
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exhausted")
    assert refused.headers["retry-after"] == "86400"
    page = (await client.get(address, headers={"accept-language": "de"})).json()["data"]
    assert [each["status"] for each in page] == ["complete", "failed"]
    assert page[1]["error"] == {"code": "budget_exhausted", "message": "Budget aufgebraucht"}
    broken = (await say(client, address, "cut"))["message"]
    assert (broken["status"], broken["error"]["code"]) == ("incomplete", "stream_interrupted")
    assert broken["content"]


async def test_answers_and_messages_have_versions_of_which_one_is_active(
    client: httpx.AsyncClient, address: str, gateway: FakeGateway
) -> None:
    """Another answer beside the first, another message beside the first, and the way back."""
    first = await say(client, address, "One")
    second = await say(client, address, "Two")
    again = (await client.post(f"{address}/{second['message']['id']}/regenerate")).json()
    assert again["user_message"]["id"] == second["user_message"]["id"]
    assert again["message"]["siblings"] == [second["message"]["id"], again["message"]["id"]]
    assert [message["content"] for message in gateway.chats[-1]["messages"]][-1] == "Two"
    edited = await client.post(f"{address}/{first['user_message']['id']}/edit", json={"content": "Uno"})
    assert edited.json()["user_message"]["siblings"] == [
        first["user_message"]["id"],
        edited.json()["user_message"]["id"],
    ]
    assert [content.strip() for _, content in await read(client, address)] == ["Uno", "You asked: Uno"]
    base = address.removesuffix("/messages")
    chosen = await client.put(f"{base}/active", json={"message_id": first["user_message"]["id"]})
    assert chosen.json()["active_message_id"] == again["message"]["id"]
    assert len(await read(client, address)) == 4
    aside = await say(client, address, "Three", parent_id=first["message"]["id"])
    assert aside["user_message"]["parent_id"] == first["message"]["id"]
    assert (await client.get(base)).json()["messages"] == 9


async def test_a_long_path_is_read_in_pages(client: httpx.AsyncClient, address: str) -> None:
    """From its end; every message comes once."""
    for number in range(3):
        await say(client, address, f"Number {number}")
    whole = (await client.get(address)).json()["data"]
    found: list[Any] = []
    parameters: dict[str, Any] = {"limit": 4}
    while True:
        page = (await client.get(address, params=parameters)).json()
        found = page["data"] + found
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert found == whole
    assert len(found) == 6
    assert (await client.get(address, params={"cursor": str(uuid4())})).json()["field"] == "cursor"


async def test_words_of_messages_are_found(client: httpx.AsyncClient, address: str) -> None:
    """In what people say as in what they are answered."""
    word = uuid4().hex
    await say(client, address, f"About {word} and more")
    for words in (word.upper(), f"asked: about {word}"):
        found = (await client.get("", params={"q": words})).json()["data"]
        assert [f"/{each['id']}/messages" for each in found] == [address]


async def test_an_answer_can_be_rated(client: httpx.AsyncClient, address: str) -> None:
    """With a comment, differently later, or no more; what people say themselves cannot."""
    turn = await say(client, address)
    message = f"{address}/{turn['message']['id']}"
    assert (await client.put(f"{message}/feedback", json={"rating": "up"})).status_code == 204
    assert (await client.put(f"{message}/feedback", json={"rating": "down", "comment": "No."})).status_code == 204
    assert (await client.get(message)).json()["feedback"] == {"rating": "down", "comment": "No."}
    assert (await client.delete(f"{message}/feedback")).status_code == 204
    assert (await client.get(message)).json()["feedback"] is None
    question = f"{address}/{turn['user_message']['id']}"
    assert (await client.put(f"{question}/feedback", json={"rating": "up"})).json()["code"] == "message_not_found"
    assert (await client.put(f"{message}/feedback", json={"rating": "fine"})).json()["field"] == "rating"


async def test_a_conversation_can_be_taken_along(client: httpx.AsyncClient, address: str) -> None:
    """As JSON with every branch, as Markdown with the active one."""
    turn = await say(client, address, "One")
    await client.post(f"{address}/{turn['message']['id']}/regenerate")
    base = address.removesuffix("/messages")
    whole = await client.get(f"{base}/export")
    assert whole.headers["content-disposition"].endswith('.json"')
    assert whole.json()["conversation"] == (await client.get(base)).json()
    assert [message["role"] for message in whole.json()["messages"]] == ["user", "assistant", "assistant"]
    text = await client.get(f"{base}/export", params={"format": "markdown"}, headers={"accept-language": "de"})
    assert text.headers["content-type"].startswith("text/markdown")
    assert text.text.startswith("# One\n\n## Sie (")
    assert text.text.count("You asked: One") == 1
    assert (await client.get(f"{base}/export", params={"format": "pdf"})).json()["field"] == "format"


async def test_nothing_of_somebody_elses_conversation_can_be_reached(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, address: str
) -> None:
    """Every way in answers as if there were nothing."""
    turn = await say(client, address)
    base, message = address.removesuffix("/messages"), f"{address}/{turn['message']['id']}"
    rating = {"rating": "up"}
    for answer in (
        await stranger.get(address),
        await stranger.post(address, json={"content": "Hello"}),
        await stranger.get(message),
        await stranger.get(f"{message}/events"),
        await stranger.post(f"{message}/edit", json={"content": "Hello"}),
        await stranger.post(f"{message}/regenerate"),
        await stranger.post(f"{message}/stop"),
        await stranger.put(f"{message}/feedback", json=rating),
        await stranger.delete(f"{message}/feedback"),
        await stranger.put(f"{base}/active", json={"message_id": turn["message"]["id"]}),
        await stranger.get(f"{base}/export"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "conversation_not_found")
    own = (await stranger.post("", json={"assistant": "plain"})).json()["id"]
    foreign = f"/{own}/messages/{turn['message']['id']}"
    for answer in (
        await stranger.get(foreign),
        await stranger.post(f"{foreign}/regenerate"),
        await stranger.put(f"{foreign}/feedback", json=rating),
        await stranger.put(f"/{own}/active", json={"message_id": turn["message"]["id"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")
    body = {"content": "Hello", "parent_id": turn["message"]["id"]}
    assert (await stranger.post(f"/{own}/messages", json=body)).json()["field"] == "parent_id"


@pytest.mark.parametrize(
    ("body", "headers", "code", "field"),
    [
        ({}, {}, "invalid_field", "content"),
        ({"content": ""}, {}, "invalid_field", "content"),
        ({"content": "a\0b"}, {}, "invalid_field", "content"),
        ({"content": "x", "parent_id": "y"}, {}, "invalid_field", "parent_id"),
        ({"content": "x", "parent_id": str(uuid4())}, {}, "invalid_field", "parent_id"),
        ({"content": "x" * 300_000}, {}, "request_too_large", None),
        ({"content": "x"}, {"idempotency-key": "k" * 256}, "invalid_field", "Idempotency-Key"),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    client: httpx.AsyncClient, address: str, body: dict[str, Any], headers: dict[str, str], code: str, field: str | None
) -> None:
    """And nothing is kept of it."""
    refused = await client.post(address, json=body, headers=headers)
    assert (refused.json()["code"], refused.json().get("field")) == (code, field)
    assert await read(client, address) == []


async def test_a_deleted_conversation_ends_its_answer(
    client: httpx.AsyncClient, address: str, gateway: FakeGateway
) -> None:
    """The model's work ends within seconds."""
    before = gateway.open_calls
    await begun(client, address, "endless")
    assert (await client.delete(address.removesuffix("/messages"))).status_code == 204
    async with asyncio.timeout(30):
        while gateway.open_calls > before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
