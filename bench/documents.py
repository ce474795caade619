"""The workflows that are walked."""

import json
from typing import Any

from bench.house import ROOT


def money_transfer() -> dict[str, Any]:
    """The seed's money transfer, submitted to the partner: three partner calls."""
    file = ROOT / "contract" / "workflows" / "money-transfer.json"
    document: dict[str, Any] = json.loads(file.read_text())
    document["config"]["finalApi"] = {"endpoint": "/api/payments/submit", "timeoutMs": 30_000}
    return document


def forms(count: int) -> dict[str, Any]:
    """So many forms, one after the other."""
    steps = [
        {
            "type": "FORM",
            "label": f"Form {order}",
            "order": order,
            "executionMode": "CLIENT_ONLY",
            "config": {"dataKey": f"form{order}"},
        }
        for order in range(count)
    ]
    return {"name": f"{count} forms", "steps": steps}


def async_call() -> dict[str, Any]:
    """One step that a worker works off, with a partner whose effects can be undone."""
    step = {
        "type": "API_CALL",
        "label": "Submit",
        "order": 0,
        "executionMode": "SERVER_ASYNC",
        "triggerEndpoint": "/api/payments/submit",
        "timeoutMs": 30_000,
        "config": {"dataKey": "submission", "reversible": True},
    }
    return {"name": "one async step", "steps": [step]}


def operations() -> dict[str, str]:
    """The seed's operations by name, and a start that is given its context."""
    folder = ROOT / "contract" / "operations"
    return {
        **{file.stem: file.read_text() for file in folder.glob("*.graphql")},
        "start-with": (
            "mutation Start($workflowId: ID!, $pageId: ID!, $initialContext: JSON) {\n"
            "  startWorkflowExecution(workflowId: $workflowId, pageId: $pageId,"
            " initialContext: $initialContext) { id }\n}\n"
        ),
    }
