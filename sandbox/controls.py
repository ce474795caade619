"""The sandbox's own paths, for tests and developers: ledger, effects, callbacks, faults, reset."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from config.jsonvalues import JsonObject, JsonValue

from .callback_sender import CallbackSender
from .callbacks import CallbackFault, parse_callback_fault
from .faults import Documented, Fault, FaultInvalid, FaultQueue, parse_fault
from .ledger import Ledger
from .messages import Answer, Request, json_answer, message_answer, parse_json_object

PREFIX = "/_sandbox/"
_Queued = TypeVar("_Queued", bound=Documented)


def answer_control(
    request: Request,
    *,
    ledger: Ledger,
    faults: FaultQueue[Fault],
    callbacks: CallbackSender,
    callback_faults: FaultQueue[CallbackFault],
    reset: Callable[[], None],
) -> Answer:
    """Answer a call to the sandbox itself; what it cannot read is a 400 that says why."""
    if (request.method, request.path) == ("POST", "/_sandbox/reset"):
        reset()
        return json_answer({"reset": True})
    try:
        if request.path == "/_sandbox/faults":
            return _answer_faults(request, faults, parse_fault)
        if request.path == "/_sandbox/callback-faults":
            return _answer_faults(request, callback_faults, parse_callback_fault)
        return _answer_look(request, ledger, callbacks)
    except ValueError as error:
        return message_answer(400, str(error))


def _answer_look(request: Request, ledger: Ledger, callbacks: CallbackSender) -> Answer:
    show = _SHOWN.get(request.path)
    if request.method == "GET" and request.path == "/_sandbox/callbacks":
        return json_answer(_show_callbacks(callbacks, request))
    if request.method == "GET" and show is not None:
        return json_answer(show(ledger, request))
    return message_answer(404, f"The sandbox has no {request.method} {request.path}.")


def _answer_faults(
    request: Request, faults: FaultQueue[_Queued], parse: Callable[[JsonValue], _Queued]
) -> Answer:
    if request.method == "POST":
        _add_fault(parse_json_object(request.body), faults, parse)
    elif request.method == "DELETE":
        faults.clear()
    elif request.method != "GET":
        return message_answer(405, "Faults take GET, POST and DELETE.")
    return json_answer({"faults": [*faults.documents()]}, 201 if request.method == "POST" else 200)


def _add_fault(
    data: JsonObject, faults: FaultQueue[_Queued], parse: Callable[[JsonValue], _Queued]
) -> None:
    unknown = sorted(set(data) - {"path", "times", "fault"})
    if unknown:
        raise FaultInvalid(f"{unknown[0]}: unknown; there are path, times, fault")
    path, times = data.get("path"), data.get("times", 1)
    if not isinstance(path, str):
        raise FaultInvalid("path: must be a text")
    if isinstance(times, bool) or not isinstance(times, int | None):
        raise FaultInvalid("times: must be a whole number, or null for always")
    faults.add(path, parse(data.get("fault")), times=times)


def _show_health(_ledger: Ledger, _request: Request) -> JsonObject:
    return {"status": "ok"}


def _show_ledger(ledger: Ledger, request: Request) -> JsonObject:
    calls = [call.document() for call in ledger.calls()]
    per_key = Counter(str(call["key"]) for call in calls if call["key"])
    return {
        "calls": [*_matching(calls, request)],
        "callsPerKey": dict(per_key),
        **_show_effects(ledger, request),
    }


def _show_effects(ledger: Ledger, request: Request) -> JsonObject:
    return {"effects": [*_matching([effect.document() for effect in ledger.effects()], request)]}


def _show_callbacks(callbacks: CallbackSender, request: Request) -> JsonObject:
    documents = [delivery.document() for delivery in callbacks.deliveries()]
    return {"callbacks": [*_matching(documents, request)]}


def _matching(documents: list[JsonObject], request: Request) -> list[JsonObject]:
    wanted = {name: value for name, value in request.parameters.items() if name in ("key", "path")}
    return [
        document
        for document in documents
        if all(document[name] == value for name, value in wanted.items())
    ]


_SHOWN: Mapping[str, Callable[[Ledger, Request], JsonObject]] = {
    "/_sandbox/health": _show_health,
    "/_sandbox/ledger": _show_ledger,
    "/_sandbox/effects": _show_effects,
}
