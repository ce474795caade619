"""Where the engine calls: the connection's own origin, a public address, and nowhere else."""

from typing import Any

import pytest

from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_execute_step import refused, told
from sandbox.testing import FakePartner
from workflows.connections import forget_connections, set_connection
from workflows.enums import AuthKind
from workflows.errors import DraftNotPublishable
from workflows.models import Connection

pytestmark = pytest.mark.django_db

TAKE = "/api/anything/x"
FORBIDDEN = refused("ENDPOINT_FORBIDDEN", "The endpoint is not one that its connection may call.")


# --- what a person enters -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        # one segment, whatever it looks like
        ("a/b", "a%2Fb"),
        ("?x=1&y", "%3Fx%3D1%26y"),
        ("#f", "%23f"),
        ("a;b=c", "a%3Bb%3Dc"),
        ("@evil.example", "%40evil.example"),
        ("//evil.example/x", "%2F%2Fevil.example%2Fx"),
        ("https://evil.example", "https%3A%2F%2Fevil.example"),
        ("a b", "a%20b"),
        ("${userId}", "%24%7BuserId%7D"),
        ("%41", "%2541"),
        ("…", "%E2%80%A6"),
        ("...", "..."),
        (5, "5"),
        (True, "true"),
        # what some proxy or partner could take for another path
        ("a/../b", None),
        ("..;x", None),
        ("..\\b", None),
        ("%2e%2e", None),
        ("%252e%252e/x", None),
        # what would end the line
        ("a\r\nHost: evil.example", None),
        ("a\tb", None),
        # what is too long for a URL
        ("x" * 9000, None),
    ],
)
@pytest.mark.parametrize("prefix", ["", "base"])
def test_what_is_entered_stays_one_segment(
    partner: FakePartner, value: Any, path: str | None, prefix: str
) -> None:
    endpoint = "/api/anything/${form0.v}"
    if prefix:
        endpoint = f"{partner.url}{endpoint}"
    phone = Phone(published(flow(form(0), server_step(1, triggerEndpoint=endpoint))))
    phone.step(0, {"v": value})
    if path is None:
        assert told(phone.step(1, {"a": 1})) == FORBIDDEN
        assert partner.calls() == []
        return
    assert phone.step(1, {"a": 1}).success
    (call,) = partner.calls()
    assert call.path == f"/api/anything/{path}"
    assert call.headers["host"] == partner.url.removeprefix("http://")


def test_a_value_in_a_query_stays_one_value(partner: FakePartner) -> None:
    step = server_step(1, triggerEndpoint=f"{TAKE}?a=${{form0.v}}&b=1")
    phone = Phone(published(flow(form(0), step)))
    phone.step(0, {"v": "1&b=2#c"})
    assert phone.step(1).success
    assert partner.calls()[0].query == "a=1%26b%3D2%23c&b=1"


@pytest.mark.parametrize(
    "endpoint",
    [
        # nobody but the operator chooses the host
        "https://${form0.host}/x",
        "https://api.${form0.host}/x",
        "http://127.0.0.1:${form0.port}/x",
        "${form0.scheme}://127.0.0.1/x",
        # other origins, other schemes, tricks
        "https://elsewhere.example/x",
        "//elsewhere.example/x",
        "ftp://127.0.0.1/x",
        "http://user@127.0.0.1/x",
        "http:\\\\127.0.0.1/x",
        "/a/../../b",
        "/a/%2e%2e/b",
    ],
)
def test_other_endpoints_are_not_published(partner: FakePartner, endpoint: str) -> None:
    with pytest.raises(DraftNotPublishable) as refusal:
        published(flow(form(0), server_step(1, triggerEndpoint=endpoint)))
    assert {problem.path for problem in refusal.value.problems} == {"steps[1].triggerEndpoint"}


# --- addresses ------------------------------------------------------------------------------------


def connection(partner: FakePartner, *, base_url: str = "", allow_private: bool = False) -> None:
    set_connection(name="bank", base_url=base_url or partner.url, allow_private=allow_private)


CALL = server_step(0, type="INFO", triggerEndpoint=TAKE, config={"connection": "bank"})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        # names and other ways to write it
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        # other private networks, link-local, metadata, multicast, nothing
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]",
        "224.0.0.1",
        "0.0.0.0",
    ],
)
def test_private_addresses_are_not_called(partner: FakePartner, host: str) -> None:
    port = partner.url.rpartition(":")[2]
    connection(partner, base_url=f"http://{host}:{port}")
    phone = Phone(published(flow(CALL)))
    assert told(phone.step(0)) == FORBIDDEN
    assert partner.calls() == []
    (run,) = phone.runs
    assert (run.status, run.error_code) == ("FAILED", "ENDPOINT_FORBIDDEN")
    assert [row.outcome for row in run.attempts.all()] == ["FORBIDDEN"]


def test_where_private_networks_are_allowed_they_are_called(partner: FakePartner) -> None:
    connection(partner, allow_private=True)
    assert Phone(published(flow(CALL))).step(0).success
    # the default connection is allowed by its setting
    assert Phone(published(flow(server_step(0, triggerEndpoint=TAKE)))).step(0).success


def test_a_permission_that_was_withdrawn_counts_at_the_next_call(partner: FakePartner) -> None:
    connection(partner, allow_private=True)
    phone = Phone(published(flow(CALL)))
    assert phone.step(0).success
    connection(partner, allow_private=False)
    assert told(phone.step(0)) == FORBIDDEN
    assert len(partner.calls()) == 1


# --- what changed after publishing ----------------------------------------------------------------


def test_a_connection_that_is_gone(partner: FakePartner, caplog: pytest.LogCaptureFixture) -> None:
    connection(partner, allow_private=True)
    phone = Phone(published(flow(CALL)))
    Connection.objects.all().delete()
    forget_connections()
    assert told(phone.step(0)) == FORBIDDEN
    assert partner.calls() == []
    assert "there is no connection bank" in caplog.text


def test_an_absolute_endpoint_does_not_follow_its_connection(partner: FakePartner) -> None:
    with FakePartner() as other:
        connection(other, allow_private=True)
        absolute = server_step(0, type="INFO", triggerEndpoint=f"{other.url}{TAKE}")
        relative = server_step(1, triggerEndpoint=TAKE, config={"connection": "bank"})
        phone = Phone(published(flow(absolute, relative)))
        assert phone.step(0).success
        connection(partner, allow_private=True)
        assert told(phone.step(0)) == FORBIDDEN
        # a relative one goes where the connection leads now
        assert phone.step(1).success
        assert [len(one.calls()) for one in (other, partner)] == [1, 1]


def test_a_header_name_that_became_the_credentials(partner: FakePartner) -> None:
    """What an operator's header says must not take the place of the secret."""
    connection(partner, allow_private=True)
    step = server_step(
        0,
        triggerEndpoint=TAKE,
        config={"connection": "bank", "headers": {"X-Api-Key": "${form0.key}"}},
    )
    phone = Phone(published(flow(step)))
    set_connection(
        name="bank",
        base_url=partner.url,
        allow_private=True,
        auth_kind=AuthKind.API_KEY,
        header_name="X-API-KEY",
        secret="s3cret",
    )
    assert phone.step(0).success
    assert partner.calls()[0].headers["x-api-key"] == "s3cret"


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(partner: FakePartner, status: int) -> None:
    with FakePartner() as other:
        partner.fault(TAKE, "redirect", status=status, location=f"{other.url}{TAKE}")
        phone = Phone(published(flow(server_step(0, triggerEndpoint=TAKE))))
        assert phone.step(0).error_code == "TRIGGER_BAD_RESPONSE"
        assert other.calls() == []
    assert len(partner.calls()) == 1


# --- the submission -------------------------------------------------------------------------------


def submitting(**final: Any) -> Phone:
    phone = Phone(published(flow(form(0), finalApi={"endpoint": "/api/payments/submit", **final})))
    phone.step(0, {"a": 1})
    return phone


def test_a_submission_to_a_forbidden_endpoint_is_not_made(partner: FakePartner) -> None:
    connection(partner, allow_private=True)
    phone = submitting(connection="bank")
    Connection.objects.all().delete()
    forget_connections()
    with nothing_happens(partner):
        assert told(phone.complete()) == FORBIDDEN
    assert phone.row.status == "IN_PROGRESS"


def test_a_submission_to_a_private_address_fails(partner: FakePartner) -> None:
    connection(partner)
    phone = submitting(connection="bank")
    answer = phone.complete()
    assert (answer.error_code, answer.error) == ("SUBMISSION_FAILED", FORBIDDEN["error"])
    assert partner.calls() == []
    # allowed at last, the same request goes out
    connection(partner, allow_private=True)
    assert phone.complete().success
    assert len(partner.effects("/api/payments/submit")) == 1
