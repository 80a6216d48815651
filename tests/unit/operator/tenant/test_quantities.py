"""Quantities are compared by value."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_operator.tenant.quantities import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", "0.1"),
        ("100m", "0.1"),
        ("1Gi", 1 << 30),
        ("1024Mi", 1 << 30),
        ("1k", 1000),
        ("5E", 5 * 10**18),
        ("12e6", 12 * 10**6),
        ("-2", -2),
        (".5", "0.5"),
        ("3u", "0.000003"),
    ],
)
def test_every_suffix_has_its_value(text, value):
    """Decimal and binary suffixes and exponents mean what the Kubernetes reference says."""
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1 Gi", "1gi", "Mi", "1e", "0x10", "1KiB", "--1"])
def test_what_is_no_quantity_is_refused(text):
    """Anything else is an error that repeats the text."""
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


@given(st.integers(0, 10**12))
def test_mebibytes_and_bytes_agree(number):
    """A number with a suffix is the number times the suffix, exactly."""
    assert parse(f"{number}Mi") == parse(str(number * 2**20))
