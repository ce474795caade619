"""Documents for tests: the seed's own, and small ones made of keyword arguments."""

import json
from pathlib import Path
from typing import Any

from config.jsonvalues import JsonObject, JsonValue
from workflows.compiled import CompiledStep, CompiledWorkflow, compile_workflow
from workflows.documents import parse_document

SEED = Path(__file__).resolve().parents[2] / "contract" / "workflows" / "money-transfer.json"


def seed_document() -> JsonObject:
    """The seed's Example 1, verbatim."""
    document: JsonObject = json.loads(SEED.read_text())
    return document


def form(order: int = 0, *, label: str = "Form", **config: JsonValue) -> JsonObject:
    """A FORM that the app fills in."""
    step: JsonObject = {"type": "FORM", "label": label, "order": order}
    return {**step, "config": config} if config else step


def server(order: int = 0, *, columns: JsonObject | None = None, **config: JsonValue) -> JsonObject:
    """An API_CALL that posts to /pay; `columns` change it, None leaves a column out."""
    step: JsonObject = {
        "type": "API_CALL",
        "label": f"Call {order}",
        "order": order,
        "executionMode": "SERVER_SYNC",
        "triggerEndpoint": "/pay",
        **(columns or {}),
        "config": config,
    }
    return {key: value for key, value in step.items() if value is not None}


def workflow(*steps: JsonObject, name: str = "Flow", **config: JsonValue) -> JsonObject:
    """A document with these steps."""
    document: JsonObject = {"name": name, "steps": list(steps)}
    return {**document, "config": config} if config else document


def compiled(*steps: JsonObject, **config: JsonValue) -> CompiledWorkflow:
    """The compiled version of a document with these steps, their ids being s0, s1, …"""
    return compile_workflow(
        version_id="v",
        workflow_id="w",
        number=1,
        document=parse_document({"name": "Flow", "config": config, "steps": list(steps)}),
        step_ids=[f"s{index}" for index in range(len(steps))],
    )


def compiled_step(step: Any) -> CompiledStep:
    """The one step of a workflow, compiled."""
    return compiled(step).steps[0]
