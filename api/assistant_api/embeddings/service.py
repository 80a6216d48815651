"""One request for embeddings, from the caller's bytes to the gateway's answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
from litestar.types import Receive, Scope, Send

from assistant_api import errors
from assistant_api.asgi import JSON, SEND_TIMEOUT_SECONDS, BufferedResponse, encoded
from assistant_api.auth.schemas import Identity
from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect
from assistant_api.embeddings.recoding import Recoder
from assistant_api.embeddings.schemas import EmbeddingsRequest, Encoding, decode_members, decode_request
from assistant_api.errors import ApiError, from_gateway, from_validation, invalid_field
from assistant_api.gateway import GatewayResponse, GatewayUnreachableError, on_behalf_of, passed_on
from assistant_api.knowledge.service import find
from assistant_api.refusals import refusal
from assistant_api.tenant_config import ActiveConfig
from assistant_observability import logs

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class AskedVectors:
    """A request that was understood."""

    request: EmbeddingsRequest
    members: dict[str, msgspec.Raw]


def understand(body: bytes, active_config: ActiveConfig) -> AskedVectors:
    """Check the caller's JSON; the ApiError names the first field that is wrong."""
    try:
        request, members = decode_request(body), decode_members(body)
    except MALFORMED as error:
        raise from_validation(error) from error
    request.check()
    try:
        base = find(active_config, request.model)
    except ApiError as error:
        error.field = "model"
        raise
    if request.dimensions is not None and request.dimensions != base.dimensions:
        raise invalid_field("dimensions", "dimensions", knowledge_base=base.name, dimensions=str(base.dimensions))
    if (rewritten := request.rewritten) is not None:
        members["input"] = rewritten
    request.input = ""  # checked; the bytes are what is sent on
    return AskedVectors(request, members)


async def ask(
    asked: AskedVectors, identity: Identity, clients: Clients, scope: Scope, receive: Receive
) -> BufferedResponse | VectorsAnswer:
    """Ask the gateway; return its refusal, or its vectors as they come."""
    if (user := asked.request.user) and not identity.is_person:
        on_behalf_of(user)
    members = {name: raw for name, raw in asked.members.items() if name not in {"dimensions", "user"}}
    members["encoding_format"] = msgspec.Raw(msgspec.json.encode(asked.request.encoding))
    answer: GatewayResponse | None = None
    try:
        async with cancel_on_disconnect(receive):
            answer = await clients.gateway.vectors(
                msgspec.json.encode(members), {"x-request-id": errors.request_id(scope)}
            )
            if answer.status == 200:
                return VectorsAnswer(answer, asked.request.encoding)
            content = await answer.read()
            answer.close()
            return refusal(answer, content, asked.request.model, scope["state"])
    except GatewayUnreachableError as error:
        _log.warning("gateway unreachable", knowledge_base=asked.request.model, reason=str(error))
        raise from_gateway(error) from error
    except ClientDisconnectedError:
        if answer is not None:
            answer.close()
        raise


class VectorsAnswer:
    """The ASGI response: the gateway's answer in the caller's encoding, passed on in pieces."""

    def __init__(self, answer: GatewayResponse, encoding: Encoding) -> None:
        self._answer = answer
        self._recoder = Recoder(encoding)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. One that breaks off ends without the end of its body, which clients notice."""
        noted = scope["state"]
        try:
            async with cancel_on_disconnect(receive):
                await self._send(send)
        except GatewayUnreachableError as error:
            noted["code"] = errors.STREAM_INTERRUPTED.code
            _log.warning("answer interrupted", reason=str(error))
        except (ClientDisconnectedError, TimeoutError):
            noted["code"] = errors.CLIENT_DISCONNECTED_CODE
        finally:
            self._answer.close()

    async def _send(self, send: Send) -> None:
        headers = [*encoded(passed_on(self._answer.headers)), (b"content-type", JSON.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while data := await self._answer.next():
            if out := self._recoder.feed(data):
                async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                    await send({"type": "http.response.body", "body": out, "more_body": True})
        await send({"type": "http.response.body", "body": self._recoder.end(), "more_body": False})
