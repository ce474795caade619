"""On whose behalf the code runs right now, as text: what histories record. Leaf.

The doors say it: the GraphQL view its caller, a middleware the member of staff who is signed in.
Where none of them stands in front it is the command line.
"""

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_LENGTH = 255

_acting: ContextVar[str | Callable[[], str]] = ContextVar("acting", default="")


@contextmanager
def acting_as(who: str | Callable[[], str]) -> Iterator[None]:
    """Within it `acting()` is this; a function is asked only when somebody wants to know."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


def acting() -> str:
    """A username, the subject of a token, or the command line and its user; never empty."""
    who = _acting.get()
    return (who() if callable(who) else who)[:MAX_LENGTH] or command_line()


def command_line() -> str:
    """Who runs this process."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError, ImportError):  # a user id without a name, as in containers
        return "command line"
