"""One chat completion, from the caller's bytes to the gateway's answer. Knows nothing of HTTP servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from assistant_api import errors
from assistant_api.assistants.service import find
from assistant_api.breaker import OPEN_SECONDS, StoreUnavailableError
from assistant_api.chat.prompt import question, system_message, with_system_message
from assistant_api.chat.schemas import ChatRequest
from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.errors import KNOWLEDGE_UNAVAILABLE, ApiError, from_gateway, from_validation
from assistant_api.gateway import GatewayError, GatewayResponse, GatewayUnreachableError
from assistant_api.knowledge.schemas import Passage
from assistant_api.tenant_config import ActiveConfig
from assistant_crds.contracts import AssistantConfig, KnowledgeBaseConfig
from assistant_crds.gateway_api import Operation
from assistant_observability import genai, logs, traces

RETRIEVAL_SECONDS = 20.0

# query, knowledge bases, max_chunks, min_score, clients -> passages, best first
Retrieve = Callable[[str, list[KnowledgeBaseConfig], int, float, Clients], Awaitable[list[Passage]]]

_log = logs.logger(__name__)
_tracer = traces.tracer(__name__)
_decode_request = msgspec.json.Decoder(ChatRequest).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A request that was understood: who is asked, what, and the members to send on."""

    assistant: AssistantConfig
    request: ChatRequest
    members: dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class ChatResult:
    """The gateway's answer, not read yet, and the passages that it may cite."""

    response: GatewayResponse
    passages: Sequence[Passage]


def parse_request(body: bytes, active_config: ActiveConfig) -> ParsedChat:
    """Check the caller's JSON; the ApiError names the first field that is wrong."""
    try:
        request = _decode_request(body)
        members = _decode_members(body)
    except MALFORMED as error:
        raise from_validation(error) from error
    request.tools = None  # checked; a list of small objects takes twenty times what its bytes took
    return ParsedChat(find(active_config, request.model), request, members)


async def ask(
    parsed_chat: ParsedChat,
    active_config: ActiveConfig,
    clients: Clients,
    retrieve: Retrieve,
    headers: Mapping[str, str],
) -> ChatResult:
    """Find the passages, ask the gateway, return its answer as soon as its status is known."""
    assistant = parsed_chat.assistant
    bases = active_config.knowledge_bases_of(assistant)
    passages = await _passages(parsed_chat, bases, clients, retrieve) if bases else None
    system = system_message(assistant.instructions, passages)
    members = {**parsed_chat.members, "messages": with_system_message(parsed_chat.members["messages"], system)}
    with traces.child(
        _tracer,
        f"{Operation.CHAT} {assistant.name}",
        {
            genai.OPERATION_NAME: Operation.CHAT,
            genai.ASSISTANT: assistant.name,
            genai.TENANT: active_config.document.tenant.namespace,
        },
    ):
        try:
            response = await clients.gateway.chat(msgspec.json.encode(members), headers)
        except GatewayUnreachableError as error:
            _log.warning("gateway unreachable", assistant=assistant.name, reason=str(error))
            raise from_gateway(error) from error
    return ChatResult(response, passages or [])


async def _passages(
    parsed_chat: ParsedChat, bases: list[KnowledgeBaseConfig], clients: Clients, retrieve: Retrieve
) -> list[Passage]:
    """Return the passages for the question. Without knowledge there is no answer: 503, never a guess in silence."""
    query = question(parsed_chat.request.messages)
    if not query:
        return []
    assistant = parsed_chat.assistant
    try:
        async with asyncio.timeout(RETRIEVAL_SECONDS):
            return await retrieve(query, bases, assistant.max_chunks, assistant.min_score, clients)
    except ApiError:
        raise
    except GatewayError as error:
        _log.warning("retrieval failed at the gateway", assistant=assistant.name, status=error.status, code=error.code)
        if error.status == 429 or errors.is_limit(error):
            raise from_gateway(error) from error
        raise ApiError(KNOWLEDGE_UNAVAILABLE, retry_after=error.retry_after or 5) from error
    except StoreUnavailableError as error:  # the log has said so once
        raise ApiError(KNOWLEDGE_UNAVAILABLE, retry_after=OPEN_SECONDS[1]) from error
    except Exception as error:
        # Whatever a store's client raises: the caller is told the same, the log has the cause.
        _log.warning("retrieval failed", assistant=assistant.name, exc_info=error)
        raise ApiError(KNOWLEDGE_UNAVAILABLE, retry_after=5) from error
