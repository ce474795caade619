"""The pages of what was published: a workflow's versions, one version, and documents in and out."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import prefetch_related_objects
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils.text import slugify

from config.back_office import BackOfficeAdmin, ObjectPage, SitePage, require
from config.jsonvalues import JsonObject, JsonValue
from workflows import publishing
from workflows.document_diff import diff_documents
from workflows.document_text import read_json, refuse, write_json
from workflows.documents import dump_document
from workflows.errors import DefinitionError, DefinitionNotFound, WorkflowError
from workflows.importing import ImportPlan, import_planned, plan_import
from workflows.models import Workflow, WorkflowVersion
from workflows.publish_pages import (
    EDIT,
    PUBLISH,
    GoldenRunPage,
    PublishPage,
    number,
    published_words,
)
from workflows.version_use import VersionUse, uses_of

PAGE: Final = 20
_OFFERED: Final = 100
_DRAFT: Final = "draft"
# What replacing a whole draft may come to.
REPLACE_DRAFT: Final = (
    EDIT,
    "workflows.add_workflowstep",
    "workflows.change_workflowstep",
    "workflows.delete_workflowstep",
)


class VersionsPage(ObjectPage):
    """A workflow's versions, the newest first, a page at a time."""

    title = "Versions"
    icon = "history"
    permission = "workflows.view_workflowversion"
    template_name = "workflows/versions.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        found = WorkflowVersion.objects.filter(workflow=self.object).order_by("-number")
        before = self.request.GET.get("before", "")
        if before.isascii() and before.isdecimal() and len(before) < 10:
            found = found.filter(number__lt=int(before))
        versions = list(found.defer("document", "step_ids")[: PAGE + 1])
        shown = versions[:PAGE]
        uses = uses_of([version.pk for version in shown])
        return super().get_context_data(
            versions=[(version, uses.get(version.pk, VersionUse())) for version in shown],
            older=shown[-1].number if len(versions) > PAGE else None,
            is_first_page=not before,
            history_url=self.model_admin.page_url("history", self.object.pk),
            **kwargs,
        )


class VersionPage(ObjectPage):
    """One version against another or the draft; restores it into the draft or publishes it again."""

    title = "Compare"
    icon = "difference"
    template_name = "workflows/versions_one.html"
    object: WorkflowVersion

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        version = self.object
        workflow = Workflow.objects.select_related("live_version").get(pk=version.workflow_id)
        prefetch_related_objects([workflow], "steps")
        numbers = WorkflowVersion.objects.filter(workflow=workflow).order_by("-number")
        offered = list(numbers.values_list("number", flat=True)[:_OFFERED])
        previous = str(version.number - 1) if version.number > 1 else _DRAFT
        against = self.request.GET.get("against") or previous
        before = self._snapshot(workflow, against)
        after = publishing.snapshot_of(version)
        user = self.request.user
        live = workflow.live_version
        return super().get_context_data(
            workflow=workflow,
            is_live=workflow.live_version_id == version.pk,
            use=uses_of([version.pk]).get(version.pk, VersionUse()),
            against=against,
            offered=[str(one) for one in offered if one != version.number],
            is_draft_equal=publishing.is_held_by(version, publishing.draft_snapshot(workflow)),
            changes=publishing.changes_between(before, after),
            difference=diff_documents(
                dump_document(before.document), dump_document(after.document)
            ),
            seen_version=live.number if live else 0,
            may_edit=user.has_perms(REPLACE_DRAFT),
            may_publish=user.has_perm(PUBLISH),
            max_note=publishing.MAX_NOTE,
            **kwargs,
        )

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Restore it into the draft, or publish it again."""
        act = {"restore": self._restore, "republish": self._republish}.get(
            request.POST.get("act", "")
        )
        if act is None:
            raise Http404
        here = self.model_admin.page_url("compare", self.object.pk)
        try:
            return HttpResponseRedirect(act(request))
        except WorkflowError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(here)

    def _restore(self, request: HttpRequest) -> str:
        require(request, *REPLACE_DRAFT)
        version = self.object
        revision = number(request, "seen_revision")
        workflow = publishing.restore_draft(version.workflow_id, version.number, revision=revision)
        said = f"Restored version {version.number} into the draft."
        owner = self._workflow_admin()
        owner.log_change(request, workflow, said)
        messages.success(request, said)
        return owner.page_url("publish", workflow.pk)

    def _republish(self, request: HttpRequest) -> str:
        require(request, PUBLISH)
        version = self.object
        done = publishing.republish_version(
            version.workflow_id,
            version.number,
            by=request.user.get_username(),
            note=request.POST.get("note", "").replace("\r\n", "\n").strip(),
            newest=number(request, "seen_version"),
        )
        said, level = published_words(done)
        owner = self._workflow_admin()
        if done.is_new:
            owner.log_change(request, version.workflow, said)
        messages.add_message(request, level, said)
        return owner.page_url("versions", version.workflow_id)

    def _workflow_admin(self) -> BackOfficeAdmin:
        owner: BackOfficeAdmin = self.model_admin.admin_site.get_model_admin(Workflow)
        return owner

    def _snapshot(self, workflow: Workflow, against: str) -> publishing.Snapshot:
        if against == _DRAFT:
            return publishing.draft_snapshot(workflow)
        if not (against.isascii() and against.isdecimal() and len(against) < 10):
            raise Http404
        try:
            version = publishing.find_version(workflow.pk, int(against))
        except DefinitionNotFound:
            raise Http404 from None
        return publishing.snapshot_of(version)


class DownloadDraft(ObjectPage):
    """The draft's document as a file, byte for byte what `export_workflow` writes."""

    title = "Download"
    icon = "download"

    def get(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:  # noqa: ARG002 - the view's signature
        row: Workflow = self.object
        return _file(dump_document(row.document()), f"{_slug(row.name)}.json")


class DownloadVersion(ObjectPage):
    """The version's document as a file, byte for byte what `export_workflow --version` writes."""

    title = "Download"
    icon = "download"

    def get(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:  # noqa: ARG002 - the view's signature
        version: WorkflowVersion = self.object
        return _file(version.document, f"{_slug(version.name)}-v{version.number}.json")


class ImportPage(SitePage):
    """A document in: its problems, then what it would change, then the button that does just that."""

    title = "Import a workflow"
    permission = EDIT
    template_name = "workflows/versions_import.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        require(request, "workflows.add_workflow", *REPLACE_DRAFT)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        opts = Workflow._meta
        return super().get_context_data(opts=opts, max_bytes=settings.MAX_BODY_BYTES, **kwargs)

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Look at the document, or import what was looked at."""
        as_new = "as_new" in request.POST
        entered: dict[str, Any] = {"as_new": as_new, "text": request.POST.get("document", "")}
        try:
            raw = _sent(request)
            entered["text"] = raw.decode(errors="replace")
            data = read_json(raw)
            if request.POST.get("act") == "import":
                return self._import(request, data, as_new=as_new)
            plan = plan_import(data, as_new=as_new)
        except DefinitionError as error:
            return self._show(problems=error.problems, **entered)
        except WorkflowError as error:  # what was looked at is not so any more
            return self._show(refusal=error.message, **entered, **_of(_again(data, as_new=as_new)))
        return self._show(**entered, **_of(plan))

    def _import(self, request: HttpRequest, data: JsonValue, *, as_new: bool) -> HttpResponse:
        row, is_new = import_planned(data, as_new=as_new, seen=request.POST.get("seen", ""))
        said = f"Imported {row.name}." if is_new else f"Changed the draft of {row.name}."
        owner = admin.site.get_model_admin(Workflow)
        (owner.log_addition if is_new else owner.log_change)(request, row, said)
        messages.success(request, said)
        return HttpResponseRedirect(owner.page_url("publish", row.pk))  # type: ignore[attr-defined]  # ours

    def _show(self, **context: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(**context))


WORKFLOW_PAGES: Final[dict[str, type[ObjectPage]]] = {
    "publish": PublishPage,
    "golden": GoldenRunPage,
    "versions": VersionsPage,
    "download": DownloadDraft,
}
VERSION_PAGES: Final[dict[str, type[ObjectPage]]] = {
    "compare": VersionPage,
    "download": DownloadVersion,
}


class ImportsDocuments(BackOfficeAdmin):
    """Serves the import page beside the list, as `admin:workflows_workflow_import`."""

    def get_urls(self) -> list[URLPattern]:
        """The page first: `<path:object_id>/` would take its address."""
        page = self.admin_site.admin_view(ImportPage.as_view(site=self.admin_site))
        return [path("import/", page, name=self._url_name("import")), *super().get_urls()]


def _sent(request: HttpRequest) -> bytes:
    """The file, or else the text. Raises DocumentInvalid for what is too large, and for nothing."""
    limit: int = settings.MAX_BODY_BYTES
    file = request.FILES.get("file")
    if file is not None:
        raw: bytes = file.read(limit + 1)
    else:
        raw = request.POST.get("document", "").encode(errors="surrogatepass")
    if len(raw) > limit:
        refuse(f"it has more than {limit} bytes")
    if not raw.strip():
        refuse("there is no document: choose a file or paste the text")
    return raw


def _again(data: JsonValue, *, as_new: bool) -> ImportPlan | None:
    try:
        return plan_import(data, as_new=as_new)
    except DefinitionError:
        return None


def _of(plan: ImportPlan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    difference = None
    if plan.target is not None:
        before = dump_document(plan.target.document())
        difference = diff_documents(before, dump_document(plan.document))
    return {"plan": plan, "difference": difference}


def _file(document: JsonObject, name: str) -> HttpResponse:
    return HttpResponse(
        write_json(document).encode(),
        content_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _slug(name: str) -> str:
    return slugify(name)[:80] or "workflow"
