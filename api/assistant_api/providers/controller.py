"""`/api/v1/providers`."""

from __future__ import annotations

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency

from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.errors import NOT_READY, ApiError, from_gateway
from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.providers.schemas import ProviderList


class ProviderController(Controller):
    """What may stand in the resources of this tenant."""

    path = "/providers"
    tags = ["Models"]

    @get("/", summary="List the providers and models that may be used")
    async def list_providers(self, clients: NamedDependency[Clients]) -> ProviderList:
        """Return every provider that this tenant's policy allows, with its models as far as they are known by name."""
        try:
            return msgspec.json.decode(await clients.gateway.providers(), type=ProviderList)
        except GatewayError as error:
            if error.status == 404:  # the policy has not arrived
                raise ApiError(NOT_READY, retry_after=1) from error
            raise from_gateway(error) from error
        except (GatewayUnreachableError, *MALFORMED) as error:
            raise from_gateway(GatewayUnreachableError(str(error))) from error
