"""Signing in: counted per address and per name, refused in a sentence that says nothing about who exists."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

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


def test_looking_at_the_page_is_no_try(operator: User) -> None:
    client = Client(REMOTE_ADDR="203.0.113.7")
    assert [client.get(LOGIN).status_code for _ in range(9)] == [200] * 9
    assert try_to_sign_in("operator", PASSWORD).status_code == 302
