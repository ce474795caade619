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
    """The body of a request that passed `check_length`. Raises BodyRefused."""
    try:
        if _is_chunked(request):
            body: bytes = request.META["wsgi.input"].read(max_bytes + 1)
        else:
            body = request.body
    except (UnreadablePostError, OSError):
        raise BodyRefused(400, "The body ended early.") from None
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _is_chunked(request: HttpRequest) -> bool:
    """A body without a length: Django would see none, but the server knows where it ends."""
    return not request.META.get("CONTENT_LENGTH") and bool(
        request.META.get("HTTP_TRANSFER_ENCODING") and request.META.get("wsgi.input_terminated")
    )


def _too_large(max_bytes: int) -> BodyRefused:
    return BodyRefused(413, f"The body may have {max_bytes} bytes.")
