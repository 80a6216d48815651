"""From a request to what it may use at most, and from its answer to what it did: each call is held, made, settled."""

from __future__ import annotations

import contextlib

import msgspec

from assistant_gateway import errors
from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limit_scope import MAX_AMOUNT, Amount
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Refused
from assistant_gateway.metering import bounds, lengths
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.metering.metered import Metered
from assistant_gateway.metering.tokenizers import Tokenizers
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.prices import STATE_THEIR_COST, TIERS, price_of, served_price, tier_of
from assistant_gateway.providers.rates import FREE, Bill, Price
from assistant_gateway.wire.decoding import UNREADABLE
from assistant_gateway.wire.fields import Fields
from assistant_gateway.wire.usage import Source, Usage
from assistant_observability import logs, metrics

OUTPUT_TOKENS = 4096  # of one answer, where neither client nor policy says it and a limit has to know
REASONING_TOKENS = 16_384  # the same for models that think first
LEAST_OUTPUT_TOKENS = 256  # with less left than this an answer is not worth beginning
MOST_OUTPUT_TOKENS = 10_000_000  # of one call; nobody answers at such length
LONGEST_TIER = 32  # bytes of a service tier's name, as JSON

_tier = msgspec.json.Decoder(object)
_log = logs.logger(__name__)


class Meter:
    """Admits calls and settles them."""

    def __init__(self, limiter: Limiter, public: PriceMap | None = None, tokenizers: Tokenizers | None = None) -> None:
        self._limiter = limiter
        self._public = public or PriceMap.installed()
        self._tokenizers = tokenizers or Tokenizers.installed()
        self._prices: dict[tuple[str, str, str], tuple[Target, Price | None]] = {}

    def price(self, target: Target, model: str, fields: Fields) -> Price | None:
        """Return the price of a request, None where nobody knows it.

        Raises:
            GatewayError: 400 or 403: it asks for a way of processing that nobody knows, or knows the price of.
        """
        if target.own:
            return FREE
        tier = _tier_of(fields)
        key = (target.provider, model, tier)
        known = self._prices.get(key)
        if known is None or known[0] is not target:
            if len(self._prices) > 10_000:
                self._prices.clear()
            known = self._prices[key] = (target, price_of(target, model, self._public, tier))
        if tier and known[1] is None and price_of(target, model, self._public) is not None:
            raise _tier_unpriced(target, model, tier)
        return known[1]

    def price_refusal(self, terms: LimitSet, target: Target, model: str) -> GatewayError | None:
        """Return the refusal that every plain call of a model gets for want of a price, None when there is none."""
        if not terms.money:
            return None
        return _price_refusal(terms, target.provider, model, self.price(target, model, {}))

    async def admit(
        self, terms: LimitSet, call: Call, target: Target, fields: Fields, *, embedding: bool, pause: Pause = next_round
    ) -> Metered:
        """Hold the most that a call can use; may set the length of its answer in `fields`.

        A large request is looked at in pieces; between two of them `pause` lets others have their turn.

        Raises:
            GatewayError: 429 naming the limit; 503 while nobody can say; 400 or 403 for what cannot be limited.
        """
        price = self.price(target, call.model, fields)
        metered = Metered(call, terms, fields, embedding, target, price, {})
        metered.asked_tier = "" if target.own else _tier_of(fields)
        if not terms.limited:
            self._limiter.ensure_room(terms)
            return metered
        self._limiter.ensure_room(terms)  # before the request is looked at, which costs more than all else
        own_output = 0
        if terms.hard:
            own_output = await self._bound(metered, target, pause)
        answer = await self._limiter.reserve(terms, metered.id, metered.worst)
        if (
            isinstance(answer, Refused)
            and answer.kind != "requests"
            and await self._shrink(metered, target, answer, own_output)
        ):
            answer = await self._limiter.reserve(terms, metered.id, metered.worst)
        if isinstance(answer, Refused):
            raise self._limiter.refusal(terms, answer)
        metered.headers = self._limiter.headers(terms, answer)
        return metered

    async def _bound(self, metered: Metered, target: Target, pause: Pause) -> int:
        """Set the worst case; return how long each answer may be where that was decided here, else 0.

        Raises:
            GatewayError: there is none.
        """
        terms, fields, price = metered.terms, metered.fields, metered.price
        if (refused := _price_refusal(terms, metered.call.provider, metered.call.model, price)) is not None:
            raise refused
        if terms.money and (told := _unbounded(fields, price)) is not None:
            raise told
        images = price.max_image_tokens if price is not None else None
        model = metered.call.model
        bound = await bounds.bound_of(fields, model, images, embedding=metered.embedding, pause=pause)
        if bound.unbounded is not None:
            message = (
                f"This request has no upper bound, so it cannot run under a token or budget limit: {bound.unbounded}."
            )
            raise GatewayError(400, "not_limitable", message)
        output, own = 0, 0
        if not metered.embedding:
            asked = lengths.take(fields)
            if asked is None:
                own = REASONING_TOKENS if price is not None and price.reasons else OUTPUT_TOKENS
                if price is not None and price.max_output_tokens is not None:
                    own = min(own, price.max_output_tokens)
            lengths.put(fields, target, asked or own)
            output = (asked or own) * lengths.answers(fields)
            if output > MOST_OUTPUT_TOKENS:
                raise errors.invalid_request(
                    "The longest allowed answer is too long. Reduce 'max_tokens'.", "max_tokens"
                )
        self._hold(metered, bound.tokens, output)
        return own

    @staticmethod
    def _hold(metered: Metered, tokens_in: int, tokens_out: int) -> None:
        cost = metered.price.worst(tokens_in, tokens_out) if metered.price is not None else 0
        if cost > MAX_AMOUNT:
            raise errors.invalid_request(
                "The request may cost more than any limit allows. Reduce 'max_tokens'.", "max_tokens"
            )
        metered.held = Usage(input=tokens_in, output=tokens_out)
        metered.worst = Amount(tokens_in + tokens_out, cost)

    async def _shrink(self, metered: Metered, target: Target, refused: Refused, own_output: int) -> bool:
        """Count exactly, and allow a shorter answer if the client did not ask for one; return whether it may fit."""
        held = metered.held
        left = refused.limit - refused.used
        if held is None or left <= 0:  # no count makes it fit then, and to count costs time
            return False
        tokens_in, tokens_out = held.input, held.output
        if not metered.embedding:
            call = metered.call
            exact = await self._tokenizers.chat_count(metered.fields, target.billed_by, call.model, call.tenant)
            if exact is not None:
                tokens_in = min(tokens_in, exact.tokens)

        def fits(output: int) -> bool:
            if refused.kind == "tokens":
                return tokens_in + output <= left
            return metered.price is not None and metered.price.worst(tokens_in, output) <= left

        if own_output and not fits(tokens_out):
            answers = tokens_out // own_output
            low, high = 0, own_output
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if fits(middle * answers) else (low, middle - 1)
            if low < LEAST_OUTPUT_TOKENS:
                return False
            lengths.put(metered.fields, target, low)
            tokens_out = low * answers
        if not fits(tokens_out) or (tokens_in, tokens_out) == (held.input, held.output):
            return False
        self._hold(metered, tokens_in, tokens_out)
        return True

    def settle(self, metered: Metered, outcome: Outcome, *, free: bool) -> Usage:
        """Have the call charged, whatever became of it; return what it used."""
        call = metered.call
        try:
            used = metered.used(outcome, free=free)
            bill = self._bill(metered, used)
        except Exception:  # noqa: BLE001  # whatever an answer holds, its call is settled: for the most that it may be
            _log.exception("usage cannot be determined", tenant=call.tenant, name=call.name, request_id=call.request_id)
            held, price = metered.held or Usage(), metered.price
            used = Usage(input=held.input, output=held.output, source=Source.ESTIMATED)
            bill = Bill(None, unpriced="no price is known")
            if price is not None:
                bill = Bill(metered.worst.cost, price.source, price.currency)
        cost = bill.cost or 0
        if metered.held is not None and cost > metered.worst.cost and not used.disputed:
            used = msgspec.structs.replace(used, disputed=True)  # the tokens were bounded, and the price was not
        if call.settle(outcome, used if used.input or used.output else None, cost):
            if used.disputed:
                _note_dispute(metered, used, cost)
            if bill.unpriced:
                metrics.MODEL_CALLS_UNPRICED.labels(call.tenant, call.provider).inc()
            amount = Amount(min(used.input + used.output, MAX_AMOUNT), min(cost, MAX_AMOUNT))
            self._limiter.settle(metered.terms.limits, metered.id, amount, metered.entry(used, bill, outcome))
        return used

    def _bill(self, metered: Metered, used: Usage) -> Bill:
        """Return what a call costs: as the provider states it, or else by the price of the tier that answered."""
        target, price = metered.target, metered.price
        if target.own or not (used.input or used.output or used.stated_cost):
            return Bill(0, price.source if price is not None else "", price.currency if price is not None else "USD")
        if used.stated_cost is not None and target.billed_by in STATE_THEIR_COST and _in_dollars(price):
            return Bill(used.stated_cost, "stated by the provider")
        metered.price = price = served_price(
            target, metered.call.model, self._public, (price, metered.asked_tier), used.tier
        )
        if price is None:
            return Bill(None, unpriced="no price is known")
        asked, size = metered.searches()
        return price.bill(used, searched=asked, size=size)


def _in_dollars(price: Price | None) -> bool:
    return price is None or price.currency == "USD"


def _note_dispute(metered: Metered, used: Usage, cost: int) -> None:
    """Tell whoever looks after the platform that a bound does not hold, or that a provider does not keep to limits."""
    call = metered.call
    metrics.MODEL_CALLS_DISPUTED.labels(call.tenant, call.provider).inc()
    _log.warning(
        "a call used more than was held for it",
        tenant=call.tenant,
        route=call.name,
        provider=call.provider,
        model=call.model,
        request_id=call.request_id,
        tokens=used.input + used.output,
        held_tokens=metered.worst.tokens,
        cost=cost,
        held_cost=metered.worst.cost,
        charged="as held" if metered.target.own else "in full",
    )


def _unbounded(fields: Fields, price: Price | None) -> GatewayError | None:
    """Return the refusal of a call whose price has no bound although its tokens have."""
    what = next((f"the field {name!r}" for name in ("speed", "inference_geo") if name in fields), None)
    if what is None and price is not None and price.open_ended:
        what = "a model that searches, and reads what it finds, as often as it likes"
    if what is None:
        return None
    message = f"This request has no upper cost bound, so it cannot run under a budget: {what}."
    return GatewayError(400, "not_limitable", message)


def _tier_of(fields: Fields) -> str:
    """Return the dearer tier that a request asks for, "" for standard processing.

    Raises:
        GatewayError: 400: there is no such tier. What it costs nobody could say, and any text could be written there.
    """
    if (given := fields.get("service_tier")) is None:
        return ""
    raw = memoryview(given)
    tier = None
    if len(raw) <= LONGEST_TIER:
        with contextlib.suppress(*UNREADABLE):
            tier = tier_of(_tier.decode(raw))
    if tier is None:
        message = f"'service_tier' has to be one of {', '.join(TIERS)}."
        raise errors.invalid_request(message, "service_tier")
    return tier


def _tier_unpriced(target: Target, model: str, tier: str) -> GatewayError:
    message = f"No price is known for {target.provider}/{model} in the service tier {tier!r}. Leave out 'service_tier'."
    return GatewayError(403, "price_unknown", message, param="service_tier")


def _price_refusal(terms: LimitSet, provider: str, name: str, price: Price | None) -> GatewayError | None:
    """Return the 403 of a call under a budget whose cost nobody can tell in the budget's currency."""
    if not terms.money or (price is not None and price.currency == terms.currency):
        return None
    model = f"{provider}/{name}"
    if price is not None:
        what = f"The price of {model} is in {price.currency}, the budget in {terms.currency}."
    else:
        what = f"No price is known for {model}, and a budget applies."
    step = (
        f"Add one to the provider catalogue (providers.{provider}.models), remove the budget, or choose another model."
    )
    return GatewayError(403, "price_unknown", f"{what} {step}")
