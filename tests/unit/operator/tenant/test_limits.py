"""Amounts are exact from the resource to the policy; what people read is short and never misleading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_crds import meta
from assistant_crds.contracts import Budget
from assistant_operator.tenant import limits
from assistant_operator.tenant.limits import Quota


def usd(amount, period="Month"):
    return Budget(amount_micros=amount, currency="USD", period=period)


@given(st.integers(0, 10**14 - 1))
def test_every_amount_survives_being_written_and_read(micros):
    """A budget as it is shown is the budget as it was written, to the last micro-unit."""
    shown = limits.budget_text(usd(micros)).removesuffix(" USD/Month")
    assert limits.parse(meta.Budget(amount=shown, period="Month")) == usd(micros)
    assert len(shown.split(".")[1]) >= 2


@pytest.mark.parametrize("amount", ["", "-1", "1.", ".5", "01", "1.1234567", "100000000", "1e3", "٣", "NaN", "1\n"])
def test_what_is_no_amount_is_refused(amount):
    """The error repeats what was written and shows what would be right."""
    with pytest.raises(ValueError, match=r'such as "25.00"'):
        limits.parse(meta.Budget(amount=amount, period="Month"))


def test_the_limit_that_binds_is_told_money_first():
    """Money before tokens before requests; the lower one of assistant and tenant, compared by the day."""
    rates, tokens = Quota(requests_per_minute=60), Quota(600, tokens_per_day=1000)
    assert limits.binding([]) == limits.binding([Quota()]) == ""
    assert limits.binding([rates, Quota(600)]) == "60/min"
    assert limits.binding([rates, tokens]) == "1000 tokens/day"
    assert limits.binding([tokens, Quota(budget=usd(25_000_000))]) == "25.00 USD/Month"
    assert limits.binding([Quota(budget=usd(500_000_000)), Quota(budget=usd(10_000))]) == "0.01 USD/Month"
    assert limits.binding([Quota(budget=usd(2_000_000, "Day")), Quota(budget=usd(50_000_000))]) == "50.00 USD/Month"
    assert limits.binding([Quota(budget=usd(1_500_001, "Day"))]) == "1.500001 USD/Day"


@pytest.mark.parametrize(
    ("micros", "shown"),
    [(0, "0.00"), (1, "<0.01"), (4_999, "<0.01"), (5_000, "0.01"), (1_234_999, "1.23"), (1_235_000, "1.24")],
)
def test_money_is_rounded_to_cents_but_never_to_nothing(micros, shown):
    """What was spent shows, however little it was."""
    assert limits.money(micros, "USD") == f"{shown} USD"


@pytest.mark.parametrize(("tokens", "shown"), [(0, 0), (999, 999), (1234, 1230), (1235, 1240), (99_960, 100_000)])
def test_tokens_are_rounded_to_three_digits(tokens, shown):
    """Not every call changes the status."""
    assert limits.rounded(tokens) == shown
