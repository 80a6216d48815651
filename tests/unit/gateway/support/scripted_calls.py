"""Generated calls: what a client asks for, what the provider did, said and bills, and how the call ended."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

PRICES = {"input": Fraction(3), "output": Fraction(15), "cached": Fraction(3, 10)}  # micro-USD of a token
SHAPES = ("openai", "anthropic", "bedrock", "gemini", "reasoning beside", "cost", "silent")
ENDS = ("whole", "stream", "broken stream", "client gone", "time-out", "refused", "nested", "another answer")
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")


def request_body(chance: random.Random, content: str = "") -> dict[str, Any]:
    """Return a request that begins with `content`, of some length, and that may say how long its answer may be."""
    text = content + "x" * chance.choice((1, 100, 20_000))
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if chance.random() < 0.5:
        body[chance.choice(_LENGTHS)] = chance.choice((1, 100, 100_000, "7"))
    return body


@dataclass
class Scripted:
    """One call as the provider sees it: what it used, what it says, and what it puts on its bill in micro-USD."""

    asked: int
    cached: int
    answered: int
    reasoning: int
    shape: str
    end: str

    @classmethod
    def made(cls, chance: random.Random) -> Scripted:
        asked = chance.choice((1, 17, 400, 30_000, 2_000_000))
        answered = chance.choice((1, 30, 4_096, 90_000))
        return cls(
            asked=asked,
            cached=chance.choice((0, asked // 2, asked)),
            answered=answered,
            reasoning=chance.choice((0, answered // 2)),
            shape=chance.choice(SHAPES),
            end=chance.choice(ENDS),
        )

    def bill(self) -> int:
        """Return what stands on the provider's bill, rounded up."""
        if self.end == "refused":
            return 0
        total = (
            (self.asked - self.cached) * PRICES["input"]
            + self.cached * PRICES["cached"]
            + self.answered * PRICES["output"]
        )
        return -(-total.numerator // total.denominator)

    def usage(self) -> dict[str, Any] | None:
        """Return what the provider says, in the words of one family."""
        asked, cached, answered, reasoning = self.asked, self.cached, self.answered, self.reasoning
        match self.shape:
            case "silent":
                return None
            case "anthropic":
                return {
                    "input_tokens": asked - cached,
                    "cache_read_input_tokens": cached,
                    "output_tokens": answered,
                    "service_tier": "standard",
                }
            case "bedrock":
                return {"inputTokens": asked - cached, "cacheReadInputTokens": cached, "outputTokens": answered}
            case "gemini":
                return {
                    "promptTokenCount": asked,
                    "cachedContentTokenCount": cached,
                    "candidatesTokenCount": answered - reasoning,
                    "thoughtsTokenCount": reasoning,
                }
            case "reasoning beside":
                return {
                    "prompt_tokens": asked,
                    "completion_tokens": answered - reasoning,
                    "total_tokens": asked + answered,
                    "prompt_tokens_details": {"cached_tokens": cached},
                    "completion_tokens_details": {"reasoning_tokens": reasoning},
                }
        said = {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        return {**said, "cost": self.bill() / 1e6} if self.shape == "cost" else said

    def document(self) -> bytes:
        """Return a whole answer."""
        place = "usageMetadata" if self.shape == "gemini" else "usage"
        body: dict[str, Any] = {"choices": [{"message": {"content": "w" * min(self.answered, 5000)}}]}
        if (said := self.usage()) is not None:
            body[place] = said
        text = json.dumps(body)
        return text.replace('"w', '"' + "[" * 3000, 1).encode() if self.end == "nested" else text.encode()
