"""The flow that a campaign walks: a transfer at once, a check that is answered later, a submission.

The final payload is made of whole data keys, so that what reached the partner can be compared with
what each person's app was told.
"""

from chaos.evidence import FlowFacts
from config.jsonvalues import JsonObject
from workflows.compiled import CompiledWorkflow

DETAILS, TRANSFER, CHECK, CONFIRMATION = range(4)
PATH_TRANSFER, PATH_CHECK = "/api/transactions/transfer", "/api/kyc/checks"
PATH_SUBMIT = "/api/payments/submit"
RETRIES: JsonObject = {"maxRetries": 10, "initialDelayMs": 200, "maxDelayMs": 2000}


def document(*, is_durable: bool) -> JsonObject:
    """The workflow's document."""
    return {
        "name": "Durable transfer" if is_durable else "Transfer",
        "config": {
            "durableSession": is_durable,
            "apiMapping": {
                "details": "details",
                "transfer": "transfer",
                "check": "check",
                "confirmation": "confirmation",
            },
            "finalApi": {"endpoint": PATH_SUBMIT, "timeoutMs": 5000},
        },
        "steps": [
            _form(DETAILS, "details", "FORM"),
            {
                **_call(TRANSFER, "transfer", PATH_TRANSFER, undo="/api/transactions/reverse"),
                "executionMode": "SERVER_SYNC",
            },
            {
                **_call(CHECK, "check", PATH_CHECK, undo="/api/kyc/checks/cancel"),
                "executionMode": "SERVER_ASYNC",
                "retryConfig": RETRIES,
            },
            _form(CONFIRMATION, "confirmation", "CONFIRMATION"),
        ],
    }


def facts_of(compiled: CompiledWorkflow) -> FlowFacts:
    """What the checker has to know of the published flow."""
    steps = compiled.steps
    return FlowFacts(
        data_keys={step.id: step.data_key for step in steps},
        calling=frozenset(step.id for step in steps if step.trigger is not None),
        undoable=frozenset(step.id for step in steps if step.compensation is not None),
        is_durable=compiled.durable_session,
    )


def _form(order: int, data_key: str, kind: str) -> JsonObject:
    return {
        "type": kind,
        "label": data_key.title(),
        "order": order,
        "executionMode": "CLIENT_ONLY",
        "config": {"dataKey": data_key},
    }


def _call(order: int, data_key: str, path: str, *, undo: str) -> JsonObject:
    compensation: JsonObject = {
        "endpoint": undo,
        "requestMapping": {"key": "execution.idempotencyKey"},
        "retryConfig": RETRIES,
    }
    mapping: JsonObject = {
        "amount": "details.amount",
        "recipientAccount": "details.recipientAccount",
        "documentNumber": "details.documentNumber",
    }
    return {
        "type": "API_CALL",
        "label": data_key.title(),
        "order": order,
        "triggerTiming": "AFTER_STEP",
        "triggerEndpoint": path,
        "timeoutMs": 5000,
        "config": {
            "dataKey": data_key,
            "requestMapping": mapping,
            "compensation": compensation,
        },
    }
