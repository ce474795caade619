"""The rules of the bank that the sandbox partner plays: accounts, transfers, bills.

Money is a Decimal with at most two places and leaves as text ("84.50"), but an amount in an
answer looks as it looked in the request. The bank reads a flat body as well as Handrail's default
one `{input, context, execution}`. It keeps no locks and knows no HTTP: `Ledger` calls it one at a
time.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from config.jsonvalues import JsonObject, JsonValue

DEFAULT_SENDER = "1234567890"
TRANSFER_LIMIT = Decimal(1_000_000)

_ACCOUNT_PATTERN = re.compile(r"[A-Za-z0-9-]{4,34}")
_ACCOUNT_NAMES = {
    "9876543210": "John Doe",
    "1111111111": "Jane Roe",
    DEFAULT_SENDER: "Alice Example",
}
_ACCOUNT_TOKENS = {
    "9876543210": "abc123xyz"
}  # so that Example 2 of the product's description comes out
_UNKNOWN_ACCOUNT = "No account has this number."
_CLOSED_ACCOUNT = "This account is closed."
_BAD_ACCOUNT = "The account number is not valid."
_REFUSED_ACCOUNTS = {
    "0000000000": _UNKNOWN_ACCOUNT,
    "0000000001": _CLOSED_ACCOUNT,
    "0000000002": _CLOSED_ACCOUNT,
}
_ACCOUNT_REFUSED_BY_STATUS = "0000000002"
_ODD_VALIDATIONS: dict[str, JsonObject] = {
    "0000000003": {"valid": "false", "message": "This answer says no with a string."},
    "0000000004": {"valid": None, "message": "This answer says neither yes nor no."},
    "0000000005": {"token": "nov000val"},
}
_OPENING_BALANCES = {DEFAULT_SENDER: Decimal(10_000_000_000), "1000000001": Decimal(100)}
_OPENING_BALANCE = Decimal(1_000_000)

_BILLERS = {"city-power": "City Power", "aqua-water": "Aqua Water", "metro-net": "Metro Net"}
_UNKNOWN_BILL = "0000000000"
_UNKNOWN_DOCUMENT = "0000000000"


class Refused(Exception):
    """The bank's "no", with the status to answer."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Fields:
    """A request body of either shape: the first place that has a name wins.

    The order is: the body, its `input`, its `result`, its `context`, then the objects in the context
    by key. `result` is what a step got, in the body that undoes it.
    """

    body: JsonObject

    def find(self, *names: str) -> JsonValue:
        for place in self._places():
            for name in names:
                if place.get(name) is not None:
                    return place[name]
        return None

    def text(self, *names: str) -> str:
        """The value as text, "" when it is absent; a number counts as the text of its digits."""
        value = self.find(*names)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return ""
        return str(value)

    def _places(self) -> Iterator[JsonObject]:
        yield self.body
        for name in ("input", "result", "context"):
            place = self.body.get(name)
            if isinstance(place, dict):
                yield place
        context = self.body.get("context")
        if isinstance(context, dict):
            yield from (value for _, value in sorted(context.items()) if isinstance(value, dict))


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill as it was issued; what is left to pay, the bank knows."""

    due: Decimal
    late_fee: Decimal = Decimal(0)
    due_date: str = "2099-01-31"

    @property
    def total(self) -> Decimal:
        return self.due + self.late_fee


_KNOWN_BILLS = {
    "2024000117": Bill(Decimal("84.50")),
    "2024000042": Bill(Decimal("120.00"), late_fee=Decimal("6.00"), due_date="2024-12-31"),
    "2024000099": Bill(Decimal("0.00")),
}


class Bank:
    """Balances, transfers and bills since the last reset."""

    def __init__(self) -> None:
        self._balances = dict(_OPENING_BALANCES)
        self._transfers: dict[str, JsonObject] = {}
        self._paid: dict[tuple[str, str], Decimal] = {}

    def validate_account(self, fields: Fields) -> JsonObject:
        """Whether money can be sent there; Refused for accounts that say no by a status."""
        account = fields.text("recipientAccount", "accountNumber", "account")
        if not account:
            raise Refused("recipientAccount is missing.")
        if account == _ACCOUNT_REFUSED_BY_STATUS:
            raise Refused(_REFUSED_ACCOUNTS[account])
        if account in _ODD_VALIDATIONS:
            return dict(_ODD_VALIDATIONS[account])
        refusal = _account_refusal(account)
        if refusal:
            return {"valid": False, "message": refusal}
        return {"valid": True, "token": token_of(account), "accountName": _name_of(account)}

    def account(self, number: str) -> JsonObject:
        if _account_refusal(number):
            raise Refused(_UNKNOWN_ACCOUNT, 404)
        return {
            "accountNumber": number,
            "accountName": _name_of(number),
            "balance": money_text(self._balance_of(number)),
            "currency": "USD",
        }

    def transfer(self, fields: Fields, key: str) -> JsonObject:
        """Move the money of one transfer and return its record."""
        amount = _amount_of(fields)
        recipient = fields.text("recipientAccount")
        if not recipient:
            raise Refused("recipientAccount is missing.")
        refusal = _account_refusal(recipient)
        if refusal:
            raise Refused(refusal)
        if fields.text("validationToken") not in ("", token_of(recipient)):
            raise Refused("The validation token does not belong to this recipient.")
        sender = self._withdraw(fields, amount)
        self._balances[recipient] = self._balance_of(recipient) + amount
        record: JsonObject = {
            "transferId": f"TR-{_digest(key)[:12]}",
            "status": "EXECUTED",
            "amount": _as_sent(fields.find("amount")),
            "senderAccount": sender,
            "recipientAccount": recipient,
        }
        self._transfers[str(record["transferId"])] = record
        return dict(record)

    def find_transfer(self, transfer_id: str) -> JsonObject:
        if transfer_id not in self._transfers:
            raise Refused("No transfer has this id.", 404)
        return dict(self._transfers[transfer_id])

    def reverse(self, transfer_id: str) -> JsonObject:
        """Send the money of a transfer back, once."""
        record = self.find_transfer(transfer_id)
        if record["status"] == "REVERSED":
            raise Refused("The transfer has been reversed already.")
        amount = parse_amount(record["amount"])
        sender, recipient = str(record["senderAccount"]), str(record["recipientAccount"])
        self._balances[sender] = self._balance_of(sender) + amount
        self._balances[recipient] = self._balance_of(recipient) - amount
        record["status"] = "REVERSED"
        self._transfers[transfer_id] = record
        return dict(record)

    def reverse_named(self, fields: Fields) -> JsonObject:
        """Undo the transfer that the body names; a reversal that names none is only noted."""
        transfer_id = fields.text("transferId")
        return self.reverse(transfer_id) if transfer_id else {"status": "REVERSED"}

    def open_account(self, key: str) -> JsonObject:
        """Open an empty account; its number belongs to the key."""
        number = f"20{int(_digest(key)[:12], 16) % 10**8:08}"
        self._balances.setdefault(number, Decimal(0))
        return {"accountNumber": number, "status": "OPEN"}

    def check_identity(self, fields: Fields, key: str) -> JsonObject:
        """The result of a check of a person: verified, but for the one document nobody knows."""
        is_unknown = fields.text("documentNumber") == _UNKNOWN_DOCUMENT
        return {
            "checkId": f"KYC-{_digest(key)[:12]}",
            "verified": not is_unknown,
            "riskScore": int(_digest(key)[12:20], 16) % 100,
            "status": "DONE",
        }

    def cancel_check(self, fields: Fields) -> JsonObject:
        check_id = fields.text("checkId")
        named: JsonObject = {"checkId": check_id} if check_id else {}
        return {**named, "status": "CANCELLED"}

    def submit(self, fields: Fields, key: str) -> JsonObject:
        """Take any order in for the record; an amount in it is checked, no money moves."""
        record: JsonObject = {"paymentId": f"PM-{_digest(key)[:12]}", "status": "ACCEPTED"}
        if fields.find("amount") is not None:
            _amount_of(fields)
            record["amount"] = _as_sent(fields.find("amount"))
        return record

    def bill(self, biller_id: str, number: str) -> JsonObject:
        bill = _find_bill(biller_id, number)
        remaining = self._remaining(biller_id, number, bill)
        return {
            "billerId": biller_id,
            "billerName": _BILLERS[biller_id],
            "billNumber": number,
            "status": "OPEN" if remaining else "PAID",
            "currency": "USD",
            "amountDue": money_text(bill.due),
            "lateFee": money_text(bill.late_fee),
            "totalDue": money_text(remaining),
            "overdue": bool(bill.late_fee and remaining),
            "dueDate": bill.due_date,
        }

    def pay_bill(self, fields: Fields, key: str) -> JsonObject:
        """Pay a bill whole or in part; more than what is left is refused."""
        biller_id, number = fields.text("billerId"), fields.text("billNumber")
        if not biller_id or not number:
            raise Refused("billerId and billNumber are needed.")
        bill = _find_bill(biller_id, number)
        remaining = self._remaining(biller_id, number, bill)
        if not remaining:
            raise Refused("This bill has been paid already.")
        amount = _amount_of(fields)
        if amount > remaining:
            raise Refused(f"Only {money_text(remaining)} is left to pay on this bill.")
        account = self._withdraw(fields, amount)
        self._paid[biller_id, number] = self._paid.get((biller_id, number), Decimal(0)) + amount
        return {
            "paymentId": f"BP-{_digest(key)[:12]}",
            "status": "PAID",
            "amount": _as_sent(fields.find("amount")),
            "billerId": biller_id,
            "billNumber": number,
            "fromAccount": account,
            "remaining": money_text(remaining - amount),
        }

    def _withdraw(self, fields: Fields, amount: Decimal) -> str:
        account = fields.text("senderAccount", "fromAccount", "userAccount") or DEFAULT_SENDER
        balance = self._balance_of(account)
        if balance < amount:
            raise Refused("The funds of the account are not sufficient.")
        self._balances[account] = balance - amount
        return account

    def _balance_of(self, account: str) -> Decimal:
        return self._balances.get(account, _OPENING_BALANCE)

    def _remaining(self, biller_id: str, number: str, bill: Bill) -> Decimal:
        return bill.total - self._paid.get((biller_id, number), Decimal(0))


def token_of(account: str) -> str:
    """The validation token of a recipient, always the same, such as abc123xyz."""
    known = _ACCOUNT_TOKENS.get(account)
    if known:
        return known
    digest = hashlib.sha256(account.encode(errors="replace")).digest()
    letters = "".join(chr(ord("a") + byte % 26) for byte in digest[:6])
    return f"{letters[:3]}{int.from_bytes(digest[6:8]) % 1000:03}{letters[3:]}"


def parse_amount(value: JsonValue) -> Decimal:
    """The exact amount of a JSON number or a decimal string; Refused when it is no money."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused("amount is missing or not a number.")
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        raise Refused("amount is missing or not a number.") from None
    if not amount.is_finite() or amount <= 0:
        raise Refused("amount must be more than zero.")
    if amount > TRANSFER_LIMIT:
        raise Refused(f"amount is above the limit of {TRANSFER_LIMIT}.")
    if amount != round(amount, 2):
        raise Refused("amount has more than two decimal places.")
    return amount


def money_text(amount: Decimal) -> str:
    return f"{amount:.2f}"


def _amount_of(fields: Fields) -> Decimal:
    return parse_amount(fields.find("amount"))


def _as_sent(amount: JsonValue) -> JsonValue:
    return money_text(parse_amount(amount)) if isinstance(amount, float) else amount


def _account_refusal(account: str) -> str:
    if not _ACCOUNT_PATTERN.fullmatch(account):
        return _BAD_ACCOUNT
    return _REFUSED_ACCOUNTS.get(account, "")


def _name_of(account: str) -> str:
    return _ACCOUNT_NAMES.get(account, f"Customer {account[-4:]}")


def _find_bill(biller_id: str, number: str) -> Bill:
    if biller_id not in _BILLERS:
        raise Refused("No biller has this id.", 404)
    if number == _UNKNOWN_BILL or not _ACCOUNT_PATTERN.fullmatch(number):
        raise Refused("No bill has this number.", 404)
    known = _KNOWN_BILLS.get(number)
    if known:
        return known
    cents = 1000 + int(_digest(f"{biller_id}/{number}")[:8], 16) % 29_000
    return Bill(Decimal(cents) / 100)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
