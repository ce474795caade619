"""Signing in: counted per address and per name, refused in a sentence that says nothing about who exists."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

from config import rate_limits

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
PASSWORD = "right-one-9731"


@pytest.fixture(autouse=True)
def three_a_minute(settings: Any) -> Iterator[None]:
    settings.RATE_LIMIT_SIGN_IN = "3/minute"
    settings.REDIS_URL = ""  # counts there would outlive the test
    rate_limits.forget()
    yield
    rate_limits.forget()


@pytest.fixture
def operator() -> User:
    return User.objects.create_user("operator", password=PASSWORD, is_staff=True)


def try_to_sign_in(name: str, password: str = "wrong", address: str = "203.0.113.7") -> Any:
    data = {"username": name, "password": password, "next": "/admin/"}
    return Client(REMOTE_ADDR=address).post(LOGIN, data)


def sentence(response: Any) -> str:
    errors: list[str] = response.context["form"].non_field_errors()
    assert len(errors) == 1
    return re.sub(r"\d+ seconds?", "N seconds", errors[0])


def test_the_right_password_signs_in(operator: User) -> None:
    answer = try_to_sign_in("operator", PASSWORD)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_who_comes_to_the_sign_in_itself_is_led_to_the_overview(operator: User) -> None:
    answer = Client().post(LOGIN, {"username": "operator", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_the_fourth_try_of_an_address_waits(operator: User) -> None:
    assert [try_to_sign_in(f"name{n}").status_code for n in range(3)] == [200, 200, 200]
    refused = try_to_sign_in("operator", PASSWORD)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    expected = "There were too many tries to sign in. Please try again in N seconds."
    assert sentence(refused) == expected
    assert "sessionid" not in refused.cookies
    assert try_to_sign_in("operator", PASSWORD, "203.0.113.8").status_code == 302


def test_a_name_waits_whatever_address_it_comes_from(operator: User) -> None:
    addresses = [f"203.0.113.{n}" for n in range(3)]
    assert [try_to_sign_in("operator", address=one).status_code for one in addresses] == [200] * 3
    assert try_to_sign_in("operator", PASSWORD, "198.51.100.1").status_code == 429
    assert try_to_sign_in(" OPERATOR ", PASSWORD, "198.51.100.2").status_code == 429
    assert try_to_sign_in("other", address="198.51.100.3").status_code == 200


def test_addresses_of_one_ipv6_network_are_one(operator: User) -> None:
    for n in range(3):
        try_to_sign_in(f"name{n}", address=f"2001:db8::{n + 1}")
    assert try_to_sign_in("operator", PASSWORD, "2001:db8::ffff").status_code == 429
    assert try_to_sign_in("operator", PASSWORD, "2001:db8:0:1::1").status_code == 302


def test_who_exists_is_told_by_no_answer(operator: User) -> None:
    known = [try_to_sign_in("operator", address=f"203.0.113.{n}") for n in range(5)]
    unknown = [try_to_sign_in("nobody", address=f"198.51.100.{n}") for n in range(5)]
    told = [[(one.status_code, sentence(one)) for one in answers] for answers in (known, unknown)]
    assert told[0] == told[1]
    assert [status for status, _ in told[0]] == [200, 200, 200, 429, 429]


def test_what_is_forwarded_by_nobody_is_no_other_address(operator: User) -> None:
    """Without TRUSTED_PROXIES, and beyond them, everybody may claim every address."""
    client = Client(REMOTE_ADDR="203.0.113.7")

    def tries(name: str) -> int:
        sent = {"username": name, "password": "wrong"}
        forwarded = f"198.51.100.{name}, 203.0.113.9"
        return client.post(LOGIN, sent, headers={"X-Forwarded-For": forwarded}).status_code

    assert [tries(str(n)) for n in range(4)] == [200, 200, 200, 429]
    with override_settings(TRUSTED_PROXIES=("203.0.113.7",)):
        rate_limits.forget()
        assert [tries(str(n)) for n in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
    ],
)
def test_signing_in_leads_to_no_other_site(elsewhere: str, operator: User) -> None:
    client = Client()
    sent = {"username": "operator", "password": PASSWORD, "next": elsewhere}
    for answer in (client.post(LOGIN, sent), client.get(LOGIN, {"next": elsewhere})):
        assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_a_session_that_was_there_before_is_not_the_one_signed_in(operator: User) -> None:
    client = Client()
    given = client.session  # as somebody would plant it
    given["planted"] = "yes"
    given.save()
    client.post(LOGIN, {"username": "operator", "password": PASSWORD})
    assert client.session.session_key != given.session_key
    assert (
        Client(headers={"cookie": f"sessionid={given.session_key}"}).get("/admin/").status_code
        == 302
    )
    assert client.cookies["sessionid"]["max-age"] == 12 * 3600
    assert client.cookies["sessionid"]["httponly"]


def change_password(client: Client, old: str) -> Any:
    new = "another-one-4711"
    sent = {"old_password": old, "new_password1": new, "new_password2": new}
    return client.post("/admin/password_change/", sent)


def test_changing_the_password_ends_the_other_sessions(operator: User) -> None:
    here, there = Client(), Client()
    for client in (here, there):
        client.force_login(operator)
    assert change_password(here, "wrong").status_code == 200
    assert change_password(here, PASSWORD).status_code == 302
    assert [client.get("/admin/").status_code for client in (here, there)] == [200, 302]


def test_the_old_password_is_not_found_out_by_trying(operator: User) -> None:
    client = Client()
    client.force_login(operator)
    assert [change_password(client, "wrong").status_code for _ in range(3)] == [200] * 3
    refused = change_password(client, PASSWORD)
    assert (refused.status_code, refused["Location"]) == (302, "/admin/password_change/")
    assert "There were too many tries." in client.get(refused["Location"]).content.decode()
    operator.refresh_from_db()
    assert operator.check_password(PASSWORD)


def test_looking_at_the_page_is_no_try(operator: User) -> None:
    client = Client(REMOTE_ADDR="203.0.113.7")
    assert [client.get(LOGIN).status_code for _ in range(9)] == [200] * 9
    assert try_to_sign_in("operator", PASSWORD).status_code == 302
