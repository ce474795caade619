"""The pages that no picture shows: searches, filters, last pages, and forms that ask back.

For who measures them: together with those of `pages.py` they are every page there is.
"""

import json
import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.utils import timezone

from browser.pages import BackOfficePage, address_of, pages_of
from browser.world import World
from config import rights
from config.ids import first_id_at
from executions.admin import COUNTED_ROWS
from executions.models import StepAttempt, StepRun, WorkflowExecution
from executions.operating import MAX_BULK
from workflows.documents import dump_document

SUPERUSER = "superuser"
LIST = "executions_workflowexecution_changelist"


def every_page(world: World) -> list[BackOfficePage]:
    """Those with a picture first."""
    found = {one.name: one for one in pages_of(world)}
    known = {one.url_name for one in found.values()}
    for more in (_of_models(known), _overviews(world), _executions(), _runs(), _asked(world)):
        found |= {one.name: one for one in more}
    return list(found.values())


def who_sees_most(page: BackOfficePage) -> str:
    """The group, or SUPERUSER, whose people see most on the page, with their rights asked for."""
    if page.url_name.startswith(("auth_", "app_")):
        return SUPERUSER
    return rights.PUBLISHER if page.url_name.startswith("workflows_") else rights.OPERATOR


def _of_models(known: set[str]) -> Iterator[BackOfficePage]:
    """The pages that each model has, and those of the site, which have no picture."""
    for app in ("auth", "executions", "workflows"):
        yield BackOfficePage(f"app {app}", address_of("app_list", (app,), {}))
    yield BackOfficePage("password changed", address_of("password_change_done", (), {}))
    for model, model_admin in admin.site._registry.items():  # noqa: SLF001 - Django has no public list of them
        base = f"{model._meta.app_label}_{model._meta.model_name}"
        newest = model._default_manager.order_by("-pk").first()  # noqa: SLF001 - Django's documented name
        row = () if newest is None else (newest.pk,)
        views: dict[str, tuple[Any, ...]] = {"changelist": (), "add": ()}
        more = ("password_change",) if model._meta.label == "auth.User" else ()
        own = getattr(model_admin, "pages", ())
        views |= dict.fromkeys((*own, "change", "history", "delete", *more), row) if row else {}
        for view, args in views.items():
            name = f"{base}_{view}"
            if name not in known:
                yield BackOfficePage(name, address_of(name, args, {}))


def _overviews(world: World) -> Iterator[BackOfficePage]:
    for days in ("7", "30", "90"):
        yield BackOfficePage(f"overview of {days} days", address_of("index", (), {"days": days}))
    flow = {"days": "90", "workflow": str(world.transfer.pk)}
    yield BackOfficePage("overview of a workflow", address_of("index", (), flow))
    of_version = {**flow, "version": str(world.version.number)}
    yield BackOfficePage("overview of a version", address_of("index", (), of_version))


def _executions() -> Iterator[BackOfficePage]:
    """The list: each filter, what they find together, and the oldest page."""
    oldest = WorkflowExecution.objects.earliest("id")
    month_ago = timezone.now() - timedelta(days=30)
    workflow, version = str(oldest.workflow_id), str(oldest.version_id)
    searches: dict[str, dict[str, str]] = {
        "by id": {"q": str(oldest.pk)},
        "by session": {"q": oldest.session_id},
        "by person": {"q": oldest.user_id},
        "by nobody": {"q": "nobody of this name"},
        "failed": {"status": "FAILED"},
        "live": {"status": "IN_PROGRESS"},
        "pending": {"status": "PENDING"},
        "by code": {"code": "SUBMISSION_FAILED"},
        "by a code that is nowhere": {"code": "INPUT_INVALID"},
        "of a workflow": {"workflow": workflow},
        "of a version": {"workflow": workflow, "version": version},
        "of a version, failed": {"workflow": workflow, "version": version, "status": "FAILED"},
        "of a week": {
            "since": f"{month_ago - timedelta(days=7):%Y-%m-%d}",
            "until": f"{month_ago:%Y-%m-%d}",
        },
        "of a week, of a workflow, failed": {
            "workflow": workflow,
            "status": "FAILED",
            "since": f"{month_ago - timedelta(days=7):%Y-%m-%d}",
            "until": f"{month_ago:%Y-%m-%d}",
        },
        "abandoned in a day": {"show": "abandoned-24"},
        "abandoned in a week": {"show": "abandoned-168"},
        "abandoned in a week, of a workflow": {"show": "abandoned-168", "workflow": workflow},
        "the last page": {"newer": str(oldest.pk)},
        "failed, the last page": {"status": "FAILED", "newer": str(oldest.pk)},
        "behind a month": {"older": str(first_id_at(month_ago))},
    }
    for name, query in searches.items():
        yield BackOfficePage(f"executions {name}", address_of(LIST, (), query))
    yield BackOfficePage(
        "execution, the oldest",
        address_of("executions_workflowexecution_change", (oldest.pk,), {}),
    )


def _runs() -> Iterator[BackOfficePage]:
    """The lists of the largest tables: filtered, sorted, searched, and their last pages."""
    run = StepRun.objects.earliest("id")
    for model, searches in {
        "steprun": {
            "filtered": {"status__exact": "PARKED"},
            "of a kind": {"kind__exact": "COMPENSATION"},
            "sorted": {"o": "-6.2"},
            "by id": {"q": str(run.pk)},
            "of an execution": {"q": str(run.execution_id)},
            "by nothing known": {"q": "no id"},
            "the last page": {"p": _last_page(StepRun)},
            "with counts": {"_facets": "True"},
        },
        "stepattempt": {
            "filtered": {"outcome__exact": "TIMED_OUT"},
            "sorted": {"o": "-6.2"},
            "of a run": {"q": str(run.pk)},
            "the last page": {"p": _last_page(StepAttempt)},
        },
        "operatoraction": {
            "of an execution": {"q": str(run.execution_id)},
            "of somebody": {"q": "mara"},
            "filtered": {"action__exact": "CANCEL"},
        },
        "triggertrial": {"of somebody": {"q": "mara"}},
    }.items():
        for name, query in searches.items():
            yield BackOfficePage(
                f"{model} {name}", address_of(f"executions_{model}_changelist", (), query)
            )


def _last_page(model: type[Model]) -> str:
    """Of what is listed without a search."""
    model_admin = admin.site.get_model_admin(model)
    listed = model._default_manager.all()[:COUNTED_ROWS].count()  # noqa: SLF001 - the same
    return str(max(1, math.ceil(listed / model_admin.list_per_page)))


def _asked(world: World) -> Iterator[BackOfficePage]:
    """What forms are answered with that change nothing."""
    bulk = address_of("executions_workflowexecution_bulk", (), {})
    for kind, rows in {
        "REPLAY_SUBMISSION": WorkflowExecution.objects.filter(error_code="SUBMISSION_FAILED"),
        "REPLAY_STEP": WorkflowExecution.objects.live(),
        "REPLAY_COMPENSATION": WorkflowExecution.objects.filter(status="CANCELLED"),
        "CANCEL": WorkflowExecution.objects.live(),
    }.items():
        ids = [str(pk) for pk in rows.newest_first().values_list("pk", flat=True)[:MAX_BULK]]
        yield BackOfficePage(f"bulk {kind}", bulk, posted={"action": kind, "ids": ids})
    step = world.transfer.steps.earliest("order")
    look = address_of("workflows_workflowstep_look", (step.pk,), {})
    yield BackOfficePage("look of a step", look, posted={"label": step.label, "type": step.type})
    document = json.dumps(dump_document(world.transfer.document()))
    yield BackOfficePage(
        "import, looked at",
        address_of("workflows_workflow_import", (), {}),
        posted={"act": "look", "document": document},
    )
    mapping = address_of("workflows_workflow_mapping", (world.transfer.pk,), {})
    yield BackOfficePage("mapping, looked at", mapping, posted={"do": "show", "seen_revision": "1"})
