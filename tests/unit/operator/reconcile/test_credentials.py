"""Secrets are kept where they are usable and made where they are not."""

import base64
import re
from dataclasses import replace

from pydantic import SecretStr

from assistant_crds import naming
from assistant_operator.config import Settings
from assistant_operator.reconcile.credentials import credentials, passwords, with_weaviate_key

SETTINGS = Settings(
    namespace="p",
    routes_namespace="r",
    postgres_dsn="postgresql://o:p@pg:5432/postgres",
    redis_url="rediss://o:p@redis:6379/0",
    weaviate_url="http://w:8080",
    weaviate_grpc="w:50051",
    weaviate_api_key="root",
    migrations_dir="/nowhere",
    tenant_postgres="pg.p.svc:5432",
    tenant_redis="redis.p.svc:6379",
    tenant_weaviate_url="http://w.p.svc:8080",
    tenant_weaviate_grpc="w.p.svc:50051",
    gateway_url="http://g",
    api_image="i",
)


def as_owned(made):
    def encoded(values):
        return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}

    return {
        ("Secret", naming.STORES_SECRET): encoded(dict(made.stores)),
        ("Secret", naming.API_KEY_SECRET): encoded({naming.API_KEY_KEY: made.api_key}),
        ("Secret", naming.ADMIN_SECRET): encoded({"email": made.admin_email, "password": made.admin_password}),
    }


def test_new_ones_are_random_and_complete_but_for_the_vector_key():
    """Passwords and key are made; the vector store's key is still to come, so pods cannot start yet."""
    one, two = credentials({}, "t_a", SETTINGS, "acme"), credentials({}, "t_a", SETTINGS, "acme")
    assert one.stores["postgres_dsn"].startswith("postgresql://t_a_app:")
    assert one.stores["postgres_dsn"].endswith("@pg.p.svc:5432/t_a")
    assert one.stores["redis_url"].startswith("rediss://t_a:")
    assert passwords(one) != passwords(two)
    assert one.api_key != two.api_key
    assert re.fullmatch(r"ak_[A-Za-z0-9_-]{43}", one.api_key)
    assert not one.complete
    assert with_weaviate_key(one, "k").complete


def test_what_the_secrets_hold_is_kept():
    """A second look makes nothing new."""
    made = with_weaviate_key(credentials({}, "t_a", SETTINGS, "acme"), "k")
    assert credentials(as_owned(made), "t_a", SETTINGS, "acme").stores == made.stores
    assert credentials(as_owned(made), "t_a", SETTINGS, "acme").api_key == made.api_key


def test_a_new_address_keeps_the_password():
    """When a store moves, pods get its new address with the password that it knows."""
    made = credentials({}, "t_a", SETTINGS, "acme")
    moved = SETTINGS.model_copy(update={"tenant_postgres": "elsewhere:5432"})
    again = credentials(as_owned(made), "t_a", moved, "acme")
    assert "@elsewhere:5432/" in again.stores["postgres_dsn"]
    assert passwords(again) == passwords(made)


def test_unusable_entries_are_replaced_one_by_one():
    """A key that is missing or spoilt is made anew; the others stay."""
    made = with_weaviate_key(credentials({}, "t_a", SETTINGS, "acme"), "k")
    owned = as_owned(made)
    del owned["Secret", naming.STORES_SECRET]["data"]["redis_url"]
    owned["Secret", naming.API_KEY_SECRET]["data"][naming.API_KEY_KEY] = "!!"
    again = credentials(owned, "t_a", SETTINGS, "acme")
    assert passwords(again)[0] == passwords(made)[0]
    assert passwords(again)[1] not in {"", passwords(made)[1]}
    assert again.api_key != made.api_key


def test_a_short_password_is_not_accepted():
    """Who may edit the Secret cannot weaken the database's password."""
    dsn = base64.b64encode(b"postgresql://t_a_app:short@pg/t_a").decode()
    owned = {("Secret", naming.STORES_SECRET): {"data": {"postgres_dsn": dsn}}}
    assert len(passwords(credentials(owned, "t_a", SETTINGS, "acme"))[0]) >= 32


def test_secrets_do_not_show_in_a_representation():
    """A logged object gives nothing away."""
    made = credentials({}, "t_a", SETTINGS, "acme")
    assert made.api_key not in repr(made)
    assert passwords(made)[0] not in repr(made)


def test_tenants_reach_postgres_with_the_operators_kind_of_tls():
    """What the operator's DSN says of TLS holds for tenants; an authority of its own is handed to their pods."""
    dsn = "postgresql://o:p@pg:5432/postgres?sslmode=verify-full&sslrootcert=/etc/assistant/secrets/postgres_ca"
    settings = SETTINGS.model_copy(update={"postgres_dsn": SecretStr(dsn), "postgres_ca": "PEM"})
    made = credentials({}, "t_a", settings, "acme")
    assert made.stores["postgres_dsn"].endswith(
        "@pg.p.svc:5432/t_a?sslmode=verify-full&sslrootcert=/etc/assistant/stores/postgres_ca"
    )
    assert made.stores["postgres_ca"] == "PEM"
    without = SETTINGS.model_copy(
        update={"postgres_dsn": SecretStr("postgresql://o:p@pg:5432/postgres?sslmode=require")}
    )
    assert credentials({}, "t_a", without, "acme").stores["postgres_dsn"].endswith("/t_a?sslmode=require")


def test_a_key_that_could_not_be_sent_is_none():
    """What a tenant wrote in the place of the vector store's key reaches no request unless it looks like a key."""
    for key in ("a\nX-Other: 1", "ü", "k" * 10_000):
        held = as_owned(with_weaviate_key(credentials({}, "t_a", SETTINGS, "acme"), key))
        assert credentials(held, "t_a", SETTINGS, "acme").stores["weaviate_api_key"] == ""


def test_keys_of_the_api_and_the_first_sign_in_are_made_once():
    """Access tokens, the audit log and the first owner's password outlive every later run."""
    made = with_weaviate_key(credentials({}, "t_a", SETTINGS, "acme"), "k")
    again = credentials(as_owned(made), "t_a", SETTINGS, "acme")
    for key in (naming.SIGNING_KEY, naming.AUDIT_KEY):
        assert len(base64.urlsafe_b64decode(made.stores[key] + "=")) == 32
        assert again.stores[key] == made.stores[key]
    assert made.stores[naming.SIGNING_KEY] != made.stores[naming.AUDIT_KEY]
    assert made.admin_email == "admin@acme.invalid"
    assert len(made.admin_password) >= 20
    assert (again.admin_email, again.admin_password) == (made.admin_email, made.admin_password)


def test_a_first_owner_may_be_named_but_not_with_a_weak_password():
    """What is written into the Secret by hand counts where it can be used."""
    made = credentials({}, "t_a", SETTINGS, "acme")
    named = replace(made, admin_email="ada@acme.example", admin_password="short")
    again = credentials(as_owned(named), "t_a", SETTINGS, "acme")
    assert again.admin_email == "ada@acme.example"
    assert len(again.admin_password) >= 20
    for email in ("", "two words@acme.example", "nobody"):
        owned = as_owned(replace(made, admin_email=email))
        assert credentials(owned, "t_a", SETTINGS, "acme").admin_email == "admin@acme.invalid"


def test_keys_of_an_older_release_are_completed():
    """A Secret that was written before there were accounts gets the keys, and keeps its passwords."""
    made = with_weaviate_key(credentials({}, "t_a", SETTINGS, "acme"), "k")
    owned = as_owned(made)
    for key in (naming.SIGNING_KEY, naming.AUDIT_KEY):
        del owned["Secret", naming.STORES_SECRET]["data"][key]
    again = credentials(owned, "t_a", SETTINGS, "acme")
    assert passwords(again) == passwords(made)
    assert again.complete
