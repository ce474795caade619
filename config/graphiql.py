"""The GraphiQL page, from our own static files under a policy that lets it load nothing else."""

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_SCRIPTS = ("react.production.min.js", "react-dom.production.min.js", "graphiql.min.js", "start.js")
_STYLES = ("graphiql.min.css", "page.css")
_DEFAULT_QUERY = """\
# Staff are known by their session. To act as an app's
# user: manage.py issue_token USER_ID, and in "Headers"
#   {"Authorization": "Bearer <token>"}

query {
  workflows { id name }
}
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>GraphiQL - Handrail</title>
<link rel="icon" href="data:,">
{styles}
</head>
<body>
<div id="graphiql" data-csrf-token="{token}" data-default-query="{query}"></div>
{scripts}
</body>
</html>
"""


def page(request: HttpRequest) -> HttpResponse:
    """The page; it sends operations to its own address, with the CSRF token of this browser."""
    html = format_html(
        _PAGE,
        styles=format_html_join(
            "\n", '<link rel="stylesheet" href="{}">', ((_address(name),) for name in _STYLES)
        ),
        token=get_token(request),
        query=_DEFAULT_QUERY,
        scripts=format_html_join(
            "\n", '<script src="{}"></script>', ((_address(name),) for name in _SCRIPTS)
        ),
    )
    return HttpResponse(
        html, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    )


def _address(name: str) -> str:
    return static(f"graphiql/{name}")
