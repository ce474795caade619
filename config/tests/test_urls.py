"""The addresses themselves."""

from django.test import Client


def test_the_root_leads_operators_to_the_admin() -> None:
    assert Client().get("/").headers["Location"] == "/admin/"


def test_both_spellings_of_the_endpoint_answer_without_a_redirect() -> None:
    for path in ("/graphql", "/graphql/"):
        assert Client().put(path).status_code == 405
