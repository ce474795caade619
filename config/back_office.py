"""What the pages of the back office are made of: the base classes; `config.display` has the small parts.

A page knows no rule. It asks the engine, shows the answer with these parts, and hands a form back to
the engine; what the person may do is checked here before a page is shown and again before it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.views.generic import TemplateView
from unfold import admin as unfold

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
else:  # generic in Django's stubs only; Unfold has none
    _ModelAdmin = unfold.ModelAdmin
    _TabularInline = unfold.TabularInline


@dataclass(frozen=True, slots=True)
class PageLink:
    """A page of a row, as the row's other pages offer it."""

    title: str
    url: str
    icon: str


class BackOfficeAdmin(_ModelAdmin):
    """The base of every admin class here; `pages` are more pages of a row, by their names.

    `pages = {"publish": PublishPage}` serves `…/<id>/publish/` as `admin:app_model_publish`.
    """

    pages: ClassVar[dict[str, type[ObjectPage]]] = {}
    list_filter_submit = True
    list_fullwidth = True
    warn_unsaved_form = True

    @classmethod
    def register_page(cls, name: str, page: type[ObjectPage]) -> None:
        """A page of the row that a later app brings: definitions know nothing of who calls partners.

        For `admin` modules, which are loaded before the site's addresses are asked for.
        """
        cls.pages = {**cls.pages, name: page}

    def get_urls(self) -> list[URLPattern]:
        """The row's own pages first: `<path:object_id>/` would take their addresses."""
        served = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(page.as_view(model_admin=self)),
                name=self._url_name(name),
            )
            for name, page in self.pages.items()
        ]
        return [*served, *super().get_urls()]

    def page_url(self, name: str, object_id: Any) -> str:
        """The address of a row's page: one of `pages`, or `change`, `history`, `delete`."""
        return reverse(f"admin:{self._url_name(name)}", args=[quote(object_id)])

    def page_links(self, request: HttpRequest, row: Any) -> list[PageLink]:
        """The pages of the row that this person may open."""
        return [
            PageLink(page.title, self.page_url(name, row.pk), page.icon)
            for name, page in self.pages.items()
            if page.is_offered(row) and page.is_allowed(request, self, row)
        ]

    def render_change_form(  # noqa: PLR0917 - Django's signature
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        change: bool = False,  # noqa: FBT001, FBT002 - the same
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context["page_links"] = self.page_links(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _url_name(self, name: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{name}"


class _ReadOnly:
    """Rows change by what happens, and by nobody's hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False


class ReadOnlyAdmin(_ReadOnly, BackOfficeAdmin):
    """Records: looked at, and changed by actions only, each of which asks for its permission."""


class ReadOnlyInline(_ReadOnly, _TabularInline):
    """A row's records, as a table."""

    extra = 0
    show_change_link = True


class SitePage(TemplateView):
    """A page of the back office that is about no single row.

    Served through `admin_site.admin_view`, so whoever comes is signed in and staff.
    """

    title: str = ""
    icon: str = "article"
    permission: str = ""  # e.g. "executions.view_workflowexecution"
    template_name = "handrail/page.html"
    site: Any = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        require(request, self.permission)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        site = self.site or admin.site
        self.request.current_app = site.name
        context = {**site.each_context(self.request), "title": self.title}
        return super().get_context_data(**context, **kwargs)


class ObjectPage(TemplateView):
    """A page about one row, `self.object`: 404 without it, 403 without the right to see it.

    `permission` is asked for beside the right to view the row, for reading and writing alike.
    """

    title: str = ""
    icon: str = "article"
    permission: str = ""
    template_name = "handrail/object_page.html"
    model_admin: Any = None
    object: Any

    @classmethod
    def is_allowed(cls, request: HttpRequest, model_admin: Any, row: Any) -> bool:
        """Whether this person may open the page; rows' other pages offer it then."""
        allowed = not cls.permission or request.user.has_perm(cls.permission)
        return allowed and bool(model_admin.has_view_permission(request, row))

    @classmethod
    def is_offered(cls, row: Any) -> bool:  # noqa: ARG003 - for pages that ask
        """Whether the row's other pages link here; the address works for every row."""
        return True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        require(request, self.permission)
        if not self.model_admin.has_view_permission(request):
            raise PermissionDenied
        self.object = self.model_admin.get_object(request, unquote(kwargs["object_id"]))
        if self.object is None:
            raise Http404
        if not self.is_allowed(request, self.model_admin, self.object):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        site = self.model_admin.admin_site
        self.request.current_app = site.name
        context = {
            **site.each_context(self.request),
            "title": self.title,
            "subtitle": str(self.object),
            "opts": self.model_admin.opts,  # the breadcrumbs are made of these two
            "original": self.object,
            "object": self.object,
            "model_admin": self.model_admin,
            "page_links": self.model_admin.page_links(self.request, self.object),
            "change_url": self.model_admin.page_url("change", self.object.pk),
        }
        return super().get_context_data(**context, **kwargs)


def require(request: HttpRequest, *permissions: str) -> None:
    """Every one of the permissions. Raises PermissionDenied, which is answered with 403."""
    wanted: Sequence[str] = [name for name in permissions if name]
    if not request.user.has_perms(wanted):
        raise PermissionDenied
