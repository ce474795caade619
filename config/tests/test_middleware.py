"""What every request passes through: ids, hosts, forwarded headers, headers of answers, and the short way."""

import json
from typing import Any

import pytest
from django.test import Client
from structlog.testing import capture_logs


@pytest.fixture
def house(settings: Any) -> Client:
    """The house as in production, on plain HTTP."""
    settings.ROOT_URLCONF = "config.tests.house_urls"
    settings.DEBUG = False
    settings.SECURE_SSL_REDIRECT = False
    settings.ALLOWED_HOSTS = ["handrail.example.com", "testserver"]
    return Client(raise_request_exception=False)


def seen(response: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(response.content)
    return answer


def test_token_bearer_goes_the_short_way(house: Client) -> None:
    house.cookies["sessionid"] = "x"
    response = house.post("/graphql", HTTP_AUTHORIZATION="Bearer x")
    assert (seen(response)["user"], seen(response)["session"]) == (False, False)


def test_caller_without_cookie_goes_the_short_way(house: Client) -> None:
    assert seen(house.post("/graphql"))["session"] is False


@pytest.mark.django_db
def test_session_cookie_gets_the_user(house: Client) -> None:
    house.cookies["sessionid"] = "x"
    assert seen(house.post("/graphql"))["user"] is True


@pytest.mark.django_db
def test_cross_site_post_with_a_session_is_refused() -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies["sessionid"] = "x"
    assert strict.post("/admin/login/", {"username": "x"}).status_code == 403


def test_callback_goes_the_short_way_whatever_it_carries(house: Client) -> None:
    house.cookies["sessionid"] = "x"
    response = house.post("/callbacks/abc/")
    assert (seen(response)["user"], seen(response)["session"]) == (False, False)


def test_pages_go_the_whole_way(house: Client) -> None:
    assert seen(house.get("/page"))["session"] is True


def test_given_request_id_comes_back(house: Client) -> None:
    assert house.get("/healthz", HTTP_X_REQUEST_ID="abc-1")["X-Request-Id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, 'quote"', "line\nbreak"])
def test_unusable_request_id_is_replaced(house: Client, given: str) -> None:
    answered = house.get("/healthz", HTTP_X_REQUEST_ID=given)["X-Request-Id"]
    assert len(answered) == 16
    assert answered.isalnum()


def test_request_is_one_line_with_its_route_and_no_personal_value(house: Client) -> None:
    with capture_logs() as lines:
        house.get("/people/alice?pin=1234", HTTP_X_REQUEST_ID="abc-1")
    assert len(lines) == 1
    assert lines[0].pop("duration_ms") >= 0
    assert lines[0] == {
        "component": "handrail.request",
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "people/<str:name>",
        "status": 200,
    }


def test_probes_that_succeed_are_not_logged(house: Client) -> None:
    with capture_logs() as lines:
        assert house.get("/healthz").status_code == 200
    assert lines == []


def test_probe_that_is_refused_is_logged(house: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = "t" * 20
    with capture_logs() as lines:
        assert house.get("/metrics").status_code == 401
    assert [line["status"] for line in lines] == [401]


def test_failing_view_is_logged_with_500(house: Client) -> None:
    with capture_logs() as lines:
        assert house.get("/fail").status_code == 500
    assert [line["status"] for line in lines] == [500]


@pytest.mark.parametrize("path", ["/graphql", "/page", "/nowhere"])
def test_stranger_host_is_refused(house: Client, path: str) -> None:
    assert house.post(path, HTTP_HOST="evil.example.com").status_code == 400
    assert house.post(path, HTTP_HOST="handrail.example.com").status_code != 400
    assert house.post(path, HTTP_HOST="evil.example.com").status_code == 400


def test_probe_answers_to_any_host(house: Client) -> None:
    assert house.get("/healthz", HTTP_HOST="10.1.2.3:8000").status_code == 200


def test_data_and_pages_have_their_policies(house: Client) -> None:
    data = house.post("/graphql")
    assert data["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert data["X-Content-Type-Options"] == "nosniff"
    page = house.get("/nowhere")
    assert page["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert page["X-Frame-Options"] == "DENY"


def test_tls_is_demanded_everywhere_but_of_probes(house: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    demanding = Client(raise_request_exception=False)
    assert demanding.post("/graphql").status_code == 301
    assert demanding.get("/page")["Location"] == "https://testserver/page"
    assert demanding.get("/healthz").status_code == 200


def test_forwarded_scheme_is_believed_of_trusted_proxies_only(house: Client, settings: Any) -> None:
    settings.TRUSTED_PROXIES = ("10.0.0.0/8",)
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    forwarded: dict[str, Any] = {
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_FOR": "198.51.100.1",
    }
    trusted = seen(house.post("/graphql", REMOTE_ADDR="10.0.0.1", **forwarded))
    assert (trusted["secure"], trusted["address"]) == (True, "198.51.100.1")
    stranger = seen(house.post("/graphql", REMOTE_ADDR="203.0.113.9", **forwarded))
    assert (stranger["secure"], stranger["address"]) == (False, "203.0.113.9")
