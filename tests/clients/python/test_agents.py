"""openai-agents, on Chat Completions."""

from __future__ import annotations

import openai
import pytest
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from conftest import Endpoint

set_tracing_disabled(True)


def agent(endpoint: Endpoint, name: str, **options: object) -> Agent:
    """An assistant as an agent."""
    client = openai.AsyncOpenAI(base_url=endpoint.url, api_key=endpoint.key, max_retries=0)
    return Agent(name=name, model=OpenAIChatCompletionsModel(model=name, openai_client=client), **options)  # type: ignore[arg-type]


async def test_the_sources_are_notes_of_the_answer(endpoint: Endpoint) -> None:
    """As in an answer of the Responses API."""
    found = await Runner.run(agent(endpoint, "support"), endpoint.question)
    assert endpoint.words in found.final_output
    (note, *_) = found.raw_responses[-1].output[-1].content[0].annotations  # type: ignore[union-attr]
    assert (note.type, note.title) == ("url_citation", endpoint.title)


async def test_a_stream(endpoint: Endpoint) -> None:
    """Ends with the whole answer."""
    run = Runner.run_streamed(agent(endpoint, "support"), endpoint.question)
    events = [event async for event in run.stream_events()]
    assert len(events) > 3
    assert endpoint.words in run.final_output


async def test_a_tool(endpoint: Endpoint) -> None:
    """Is called, and its result answered."""
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return "21 degrees"

    found = await Runner.run(agent(endpoint, "plain", tools=[weather]), "The weather in 'Bern'?")
    assert asked == ["Bern"]
    assert found.final_output


async def test_errors(endpoint: Endpoint) -> None:
    """Are the `openai` package's."""
    with pytest.raises(openai.NotFoundError):
        await Runner.run(agent(endpoint, "nobody"), "Hello")
