"""The catalogue's names are followed while the operator runs."""

from assistant_crds.contracts import TOTAL_SECONDS
from assistant_operator.catalog import Catalog


def test_names_are_read_and_followed(tmp_path):
    """A changed file changes the names; an equal set of names is no change."""
    file = tmp_path / "catalog.yaml"
    file.write_text("providers: {openai: {url: 'https://a'}, demo: {}}")
    catalog = Catalog(file)
    assert catalog.providers == {"openai", "demo"}
    assert not catalog.refresh()
    file.write_text("providers: {demo: {url: 'https://b'}, openai: {}}")
    assert not catalog.refresh()
    file.write_text("providers: {demo: {}}")
    assert catalog.refresh()
    assert catalog.providers == {"demo"}


def test_an_unusable_file_changes_nothing(tmp_path):
    """A half-written or missing catalogue leaves the last good names; mended, it is read again."""
    file = tmp_path / "catalog.yaml"
    file.write_text("providers: {demo: {}}")
    catalog = Catalog(file)
    for text in ("providers: [", "- a", "providers: 5"):
        file.write_text(text)
        assert not catalog.refresh()
        assert catalog.providers == {"demo"}
    file.unlink()
    assert not catalog.refresh()
    file.write_text("providers: {demo: {}, other: {}}")
    assert catalog.refresh()


def test_without_a_file_nothing_is_known(tmp_path):
    """Then no provider is refused."""
    assert Catalog(tmp_path / "absent.yaml").providers is None


def test_an_empty_catalogue_has_no_provider(tmp_path):
    """A catalogue may be empty: then every provider is unknown."""
    file = tmp_path / "catalog.yaml"
    file.write_text("providers: {}")
    assert Catalog(file).providers == frozenset()


def test_the_longest_time_of_a_call_is_read_and_followed(tmp_path):
    """Of every provider and of tenants' own endpoints, which have the default; what is no number changes nothing."""
    file = tmp_path / "catalog.yaml"
    file.write_text("providers: {demo: {totalSeconds: 30}}")
    catalog = Catalog(file)
    assert catalog.gateway_seconds == TOTAL_SECONDS
    file.write_text("providers: {demo: {totalSeconds: 1800}, other: }")
    assert catalog.refresh()
    assert catalog.gateway_seconds == 1800
    file.write_text("providers: {demo: {totalSeconds: soon}, other: }")
    assert catalog.refresh()
    assert catalog.gateway_seconds == TOTAL_SECONDS
