"""Whether a flow can be walked, from how its connections stand."""

import pytest

from config.jsonvalues import JsonObject
from workflows.availability import availability_of
from workflows.connection_states import ConnectionState
from workflows.connections import set_connection
from workflows.enums import WorkflowAvailability
from workflows.tests.samples import compiled, form, server

pytestmark = pytest.mark.django_db

OK = WorkflowAvailability.OK
DEGRADED = WorkflowAvailability.DEGRADED
BLOCKED = WorkflowAvailability.BLOCKED

FINAL: JsonObject = {"endpoint": "/submit", "connection": "bank"}
AT_BANK = server(connection="bank")
AT_SHOP = server(connection="shop")


@pytest.fixture(autouse=True)
def _connections() -> None:
    set_connection(name="bank", base_url="https://bank.example")
    set_connection(name="shop", base_url="https://shop.example")


@pytest.mark.parametrize(
    ("steps", "final", "states", "availability"),
    [
        # nobody is called
        ([form()], None, {"bank": BLOCKED}, OK),
        ([AT_BANK], None, {}, OK),
        # another's partner is nothing to us
        ([AT_BANK], FINAL, {"shop": BLOCKED, "default": BLOCKED}, OK),
        ([AT_BANK], None, {"bank": DEGRADED}, DEGRADED),
        ([AT_BANK], None, {"bank": BLOCKED}, BLOCKED),
        ([form()], FINAL, {"bank": DEGRADED}, DEGRADED),
        ([form()], FINAL, {"bank": BLOCKED}, BLOCKED),
        # a run may do without: the app may go past it, or its condition leaves it out
        ([server(connection="bank", optional=True)], None, {"bank": BLOCKED}, DEGRADED),
        ([server(connection="bank", when="form")], None, {"bank": BLOCKED}, DEGRADED),
        (
            [server(connection="bank", columns={"type": "INFO"})],
            None,
            {"bank": BLOCKED},
            DEGRADED,
        ),
        ([server(connection="bank", optional=True)], FINAL, {"bank": BLOCKED}, BLOCKED),
        # the worst counts, wherever it stands
        (
            [server(connection="shop", optional=True), server(1, connection="bank")],
            None,
            {"shop": BLOCKED, "bank": BLOCKED},
            BLOCKED,
        ),
        ([AT_SHOP, server(1, connection="bank")], None, {"shop": DEGRADED}, DEGRADED),
        # without a name: the default connection, or the one of the endpoint's origin
        ([server()], None, {"default": BLOCKED}, BLOCKED),
        (
            [server(columns={"triggerEndpoint": "https://shop.example/pay/${form.id}"})],
            None,
            {"shop": BLOCKED},
            BLOCKED,
        ),
        # a connection that was removed after publishing
        ([server(connection="gone")], None, {}, BLOCKED),
        ([server(connection="gone", optional=True)], None, {}, DEGRADED),
    ],
)
def test_availability(
    steps: list[JsonObject],
    final: JsonObject | None,
    states: dict[str, WorkflowAvailability],
    availability: WorkflowAvailability,
) -> None:
    workflow = compiled(*steps, **({"finalApi": final} if final else {}))

    def state(connection: str) -> ConnectionState:
        return ConnectionState(states.get(connection, OK))

    assert availability_of(workflow, state=state) is availability
