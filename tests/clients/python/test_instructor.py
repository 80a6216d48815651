"""instructor: objects instead of words, in each of its ways of asking for them."""

from __future__ import annotations

import instructor
import openai
import pytest
from conftest import Endpoint
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    degrees: int


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA])
def test_an_object(endpoint: Endpoint, mode: instructor.Mode) -> None:
    """By a tool, by JSON, by a schema."""
    client = instructor.from_openai(openai.OpenAI(base_url=endpoint.url, api_key=endpoint.key), mode=mode)
    messages = [{"role": "user", "content": "In 'Bern' it has 21 degrees."}]
    found = client.chat.completions.create(model="plain", response_model=Weather, messages=messages, max_retries=0)
    assert found.model_dump() == {"city": "Bern", "degrees": 21}
