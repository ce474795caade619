from decimal import Decimal

import pytest

from config.jsonvalues import JsonObject, JsonValue
from sandbox.bank import Bank, Fields, Refused, parse_amount, token_of

FLAT: JsonObject = {"amount": 5000, "recipientAccount": "9876543210", "senderAccount": "1000000002"}


def balance(bank: Bank, account: str) -> JsonValue:
    return bank.account(account)["balance"]


def test_transfer_moves_money_exactly() -> None:
    bank = Bank()

    record = bank.transfer(Fields({**FLAT, "amount": "0.10"}), "k")
    bank.transfer(Fields({**FLAT, "amount": "0.20"}), "k2")

    assert record == {
        "transferId": "TR-8254c329a928",
        "status": "EXECUTED",
        "amount": "0.10",
        "senderAccount": "1000000002",
        "recipientAccount": "9876543210",
    }
    assert balance(bank, "1000000002") == "999999.70"
    assert balance(bank, "9876543210") == "1000000.30"


def test_default_body_of_handrail_is_read() -> None:
    body: JsonObject = {
        "input": None,
        "context": {
            "userId": "alice",
            "userAccount": "1000000002",
            "transferDetails": {"amount": 5000, "recipientAccount": "9876543210"},
        },
        "execution": {"id": "e", "workflow": "Money Transfer", "step": "s", "userId": "alice"},
    }

    record = Bank().transfer(Fields(body), "k")

    assert record["senderAccount"] == "1000000002"
    assert record["recipientAccount"] == "9876543210"
    assert record["amount"] == 5000


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"amount": 1, "input": {"amount": 2}, "context": {"amount": 3}}, 1),
        ({"input": {"amount": 2}, "context": {"amount": 3}}, 2),
        ({"input": "text", "context": {"amount": 3, "a": {"amount": 4}}}, 3),
        ({"context": {"b": {"amount": 5}, "a": {"amount": 4}}}, 4),  # by key, not by position
        ({"amount": None, "input": {"amount": 2}}, 2),  # null is as good as absent
        ({"input": [], "context": None}, None),
    ],
)
def test_first_place_with_the_name_wins(body: JsonObject, found: JsonValue) -> None:
    assert Fields(body).find("amount") == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amount": None}, "amount is missing or not a number."),
        ({"amount": True}, "amount is missing or not a number."),
        ({"amount": "ten"}, "amount is missing or not a number."),
        ({"amount": [5]}, "amount is missing or not a number."),
        ({"amount": 0}, "amount must be more than zero."),
        ({"amount": -5}, "amount must be more than zero."),
        ({"amount": "NaN"}, "amount must be more than zero."),
        ({"amount": "1.001"}, "amount has more than two decimal places."),
        ({"amount": 1_000_001}, "amount is above the limit of 1000000."),
        ({"amount": "1e999999"}, "amount is above the limit of 1000000."),
        ({"recipientAccount": ""}, "recipientAccount is missing."),
        ({"recipientAccount": True}, "recipientAccount is missing."),
        ({"recipientAccount": "no/account"}, "The account number is not valid."),
        ({"recipientAccount": "0000000000"}, "No account has this number."),
        ({"recipientAccount": "0000000001"}, "This account is closed."),
        ({"senderAccount": "1000000001"}, "The funds of the account are not sufficient."),
        (
            {"validationToken": token_of("1111111111")},
            "The validation token does not belong to this recipient.",
        ),
    ],
)
def test_refused_transfer_moves_nothing(changes: JsonObject, message: str) -> None:
    bank = Bank()

    with pytest.raises(Refused) as caught:
        bank.transfer(Fields({**FLAT, **changes}), "k")

    assert (caught.value.message, caught.value.status) == (message, 422)
    assert balance(bank, "9876543210") == "1000000.00"


@pytest.mark.parametrize(
    ("account", "answer"),
    [
        ("9876543210", {"valid": True, "token": "abc123xyz", "accountName": "John Doe"}),
        ("0000000000", {"valid": False, "message": "No account has this number."}),
        ("0000000001", {"valid": False, "message": "This account is closed."}),
        ("x", {"valid": False, "message": "The account number is not valid."}),
        ("0000000003", {"valid": "false", "message": "This answer says no with a string."}),
        ("0000000004", {"valid": None, "message": "This answer says neither yes nor no."}),
        ("0000000005", {"token": "nov000val"}),
    ],
)
def test_validation_by_account(account: str, answer: JsonObject) -> None:
    assert Bank().validate_account(Fields({"recipientAccount": account})) == answer


def test_validation_says_no_by_status() -> None:
    with pytest.raises(Refused, match="closed"):
        Bank().validate_account(Fields({"recipientAccount": "0000000002"}))
    with pytest.raises(Refused, match="recipientAccount is missing"):
        Bank().validate_account(Fields({}))


def test_token_of_an_account_is_always_the_same() -> None:
    assert token_of("1111111111") == token_of("1111111111") == "cau706lzs"
    assert token_of("1111111112") != token_of("1111111111")


@pytest.mark.parametrize(
    ("value", "amount"),
    [(5000, "5000"), ("84.50", "84.50"), (0.1, "0.1"), ("1e2", "1E+2"), (1_000_000, "1000000")],
)
def test_amounts_are_exact(value: JsonValue, amount: str) -> None:
    assert parse_amount(value) == Decimal(amount)


def test_fraction_leaves_as_text() -> None:
    assert Bank().transfer(Fields({**FLAT, "amount": 12.5}), "k")["amount"] == "12.50"


def test_reversal_sends_the_money_back_once() -> None:
    bank = Bank()
    transfer_id = str(bank.transfer(Fields(FLAT), "k")["transferId"])

    assert bank.reverse(transfer_id)["status"] == "REVERSED"

    assert balance(bank, "1000000002") == "1000000.00"
    assert balance(bank, "9876543210") == "1000000.00"
    assert bank.find_transfer(transfer_id)["status"] == "REVERSED"
    with pytest.raises(Refused, match="reversed already"):
        bank.reverse(transfer_id)
    with pytest.raises(Refused) as caught:
        bank.find_transfer("TR-0")
    assert caught.value.status == 404


def test_bill_is_paid_in_parts_and_then_no_more() -> None:
    bank = Bank()
    order: JsonObject = {"billerId": "city-power", "billNumber": "2024000042", "amount": "100.00"}

    assert bank.bill("city-power", "2024000042") == {
        "billerId": "city-power",
        "billerName": "City Power",
        "billNumber": "2024000042",
        "status": "OPEN",
        "currency": "USD",
        "amountDue": "120.00",
        "lateFee": "6.00",
        "totalDue": "126.00",
        "overdue": True,
        "dueDate": "2024-12-31",
    }
    assert bank.pay_bill(Fields(order), "k1")["remaining"] == "26.00"
    with pytest.raises(Refused, match=r"Only 26\.00 is left"):
        bank.pay_bill(Fields(order), "k2")
    assert bank.pay_bill(Fields({**order, "amount": 26}), "k3")["status"] == "PAID"

    assert bank.bill("city-power", "2024000042")["status"] == "PAID"
    assert bank.bill("city-power", "2024000042")["overdue"] is False
    with pytest.raises(Refused, match="paid already"):
        bank.pay_bill(Fields(order), "k4")
    assert balance(bank, "1234567890") == "9999999874.00"


@pytest.mark.parametrize(
    ("biller", "number", "message"),
    [
        ("nobody", "2024000117", "No biller has this id."),
        ("city-power", "0000000000", "No bill has this number."),
        ("city-power", "a b", "No bill has this number."),
    ],
)
def test_unknown_bill(biller: str, number: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        Bank().bill(biller, number)
    assert (caught.value.message, caught.value.status) == (message, 404)


def test_any_other_bill_number_is_an_open_bill() -> None:
    bill = Bank().bill("aqua-water", "7777777777")
    assert bill == Bank().bill("aqua-water", "7777777777")
    assert (bill["status"], bill["overdue"]) == ("OPEN", False)
    assert Decimal(10) <= Decimal(str(bill["totalDue"])) < Decimal(300)


@pytest.mark.parametrize("place", ["result", "context"])
def test_reversal_of_the_transfer_in_the_body(place: str) -> None:
    bank = Bank()
    record = bank.transfer(Fields(FLAT), "k")
    undo: JsonObject = {"context": {"transfer": {"transferId": "TR-0"}}}
    undo |= {"result": record} if place == "result" else {"context": {"transfer": record}}

    assert bank.reverse_named(Fields(undo)) == {**record, "status": "REVERSED"}

    assert balance(bank, "9876543210") == "1000000.00"


def test_reversal_that_names_no_transfer_is_noted_and_an_unknown_one_refused() -> None:
    assert Bank().reverse_named(Fields({})) == {"status": "REVERSED"}
    with pytest.raises(Refused) as caught:
        Bank().reverse_named(Fields({"transferId": "TR-0"}))
    assert caught.value.status == 404


def test_opened_account_is_empty_and_belongs_to_its_key() -> None:
    bank = Bank()
    opened = bank.open_account("k")
    assert opened == {"accountNumber": "2063151144", "status": "OPEN"}
    assert balance(bank, "2063151144") == "0.00"
    bank.transfer(Fields({**FLAT, "recipientAccount": "2063151144", "amount": 5}), "t")
    assert bank.open_account("k") == opened
    assert balance(bank, "2063151144") == "5.00"


def test_cancelled_check() -> None:
    assert Bank().cancel_check(Fields({})) == {"status": "CANCELLED"}
    assert Bank().cancel_check(Fields({"result": {"checkId": "KYC-1"}})) == {
        "checkId": "KYC-1",
        "status": "CANCELLED",
    }


def test_submission_moves_nothing_but_checks_the_amount() -> None:
    bank = Bank()
    assert bank.submit(Fields({"any": "thing"}), "k") == {
        "paymentId": "PM-8254c329a928",
        "status": "ACCEPTED",
    }
    assert bank.submit(Fields({"amount": 5000}), "k")["amount"] == 5000
    with pytest.raises(Refused, match="above the limit"):
        bank.submit(Fields({"amount": 10**9}), "k")
    assert balance(bank, "1234567890") == "10000000000.00"
