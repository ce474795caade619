"""What one async run costs a worker: each statement more is felt at a thousand runs."""

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries

from executions import tasks, worker
from executions.tests.phone import Phone, flow, published
from executions.tests.test_async_steps import CHECK, async_step
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db


def test_a_run_is_claimed_with_two_statements_and_worked_off_with_five(
    partner: FakePartner, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    partner.answer(CHECK, {"verified": True})
    phone = Phone(published(flow(async_step(0))))
    phone.step(0)
    woken = tasks.take_woken(8)
    skips = connection.features.has_select_for_update_skip_locked
    with django_assert_num_queries(2 + 2 * skips):  # for which it needs a transaction
        (claim,) = worker.claim_woken(woken)
    with django_assert_num_queries(5 + 2):  # and the transaction's two ends
        worker.work(claim)
    assert phone.runs[0].status == "SUCCEEDED"
