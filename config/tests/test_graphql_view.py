"""The endpoint over HTTP: what it takes, how it answers, and that no body makes it fail."""

import io
import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzz_settings
from hypothesis import strategies as st

from config.tests.conftest import Api, token
from config.tests.small_schema import EFFECTS

ADMIN = {"scope": "workflows:admin"}


def codes(response: Any) -> list[str]:
    return [error["extensions"]["code"] for error in json.loads(response.content)["errors"]]


# --- the request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql", "/graphql/"])
def test_both_addresses_answer(api: Api, path: str) -> None:
    response = api.client.post(
        path,
        data={"query": "{ whoami }"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token()}"},
    )
    assert (response.status_code, response.content) == (200, b'{"data":{"whoami":"alice"}}')
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Length"] == "27"


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head", "options"])
def test_other_methods_are_refused(api: Api, method: str) -> None:
    send = getattr(api.client, method)
    response = send(
        "/graphql?query=mutation{store(input:1)}",
        headers={"Authorization": f"Bearer {token()}"},
    )
    assert response.status_code == 405
    assert response["Allow"] == "POST"
    assert EFFECTS == []


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/graphql",
        "application/json; charset=utf-16",
        "",
    ],
)
def test_only_json_is_taken(api: Api, content_type: str) -> None:
    body = b'{"query": "mutation { store(input: 1) }"}'
    response = api.post(body, content_type=content_type)
    assert (response.status_code, codes(response)) == (415, ["BAD_USER_INPUT"])
    assert EFFECTS == []


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "Application/JSON"])
def test_json_in_other_words(api: Api, content_type: str) -> None:
    assert api.post({"query": "{ whoami }"}, content_type=content_type).status_code == 200


def test_compressed_bodies_are_refused(api: Api) -> None:
    assert api.post(b"{}", HTTP_CONTENT_ENCODING="gzip").status_code == 415


def test_the_query_string_does_not_count(api: Api) -> None:
    response = api.client.post(
        "/graphql?query=mutation{store(input:1)}",
        data={"query": "{ whoami }"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token()}"},
    )
    assert response.content == b'{"data":{"whoami":"alice"}}'


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "two values": b"{} {}",
    "single quotes": b"{'query': '{ whoami }'}",
    "not UTF-8": b'{"query": "\xff"}',
    "UTF-16": '{"query": "{ whoami }"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"query": "{ whoami }"}',
    "NaN": b'{"query": "{ whoami }", "variables": {"a": NaN}}',
    "a long integer": b'{"query": "{ whoami }", "variables": {"a": ' + b"1" * 5_000 + b"}}",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "a batch": b'[{"query": "mutation { store(input: 1) }"}]',
    "an empty batch": b"[]",
    "a text": b'"{ whoami }"',
    "null": b"null",
    "a number": b"1",
    "no query": b"{}",
    "query null": b'{"query": null}',
    "query empty": b'{"query": ""}',
    "query a number": b'{"query": 1}',
    "query an object": b'{"query": {"a": 1}}',
    "query a list": b'{"query": ["{ whoami }"]}',
    "query blank": b'{"query": "  "}',
    "query no GraphQL": b'{"query": "select 1"}',
    "query with NUL": b'{"query": "{ whoami }\\u0000"}',
    "query with a lone surrogate": b'{"query": "{ echo(value: \\"\\ud800\\") }"}',
    "query a fragment only": b'{"query": "fragment F on Query { whoami }"}',
    "query a type": b'{"query": "type A { b: C }"}',
    "a subscription": b'{"query": "subscription { whoami }"}',
    "variables a list": b'{"query": "{ whoami }", "variables": []}',
    "variables a text": b'{"query": "{ whoami }", "variables": "{}"}',
    "operationName a number": b'{"query": "{ whoami }", "operationName": 1}',
    "operationName unknown": b'{"query": "query A { whoami }", "operationName": "B"}',
    "operationName needed": b'{"query": "query A { whoami } query B { whoami }"}',
    "a key with a lone surrogate": b'{"query": "{ whoami }", "\\udc00": 1}',
    "a variable missing": b'{"query": "query ($b: Boolean!) { whoami @skip(if: $b) }"}',
    "a variable of another type": b'{"query": "query ($v: Int) { number(value: $v) }", '
    b'"variables": {"v": "1"}}',
    "an infinite variable": b'{"query": "query ($v: Int) { number(value: $v) }", '
    b'"variables": {"v": 1e999}}',
    "a literal too long": b'{"query": "{ number(value: ' + b"1" * 5_000 + b') }"}',
    "an unknown enum value": b'{"query": "{ paint(colour: GREEN) }"}',
    "an unknown field": b'{"query": "{ whoamy }"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_what_cannot_be_is_400(api: Api, body: bytes) -> None:
    response = api.post(body)
    assert response.status_code == 400
    assert set(codes(response)) == {"BAD_USER_INPUT"}
    assert "data" not in json.loads(response.content)
    assert EFFECTS == []


@pytest.mark.parametrize(
    "more",
    [
        {"variables": None, "operationName": None, "extensions": {"a": 1}},
        {"variables": {}, "operationName": "", "extensions": None},
        {"variables": {"unused": [1]}, "id": 7},
    ],
)
def test_what_is_not_needed_may_be_absent(api: Api, more: dict[str, Any]) -> None:
    response = api.post({"query": "{ whoami }", **more})
    assert response.content == b'{"data":{"whoami":"alice"}}'


def test_the_named_operation_is_executed(api: Api) -> None:
    query = "query A { whoami } mutation B { store(input: 1) }"
    response = api.post({"query": query, "operationName": "A"})
    assert response.content == b'{"data":{"whoami":"alice"}}'
    assert EFFECTS == []


@pytest.mark.parametrize(("size", "status"), [(1024**2, 200), (1024**2 + 1, 413)])
def test_a_megabyte_is_the_most(api: Api, size: int, status: int) -> None:
    body = b'{"query": "{ whoami }"}'
    assert api.post(body + b" " * (size - len(body))).status_code == status


@pytest.mark.parametrize(
    ("length", "status"), [("1048577", 413), ("9" * 50, 413), ("-1", 400), ("1e3", 400)]
)
def test_the_announced_length_is_enough_to_refuse(api: Api, length: str, status: int) -> None:
    response = api.post(b"{}", bearer=None, CONTENT_LENGTH=length)
    assert response.status_code == status


@pytest.mark.parametrize(("size", "status"), [(1024**2, 200), (1024**2 + 1, 413)])
def test_a_body_without_length_is_bounded_too(api: Api, size: int, status: int) -> None:
    body = b'{"query": "{ whoami }"}'
    chunked: dict[str, Any] = {
        "wsgi.input": io.BytesIO(body + b" " * (size - len(body))),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
    }
    assert api.post(b"{}", **chunked).status_code == status


@pytest.mark.parametrize(
    "environment",
    [
        # the line was cut, and the server gives what came
        {"CONTENT_LENGTH": "40"},
        # the server does not know where it ends
        {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"},
    ],
)
def test_part_of_a_body_is_refused(api: Api, environment: dict[str, Any]) -> None:
    body = b'{"query": "{ whoami }"}'
    sent: dict[str, Any] = {**environment, "wsgi.input": io.BytesIO(body)}
    response = api.post(body, **sent)
    assert response.status_code == 400
    assert b"whoami" not in response.content


# --- the answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept", ["application/graphql-response+json", "text/html, application/graphql-response+json"]
)
def test_the_answers_type_may_be_asked_for(api: Api, accept: str) -> None:
    response = api.post({"query": "{ whoami }"}, HTTP_ACCEPT=accept)
    assert response["Content-Type"] == "application/graphql-response+json"


def test_an_unexpected_error_is_masked(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="handrail.graphql"):
        answer = api.ask("{ node { id broken } }")
    assert answer["data"] == {"node": {"id": "n3", "broken": None}}
    (error,) = answer["errors"]
    error_id = error["extensions"]["errorId"]
    assert error["extensions"] == {"code": "INTERNAL", "errorId": error_id}
    assert error["path"] == ["node", "broken"]
    assert "hunter2" not in json.dumps(answer)
    assert error_id in caplog.text
    assert "hunter2" in caplog.text


def test_a_null_where_none_may_be_is_masked(api: Api) -> None:
    answer = api.ask("{ node { child { child { child { needed } } } } }")
    assert answer["data"] == {"node": {"child": {"child": {"child": None}}}}
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["INTERNAL"]
    assert "needed" not in answer["errors"][0]["message"]


def test_a_refusal_of_the_engine_is_told(api: Api) -> None:
    answer = api.ask("{ refuse whoami }")
    assert answer["data"] == {"refuse": None, "whoami": "alice"}
    (error,) = answer["errors"]
    assert error["message"] == "Another call is being worked off."
    assert error["extensions"] == {"code": "EXECUTION_BUSY", "retryable": True}


def test_a_fault_of_the_door_is_500_and_masked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("config.graphql_view.execute_operation", fail)
    response = api.post({"query": "{ whoami }"})
    assert (response.status_code, codes(response)) == (500, ["INTERNAL"])
    assert b"hunter2" not in response.content


def test_a_database_that_is_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OperationalError("server closed the connection: hunter2")

    monkeypatch.setattr("config.graphql_view.execute_operation", fail)
    response = api.post({"query": "{ whoami }"})
    assert (response.status_code, codes(response)) == (503, ["SERVICE_UNAVAILABLE"])
    assert b"hunter2" not in response.content


# --- who may see what -----------------------------------------------------------------------------

INTROSPECTION = "{ __schema { queryType { name } } }"


@pytest.mark.parametrize(
    ("claims", "is_debug", "is_told"),
    [({}, False, False), (ADMIN, False, True), ({}, True, True)],
)
def test_introspection_is_for_staff_and_debug(
    api: Api, settings: Any, claims: dict[str, Any], is_debug: bool, is_told: bool
) -> None:
    settings.DEBUG = is_debug
    response = api.post({"query": INTROSPECTION}, bearer=token(**claims))
    assert response.status_code == (200 if is_told else 400)
    assert (b"queryType" in response.content and b"errors" not in response.content) is is_told


@pytest.mark.parametrize(("claims", "is_told"), [({}, False), (ADMIN, True)])
@pytest.mark.parametrize(
    "query", ["{ whoamy }", "{ paint(colour: REDD) }", "{ echo(valu: 1) }", "{ ... on Quer { a } }"]
)
def test_hints_are_for_staff(api: Api, claims: dict[str, Any], is_told: bool, query: str) -> None:
    response = api.post({"query": query}, bearer=token(**claims))
    assert (b"Did you mean" in response.content) is is_told


@pytest.mark.parametrize(("claims", "is_told"), [({}, False), (ADMIN, True)])
def test_hints_about_variables_are_for_staff(
    api: Api, claims: dict[str, Any], is_told: bool
) -> None:
    query = "query ($c: Colour) { paint(colour: $c) }"
    response = api.post({"query": query, "variables": {"c": "REDD"}}, bearer=token(**claims))
    assert response.status_code == 400
    assert (b"Did you mean" in response.content) is is_told


def test_typename_is_for_everybody(api: Api) -> None:
    assert api.ask("{ __typename }") == {"data": {"__typename": "Query"}}


def test_in_debug_the_nameless_may_only_introspect(api: Api, settings: Any) -> None:
    settings.DEBUG = True
    assert api.post({"query": INTROSPECTION}, bearer=None).status_code == 200
    for query in ("{ number }", "{ __schema { queryType { name } } number }"):
        response = api.post({"query": query}, bearer=None)
        assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])


@pytest.mark.parametrize(("claims", "status"), [({}, ["FORBIDDEN"]), (ADMIN, [])])
def test_permission_by_scope(api: Api, claims: dict[str, Any], status: list[str]) -> None:
    answer = api.ask("{ forbidden }", bearer=token(**claims))
    assert [error["extensions"]["code"] for error in answer.get("errors", [])] == status


# --- staff by session -----------------------------------------------------------------------------


def staff_client(*, permission: str = "", **fields: Any) -> Client:
    user = User.objects.create_user("operator", **{"is_staff": True, **fields})
    if permission:
        user.user_permissions.add(Permission.objects.get(codename=permission))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def csrf_of(client: Client) -> str:
    client.get("/admin/login/?next=/admin/", headers={"Accept": "text/html"})
    return client.cookies["csrftoken"].value


def post_as(client: Client, query: str, **headers: str) -> Any:
    return client.post(
        "/graphql", data={"query": query}, content_type="application/json", headers=headers
    )


@pytest.fixture
def csrf() -> str:
    return "a" * 32


@pytest.mark.django_db
def test_staff_by_session_with_csrf(api: Api, csrf: str) -> None:
    client = staff_client()
    client.cookies["csrftoken"] = csrf
    response = post_as(client, "{ whoami }", **{"X-CSRFToken": csrf})
    assert response.content == b'{"data":{"whoami":"staff:operator"}}'
    assert post_as(client, INTROSPECTION, **{"X-CSRFToken": csrf}).status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("given", [{}, {"X-CSRFToken": "b" * 32}, {"X-CSRFToken": ""}])
def test_staff_without_csrf_is_refused(api: Api, csrf: str, given: dict[str, str]) -> None:
    client = staff_client()
    client.cookies["csrftoken"] = csrf
    response = post_as(client, "mutation { store(input: 1) }", **given)
    assert (response.status_code, codes(response)) == (403, ["FORBIDDEN"])
    assert EFFECTS == []


@pytest.mark.django_db
def test_a_foreign_origin_is_refused(api: Api, csrf: str) -> None:
    client = staff_client()
    client.cookies["csrftoken"] = csrf
    headers = {"X-CSRFToken": csrf, "Origin": "https://evil.example"}
    assert post_as(client, "{ whoami }", **headers).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [{"is_staff": False}, {"is_active": False}])
def test_others_sessions_are_nobody(api: Api, csrf: str, fields: dict[str, Any]) -> None:
    client = staff_client(**fields)
    client.cookies["csrftoken"] = csrf
    response = post_as(client, "{ whoami }", **{"X-CSRFToken": csrf})
    assert (response.status_code, codes(response)) == (401, ["UNAUTHENTICATED"])


@pytest.mark.django_db
def test_a_token_beats_the_session(api: Api) -> None:
    client = staff_client()
    response = post_as(client, "{ whoami }", Authorization=f"Bearer {token()}")
    assert response.content == b'{"data":{"whoami":"alice"}}'
    assert post_as(client, "{ whoami }", Authorization="Bearer x").status_code == 401


@pytest.mark.django_db
@pytest.mark.parametrize(("permission", "is_allowed"), [("", False), ("change_workflow", True)])
def test_permission_by_session(api: Api, csrf: str, permission: str, is_allowed: bool) -> None:
    client = staff_client(permission=permission)
    client.cookies["csrftoken"] = csrf
    answer = json.loads(post_as(client, "{ forbidden }", **{"X-CSRFToken": csrf}).content)
    assert ("errors" not in answer) is is_allowed


# --- rates ----------------------------------------------------------------------------------------


def test_a_users_rate(api: Api, settings: Any) -> None:
    settings.RATE_LIMIT_USER = "3/minute"
    assert [api.post({"query": "{ whoami }"}).status_code for _ in range(3)] == [200] * 3
    response = api.post({"query": "{ whoami }"})
    assert (response.status_code, codes(response)) == (429, ["RATE_LIMITED"])
    extensions = json.loads(response.content)["errors"][0]["extensions"]
    assert 59_000 < extensions["retryAfterMs"] <= 60_000
    assert response["Retry-After"] == "60"
    assert api.post({"query": "{ whoami }"}, bearer=token(sub="bob")).status_code == 200


def test_an_addresss_rate_counts_refused_tokens(api: Api, settings: Any) -> None:
    settings.RATE_LIMIT_ADDRESS = "3/minute"
    for number in range(3):
        assert api.post({"query": "{ whoami }"}, bearer=f"guess{number}").status_code == 401
    assert api.post({"query": "{ whoami }"}).status_code == 429
    assert api.post({"query": "{ whoami }"}, REMOTE_ADDR="192.0.2.7").status_code == 200


def test_a_forwarded_address_counts_behind_trusted_proxies_only(api: Api, settings: Any) -> None:
    settings.RATE_LIMIT_ADDRESS = "1/minute"
    for trusted, statuses in (((), [200, 429]), (("127.0.0.1",), [200, 200])):
        settings.TRUSTED_PROXIES = trusted
        given = [
            api.post(
                {"query": "{ whoami }"},
                REMOTE_ADDR="127.0.0.1",
                HTTP_X_FORWARDED_FOR=f"192.0.2.{number}",
                HTTP_X_FORWARDED_PROTO="http",
            ).status_code
            for number in (1, 2)
        ]
        assert given == statuses


# --- anything at all ------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ":",
        "$",
        "!",
        "...",
        "on",
        "@skip",
        "@include",
        "if",
        "true",
        "false",
        "null",
        "query",
        "mutation",
        "fragment",
        "F",
        "whoami",
        "echo",
        "value",
        "node",
        "id",
        "child",
        "children",
        "paint",
        "colour",
        "RED",
        "number",
        "1",
        "-1.5e9",
        '"text"',
        '"""block"""',
        "$v",
        "Int",
        "JSON",
        "__schema",
        "__typename",
        "#",
        "\\u0000",
        "�",
        "\x00",
        "ü",
        ",",
        "subscription",
        "store",
        "input",
    ]
)
QUERIES = st.lists(PIECES, max_size=40).map(" ".join) | st.text()
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "query": QUERIES | JSON_VALUES,
        "variables": JSON_VALUES,
        "operationName": JSON_VALUES,
        "extensions": JSON_VALUES,
    },
)


@fuzz_settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=st.binary() | PAYLOADS.map(lambda payload: json.dumps(payload).encode()))
def test_no_body_makes_a_500(api: Api, body: bytes) -> None:
    response = api.post(body)
    assert response.status_code in {200, 400}
    answer = json.loads(response.content)
    assert "data" in answer or answer["errors"]
    if response.status_code == 400:
        assert set(codes(response)) <= {"BAD_USER_INPUT", "QUERY_TOO_COMPLEX"}


@fuzz_settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    value=JSON_VALUES, kind=st.sampled_from(["JSON", "Int", "Colour", "ID", "Boolean", "String"])
)
def test_no_variable_makes_a_500(api: Api, value: Any, kind: str) -> None:
    query = f"query ($v: {kind}) {{ echo(value: {{v: $v}}) number }}"
    response = api.post(json.dumps({"query": query, "variables": {"v": value}}).encode())
    assert response.status_code in {200, 400}
    assert b"INTERNAL" not in response.content
