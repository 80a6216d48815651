"""pydantic-ai, whose answers are checked against OpenAI's own types."""

from __future__ import annotations

import pytest
from conftest import Endpoint
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    degrees: int


def model(endpoint: Endpoint, name: str) -> OpenAIChatModel:
    """An assistant as pydantic-ai's model."""
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=endpoint.url, api_key=endpoint.key))


@pytest.mark.parametrize("name", ["support", "plain"])
async def test_whole_and_streamed(endpoint: Endpoint, name: str) -> None:
    """The same words, with their usage."""
    agent = Agent(model(endpoint, name))
    whole = await agent.run(endpoint.question)
    assert (endpoint.words in whole.output) == (name == "support")
    assert whole.usage.output_tokens > 0
    async with agent.run_stream(endpoint.question) as stream:
        assert await stream.get_output() == whole.output


async def test_tools_and_output_types(endpoint: Endpoint) -> None:
    """The tool is called, and the answer is an object."""
    asked: list[str] = []
    agent = Agent(model(endpoint, "plain"), output_type=Weather)

    @agent.tool_plain
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return "21"

    found = await agent.run("The weather in 'Bern' is 21 degrees?")
    assert asked == ["Bern"]
    assert found.output == Weather(city="Bern", degrees=21)


async def test_errors(endpoint: Endpoint) -> None:
    """They say their status."""
    with pytest.raises(ModelHTTPError) as missing:
        await Agent(model(endpoint, "nobody")).run("Hello")
    assert missing.value.status_code == 404
