"""Where mappings stand in a draft: what they may read there, and how they are put back."""

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows.documents import parse_document
from workflows.mapping_rows import RowProblem, mapping_of, rows_of
from workflows.mapping_targets import (
    API_MAPPING,
    COMPENSATION_MAPPING,
    REQUEST_MAPPING,
    MappingTarget,
    RowFindings,
)
from workflows.routing import ConnectionFacts
from workflows.tests.samples import form, seed_document, server, workflow

CONNECTIONS = {"default": ConnectionFacts("https://partner.example")}
UNDO: JsonObject = {"endpoint": "/undo", "requestMapping": {"id": "result.id"}, "method": "POST"}


def target(
    document: JsonObject, keys: tuple[str, ...] = API_MAPPING, step: int | None = None
) -> MappingTarget:
    return MappingTarget(parse_document(document), step, keys)


def checked(place: MappingTarget, mapping: JsonValue) -> RowFindings:
    return place.check(mapping_of(rows_of(mapping)).leaves, connections=CONNECTIONS)


def flow(**config: JsonValue) -> JsonObject:
    closed: JsonObject = {"properties": {"account": {"type": "string"}}}
    steps = (
        form(0, dataKey="transfer"),
        server(1, requestMapping={"a": "transfer.amount"}, compensation=UNDO),
        form(2, dataKey="later"),
    )
    return workflow(*steps) | {"config": {"initialContextSchema": closed, **config}}


def test_the_seed_mapping_is_found_and_reads_what_the_seed_makes() -> None:
    place = target(seed_document())
    assert (place.path, place.is_there) == ("config.apiMapping", True)
    assert checked(place, place.mapping).problems == ()
    assert {"transferDetails", "validation.token"} <= {one.path for one in place.paths()}
    assert "transferDetails" in place.sample()


def test_putting_the_same_mapping_back_changes_nothing() -> None:
    for keys, step in ((API_MAPPING, None), (REQUEST_MAPPING, 1), (COMPENSATION_MAPPING, 1)):
        place = target(flow(apiMapping={"x": "later.x"}, sensitive=["pin"]), keys, step)
        assert place.mapping is not None
        again = place.config_with(place.mapping)
        assert dump_compact(again) == dump_compact(place.config)


def test_taking_a_mapping_out_leaves_the_rest() -> None:
    place = target(flow(), COMPENSATION_MAPPING, 1)
    config = place.config_with(None)
    assert config is not None
    assert config["compensation"] == {"endpoint": "/undo", "method": "POST"}
    assert target(workflow(form(), apiMapping={"a": "b"})).config_with(None) is None


def test_steps_read_what_comes_before_them() -> None:
    place = target(flow(), REQUEST_MAPPING, 1)
    assert place.path == "steps[1].config.requestMapping"
    found = checked(place, {"a": "later.x", "b.c": "nobody", "b": {"c": "transfer.ok"}})
    assert found.problems == (
        RowProblem(1, "later is only there after a later step"),
        RowProblem(2, "no step and no initial context produces nobody"),
    )
    assert set(place.sample()) == {"userId", "account", "transfer", "input", "execution"}


def test_compensations_read_the_result_of_their_step() -> None:
    place = target(flow(), COMPENSATION_MAPPING, 1)
    assert place.path == "steps[1].config.compensation.requestMapping"
    assert checked(place, {"a": "result.id", "b": "step1.id"}) == RowFindings((), ())
    assert {"result", "step1", "input", "execution"} <= set(place.sample())


def test_names_that_may_come_from_the_initial_context_are_warnings() -> None:
    found = checked(target(workflow(form())), {"a": "account"})
    message = "account is no data key: taken to come from the initial context"
    assert found == RowFindings((), (RowProblem(1, message),))


def test_a_step_without_a_compensation_has_no_place_for_its_mapping() -> None:
    place = target(workflow(server()), COMPENSATION_MAPPING, 0)
    assert (place.is_there, place.mapping) == (False, None)
