"""`issue_token`: a bearer token to try the API with."""

import argparse
import re
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from config.commands import HouseCommand
from config.identity import issue_token

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TTL = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749: printable ASCII without space, quote, backslash
_MAX_TTL_SECONDS = 365 * 86_400


class Command(HouseCommand):
    help = "Issues a development token for USER_ID, signed with JWT_SECRET; prints only the token."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_id", metavar="USER_ID", help="becomes the token's sub")
        parser.add_argument(
            "--scope",
            action="append",
            type=_scope,
            default=[],
            help="a scope such as workflows:admin; may be repeated",
        )
        parser.add_argument(
            "--ttl", type=_ttl, default="12h", help="seconds, or 15m, 12h, 30d (default 12h)"
        )
        parser.add_argument("--json", action="store_true", help="print an object for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        now = timezone.now()
        user_id, scopes, ttl = options["user_id"], options["scope"], options["ttl"]
        try:
            token = issue_token(user_id, scopes=scopes, ttl_seconds=ttl, now=now)
        except ValueError as error:
            raise CommandError(f"No token: {error}.") from None
        if options["json"]:
            self.tell(
                {"token": token, "userId": user_id, "scopes": scopes, "expiresInSeconds": ttl}
            )
        else:
            self.stdout.write(token)


def _ttl(text: str) -> int:
    match = _TTL.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_TTL_SECONDS:
        raise argparse.ArgumentTypeError("use seconds or 15m, 12h, 30d; at most 365d")
    return seconds


def _scope(text: str) -> str:
    if not _SCOPE.fullmatch(text):
        raise argparse.ArgumentTypeError("a scope is one word of printable ASCII")
    return text
