"""A request's body, read within its bounds. Leaf: imports nothing of ours."""

from django.http import HttpRequest, UnreadablePostError


class BodyRefused(Exception):
    """The body cannot be read: the HTTP status, and one sentence that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check_length(request: HttpRequest, *, max_bytes: int) -> None:
    """Raise BodyRefused when the body is announced as too large, or its length is no number."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal():
        raise BodyRefused(400, "Content-Length is not a number.")
    if len(length) > 18 or int(length) > max_bytes:
        raise _too_large(max_bytes)


def read_body(request: HttpRequest, *, max_bytes: int) -> bytes:
    """The whole body of a request that passed `check_length`. Raises BodyRefused.

    A server may give what came before the line was cut as if it were all; of a body without a length
    nobody can tell (`has_length`).
    """
    try:
        if has_length(request):
            body: bytes = request.body
            is_whole = len(body) == int(request.META.get("CONTENT_LENGTH") or 0)
        elif request.META.get("wsgi.input_terminated"):
            body, is_whole = request.META["wsgi.input"].read(max_bytes + 1), True
        else:
            raise BodyRefused(400, "Send the body with its length.")
    except (UnreadablePostError, OSError):
        is_whole = False
    if not is_whole:
        raise BodyRefused(400, "The body ended early.")
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def has_length(request: HttpRequest) -> bool:
    """Whether the body's length is known: a chunked one Django would not see, its server does."""
    return bool(
        request.META.get("CONTENT_LENGTH") or not request.META.get("HTTP_TRANSFER_ENCODING")
    )


def _too_large(max_bytes: int) -> BodyRefused:
    return BodyRefused(413, f"The body may have {max_bytes} bytes.")
