"""A connection's state: how its breaker stands, whether the partner answers, who calls it.

Who tested it and who closed its breaker stands there, too: its history has edits only.
"""

from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from config.back_office import ObjectPage, require
from config.logs import get_logger
from executions.connection_trials import ConnectionTrial, try_connection
from executions.surroundings import get_surroundings
from workflows.connection_states import connection_state
from workflows.connection_users import uses_of
from workflows.models import Connection

_log = get_logger("handrail.connections")

PERMISSION: Final = "workflows.test_connection"
SHOWN_DEEDS: Final = 10

_TESTED, _RESET = "Tested: ", "Breaker reset"


class ConnectionStatePage(ObjectPage):
    """Everybody who sees the connection sees its state; testing and resetting is a right."""

    title = "State and use"
    icon = "monitor_heart"
    template_name = "executions/connection.html"
    object: Connection

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            state=connection_state(self.object.name),
            uses=uses_of(self.object),
            deeds=_deeds(self.object),
            may_test=self.request.user.has_perm(PERMISSION),
            **kwargs,
        )

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Send the test, or close the breaker; recorded with who."""
        require(request, PERMISSION)
        match request.POST.get("do"):
            case "test":
                return self._tested(request)
            case "reset":
                return self._reset(request)
        raise Http404

    def _tested(self, request: HttpRequest) -> HttpResponse:
        trial = try_connection(self.object.name, now=timezone.now())
        self._record(request, f"{_TESTED}{_in_words(trial)}")
        return self.render_to_response(self.get_context_data(trial=trial))

    def _reset(self, request: HttpRequest) -> HttpResponse:
        get_surroundings().breakers.reset(self.object.name)
        self._record(request, _RESET)
        messages.success(request, "The breaker is closed: calls go out again.")
        return redirect(self.model_admin.page_url("state", self.object.pk))

    def _record(self, request: HttpRequest, what: str) -> None:
        self.model_admin.log_change(request, self.object, what)
        by = request.user.get_username()
        _log.info("connection by hand", connection=self.object.name, what=what, by=by)


def _deeds(connection: Connection) -> list[LogEntry]:
    """What was done to it by hand lately, the last first. One query."""
    theirs = LogEntry.objects.filter(
        Q(change_message__startswith=_TESTED) | Q(change_message=_RESET),
        content_type=ContentType.objects.get_for_model(Connection),
        object_id=str(connection.pk),
    )
    return list(theirs.select_related("user").order_by("-action_time")[:SHOWN_DEEDS])


def _in_words(trial: ConnectionTrial) -> str:
    return f"answered {trial.status}" if trial.status is not None else trial.refusal or "answered"
