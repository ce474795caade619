"""The bank's paths under `/api/`: what each one does, and whether it has an effect.

A path with an effect wants an Idempotency-Key and does its work once per key; the others only
look.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from config.jsonvalues import JsonObject

from .bank import Bank, Fields, Refused
from .ledger import Ledger
from .messages import Request


@dataclass(frozen=True, slots=True)
class Books:
    """What the work of a route may read and change."""

    bank: Bank
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Route:
    """One path for some methods; `{…}` stands for one segment, `*` at the end for all the rest."""

    methods: tuple[str, ...]
    path: str
    summary: str
    has_effect: bool
    work: Callable[[Books, Request, Fields], JsonObject]
    status: int = 200
    # What is answered at once when the result follows by callback; None: it never does by itself.
    acknowledge: Callable[[JsonObject], JsonObject] | None = None

    @property
    def is_fixed(self) -> bool:
        return "{" not in self.path and "*" not in self.path

    @property
    def pattern(self) -> re.Pattern[str]:
        text = re.sub(r"\\\{[a-zA-Z]+\\\}", "[^/]+", re.escape(self.path))
        return re.compile(text.replace(r"\*", ".+"))


def find_route(method: str, path: str) -> Route | None:
    """The route for a call, or None; `allowed_methods` tells a wrong method from a wrong path."""
    fixed = _FIXED.get((method, path))
    if fixed is not None:
        return fixed
    for pattern, route in _PATTERNS:
        if method in route.methods and pattern.fullmatch(path):
            return route
    return None


def allowed_methods(path: str) -> list[str]:
    return [method for route in ROUTES if route.pattern.fullmatch(path) for method in route.methods]


def _validate(books: Books, _request: Request, fields: Fields) -> JsonObject:
    return books.bank.validate_account(fields)


def _account(books: Books, request: Request, _fields: Fields) -> JsonObject:
    return books.bank.account(request.segments[2])


def _transfer(books: Books, request: Request, fields: Fields) -> JsonObject:
    return books.bank.transfer(fields, request.key)


def _find_transfer(books: Books, request: Request, _fields: Fields) -> JsonObject:
    return books.bank.find_transfer(request.segments[2])


def _reverse(books: Books, request: Request, _fields: Fields) -> JsonObject:
    return books.bank.reverse(request.segments[2])


def _reverse_named(books: Books, _request: Request, fields: Fields) -> JsonObject:
    return books.bank.reverse_named(fields)


def _open_account(books: Books, request: Request, _fields: Fields) -> JsonObject:
    return books.bank.open_account(request.key)


def _check_identity(books: Books, request: Request, fields: Fields) -> JsonObject:
    return books.bank.check_identity(fields, request.key)


def _acknowledge_check(result: JsonObject) -> JsonObject:
    return {"checkId": result["checkId"], "status": "PENDING"}


def _cancel_check(books: Books, _request: Request, fields: Fields) -> JsonObject:
    return books.bank.cancel_check(fields)


def _submit(books: Books, request: Request, fields: Fields) -> JsonObject:
    return books.bank.submit(fields, request.key)


def _bill(books: Books, request: Request, _fields: Fields) -> JsonObject:
    return books.bank.bill(request.segments[2], request.segments[3])


def _pay_bill(books: Books, request: Request, fields: Fields) -> JsonObject:
    return books.bank.pay_bill(fields, request.key)


def _effect(books: Books, request: Request, _fields: Fields) -> JsonObject:
    effect = books.ledger.find_effect(request.segments[2])
    if effect is None:
        raise Refused("Nothing was done under this key.", 404)
    result = effect.result
    return result if isinstance(result, dict) else {"answer": result}


def _accept(_books: Books, _request: Request, _fields: Fields) -> JsonObject:
    return {"accepted": True}


def _echo(_books: Books, _request: Request, fields: Fields) -> JsonObject:
    return {"received": fields.body}


_Work: TypeAlias = Callable[[Books, Request, Fields], JsonObject]


def _look(path: str, summary: str, work: _Work, methods: tuple[str, ...] = ("GET",)) -> Route:
    return Route(methods, path, summary, has_effect=False, work=work)


def _act(
    path: str,
    summary: str,
    work: _Work,
    methods: tuple[str, ...] = ("POST",),
    *,
    status: int = 200,
    acknowledge: Callable[[JsonObject], JsonObject] | None = None,
) -> Route:
    return Route(
        methods,
        path,
        summary,
        has_effect=True,
        work=work,
        status=status,
        acknowledge=acknowledge,
    )


_VALIDATE = ("GET", "POST")
_CHANGE = ("POST", "PUT", "PATCH", "DELETE")

ROUTES = (
    _look("/api/accounts/validate", "may recipientAccount be sent money?", _validate, _VALIDATE),
    _look("/api/accounts/{number}", "an account and its balance", _account),
    _act("/api/accounts", "opens an account", _open_account, status=201),
    _act(
        "/api/kyc/checks",
        "checks a person, result by callback",
        _check_identity,
        acknowledge=_acknowledge_check,
    ),
    _act("/api/kyc/checks/cancel", "undoes a check", _cancel_check),
    _act("/api/transactions/transfer", "moves money", _transfer),
    _look("/api/transactions/{id}", "a transfer", _find_transfer),
    _act("/api/transactions/{id}/reverse", "sends a transfer's money back", _reverse),
    _act("/api/transactions/reverse", "the same for the transferId in the body", _reverse_named),
    _act("/api/payments/submit", "takes a final payload, for finalApi", _submit),
    _look("/api/bills/{billerId}/{billNumber}", "a bill and what is left to pay", _bill),
    _act("/api/bills/pay", "pays a bill, whole or in part", _pay_bill),
    _look("/api/effects/{key}", "what was done under a key, for status", _effect),
    _act("/api/anything/*", "takes any JSON object, one effect per key", _accept, _CHANGE),
    _look("/api/anything/*", "shows the parameters it got", _echo),
)
_FIXED = {
    (method, route.path): route for route in ROUTES if route.is_fixed for method in route.methods
}
_PATTERNS = [(route.pattern, route) for route in ROUTES if not route.is_fixed]
