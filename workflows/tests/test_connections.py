"""Connections: sealed, found by name or origin, kept for two seconds."""

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from config.crypto import seal
from workflows import connections
from workflows.connections import (
    ConnectionValue,
    connection_by_name,
    connection_facts,
    connection_for,
    forget_connections,
    keep_connections,
    set_connection,
)
from workflows.enums import AuthKind
from workflows.errors import DefinitionError, EndpointForbidden, Problem
from workflows.models import Connection
from workflows.routing import ConnectionFacts

pytestmark = pytest.mark.django_db
SECRET = "correct horse battery staple"


def bank(**changes: Any) -> Connection:
    given = {"name": "bank", "base_url": "https://bank.example/api", **changes}
    return set_connection(**given)[0]


def bearer() -> Connection:
    return bank(auth_kind=AuthKind.BEARER, secret=SECRET)


def refused_for(**changes: Any) -> list[str]:
    with pytest.raises(DefinitionError) as refused:
        bank(**changes)
    return [str(problem) for problem in refused.value.problems]


def test_secret_is_sealed_and_opened_for_calls_only() -> None:
    row = bearer()
    assert row.secret is not None
    assert SECRET.encode() not in bytes(row.secret)
    value = connection_by_name("bank")
    assert value == ConnectionValue(
        name="bank",
        base_url="https://bank.example/api",
        auth_kind=AuthKind.BEARER,
        secret=SECRET,
    )
    assert SECRET not in repr(value)
    assert SECRET not in f"{row!r} {row} {vars(row)}"


def test_secret_of_another_connection_does_not_open() -> None:
    row = bearer()
    other = bank(name="other", auth_kind=AuthKind.BEARER, secret="other secret")
    Connection.objects.filter(pk=other.pk).update(secret=row.secret)
    forget_connections()
    with pytest.raises(EndpointForbidden, match="the credentials of connection other cannot be"):
        connection_by_name("other")


def test_callback_secret_is_sealed_by_a_binding_of_its_own() -> None:
    row = bank(callback_secret=SECRET)
    assert SECRET.encode() not in bytes(row.callback_secret or b"")
    value = connection_by_name("bank")
    assert (value.callback_secret, value.secret) == (SECRET, "")
    assert SECRET not in f"{value!r} {row!r} {row} {vars(row)}"
    Connection.objects.filter(pk=row.pk).update(
        auth_kind=AuthKind.BEARER, secret=row.callback_secret, callback_secret=None
    )
    forget_connections()
    with pytest.raises(EndpointForbidden, match="the credentials of connection bank cannot be"):
        connection_by_name("bank")


def test_callback_secret_that_does_not_open_is_not_no_secret() -> None:
    row = bank(callback_secret=SECRET)
    Connection.objects.filter(pk=row.pk).update(callback_secret=b"garbage")
    forget_connections()
    with pytest.raises(EndpointForbidden, match="the credentials of connection bank cannot be"):
        connection_by_name("bank")


def test_callback_secret_stays_until_it_is_replaced_or_removed() -> None:
    found = []
    for given in (None, "first", None, "second", ""):
        row = bank(callback_secret=given)
        found.append(connection_by_name("bank").callback_secret)
    assert found == ["", "first", "first", "second", ""]
    assert row.callback_secret is None


def test_kept_secret_stays_with_its_origin() -> None:
    bearer()
    bank(base_url="https://bank.example/v2", auth_kind=AuthKind.BEARER)
    assert connection_by_name("bank").secret == SECRET
    assert refused_for(base_url="https://evil.example", auth_kind=AuthKind.BEARER) == [
        "secret: is required for BEARER"
    ]
    assert connection_by_name("bank").base_url == "https://bank.example/v2"


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"base_url": "ftp://bank.example"}, ["base_url: only http and https are called"]),
        ({"base_url": "https://u:p@bank.example"}, ["base_url: a URL holds no credentials"]),
        ({"base_url": "https://bank.example?a=b"}, ["base_url: must not have a query"]),
        (
            {"name": "a b"},
            ["name: must be up to 100 letters, digits, dots, hyphens and underscores"],
        ),
        ({"auth_kind": AuthKind.BEARER}, ["secret: is required for BEARER"]),
        ({"secret": SECRET}, ["secret: has no use without authentication"]),
        (
            {"auth_kind": AuthKind.BASIC, "secret": SECRET},
            ["username: is required for BASIC"],
        ),
        (
            {"auth_kind": AuthKind.BASIC, "secret": SECRET, "username": "a:b"},
            ["username: must be up to 200 characters without a colon"],
        ),
        (
            {"auth_kind": AuthKind.API_KEY, "secret": SECRET},
            ["header_name: is required for API_KEY"],
        ),
        (
            {"auth_kind": AuthKind.API_KEY, "secret": SECRET, "header_name": "Host"},
            ["header_name: the header Host is set by Handrail"],
        ),
        (
            {"auth_kind": AuthKind.BEARER, "secret": "a\r\nX: b"},
            ["secret: must not hold line breaks or NUL"],
        ),
        ({"callback_secret": "a\n"}, ["callback_secret: must not hold line breaks or NUL"]),
    ],
)
def test_connection_that_could_not_be_called_is_refused(
    changes: dict[str, Any], problems: list[str]
) -> None:
    assert refused_for(**changes) == problems
    assert Connection.objects.count() == 0


def test_who_is_slower_to_register_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check = connections._connection_problems

    def check_while_somebody_registers(**given: Any) -> list[Problem]:
        Connection.objects.create(
            name="bank", base_url="https://a.example", origin="https://a.example"
        )
        return check(**given)

    monkeypatch.setattr(connections, "_connection_problems", check_while_somebody_registers)
    assert refused_for() == ["name: is that of a connection registered just now; look at it first"]


def test_relative_endpoint_goes_to_the_default_connection() -> None:
    value, url = connection_for("", "/api/pay?x=1")
    assert (value.name, value.allow_private, value.secret) == ("default", True, "")
    assert url == "http://127.0.0.1:9000/api/pay?x=1"


def test_registered_default_takes_the_settings_place() -> None:
    bank(name="default")
    assert connection_for("", "/pay")[1] == "https://bank.example/api/pay"
    assert connection_by_name("default").allow_private is False
    with pytest.raises(EndpointForbidden, match="no connection is registered for http://127"):
        connection_for("", "http://127.0.0.1:9000/pay")


def test_absolute_endpoint_goes_to_the_connection_of_its_origin() -> None:
    bank()
    value, url = connection_for("", "https://BANK.example:443/other")
    assert (value.name, url) == ("bank", "https://bank.example/other")
    assert connection_for("", "http://127.0.0.1:9000/pay")[0].name == "default"
    with pytest.raises(EndpointForbidden, match="no connection is registered for https://evil"):
        connection_for("", "https://evil.example/api")
    with pytest.raises(EndpointForbidden, match="not on its connection's origin"):
        connection_for("bank", "https://evil.example/api")


def test_origin_of_two_connections_has_to_be_named() -> None:
    bank()
    bank(name="bank-2")
    with pytest.raises(EndpointForbidden, match="belongs to bank, bank-2: name the connection"):
        connection_for("", "https://bank.example/api/pay")
    assert connection_for("bank-2", "https://bank.example/pay")[0].name == "bank-2"


def test_unknown_connection_is_forbidden(settings: Any) -> None:
    settings.TRIGGER_BASE_URL = ""
    for name in ("nobody", "default"):
        with pytest.raises(EndpointForbidden, match=f"there is no connection {name}"):
            connection_by_name(name)


def test_connection_is_read_again_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    row = bank()
    clock = [100.0]
    monkeypatch.setattr("workflows.connections.time.monotonic", lambda: clock[0])
    with django_assert_num_queries(1):
        assert connection_by_name("bank").allow_private is False
        clock[0] = 101.9
        assert connection_by_name("bank").allow_private is False
    Connection.objects.filter(pk=row.pk).update(allow_private=True)
    assert connection_by_name("bank").allow_private is False
    clock[0] = 102.0
    assert connection_by_name("bank").allow_private is True


def test_several_connections_are_read_together(django_assert_num_queries: Any) -> None:
    for name in ("one", "two"):
        bank(name=name, auth_kind=AuthKind.API_KEY, secret=SECRET, header_name="X-Key")
    broken = bank(name="broken", auth_kind=AuthKind.API_KEY, secret=SECRET, header_name="X-Key")
    Connection.objects.filter(pk=broken.pk).update(secret=b"garbage")
    forget_connections()
    with django_assert_num_queries(1):
        keep_connections(["", "one", "two", "broken", "nobody"])
        assert connection_by_name("one").secret == SECRET
        assert connection_by_name("default").base_url == "http://127.0.0.1:9000"
        keep_connections(["", "one", "two"])
    for name in ("broken", "nobody"):
        with pytest.raises(EndpointForbidden, match=name):
            connection_by_name(name)


def test_facts_open_no_credentials(settings: Any) -> None:
    row = bank(auth_kind=AuthKind.API_KEY, secret=SECRET, header_name="X-Key")
    Connection.objects.filter(pk=row.pk).update(secret=b"garbage")
    bank(name="signed", auth_kind=AuthKind.HMAC, secret=SECRET)
    assert connection_facts() == {
        "default": ConnectionFacts("http://127.0.0.1:9000"),
        "bank": ConnectionFacts("https://bank.example/api", "X-Key"),
        "signed": ConnectionFacts("https://bank.example/api", "X-Handrail-Signature"),
    }


def test_database_refuses_what_the_rules_forbid() -> None:
    row = Connection(name="x", base_url="https://x.example", origin="https://x.example")
    sealed = seal(b"s", binding=b"b")
    for changes in (
        {"secret": sealed},
        {"auth_kind": "BEARER"},
        {"auth_kind": "BASIC", "secret": sealed},
        {"auth_kind": "API_KEY", "secret": sealed},
        {"auth_kind": "MAGIC", "secret": sealed},
    ):
        broken = Connection(name=row.name, base_url=row.base_url, origin=row.origin, **changes)
        with pytest.raises(IntegrityError), transaction.atomic():
            broken.save()
    assert Connection.objects.count() == 0
