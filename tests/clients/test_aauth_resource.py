"""The official SDK's AAuth client, unmodified, at a service that the AAuth layer protects."""

import re

import pytest
import requests
from aauth_parties import Agent
from test_aauth import client_of
from test_aauth_agent import notebook  # noqa: F401  (a fixture)


class Caller:
    """An agent of the SDK's, and what it gets from a resource."""

    def __init__(self, server):
        self.agent = Agent(server, allowed_scopes=["read:notes", "write:notes"])
        self.client = client_of(server, self.agent)

    def challenged(self, method, url):
        """The resource token in the answer to a call that is signed and has no auth token."""
        headers = self.client.sign_request(method, url, agent_token=self.agent.token())
        answer = requests.request(method, url, headers=headers, data=b"", timeout=30)
        assert answer.status_code == 401, answer.text
        return re.search(r'resource_token="([^"]+)"', answer.headers["agent-auth"]).group(1)

    def auth_token(self, method, url, scope):
        resource_token = self.challenged(method, url)
        tokens = self.client.request_authorization(resource_token, scope, agent_token=self.agent.token())
        assert tokens["scope"] == scope, tokens
        return tokens["auth_token"]


@pytest.fixture
def url(notebook):  # noqa: F811
    return notebook[0]


def test_the_resource_says_what_it_is(server, url):
    document = Caller(server).client.discover_resource(url.removesuffix("/notes"))
    assert document["resource"] == url.removesuffix("/notes")
    assert document["auth_server"].endswith(f"/orgs/{server.org}/api/v1")
    assert set(document["supported_scopes"]) == {"read:notes", "write:notes"}


def test_signed_requests_are_served_as_far_as_their_token_goes(server, url):
    caller = Caller(server)
    reading = caller.auth_token("GET", url, "read:notes")
    answer = caller.client.signed_request("GET", url, auth_token=reading)
    assert answer.status_code == 200, answer.text
    refused = caller.client.signed_request("POST", url, auth_token=reading, data={"text": "a"})
    assert refused.status_code == 403 and refused.json()["error"] == "insufficient_scope"

    writing = caller.auth_token("POST", url, "write:notes")
    answer = caller.client.signed_request("POST", url, auth_token=writing, data={"text": "from the SDK"})
    assert answer.status_code in (200, 201), answer.text
    assert "from the SDK" in caller.client.signed_request("GET", url, auth_token=reading).text


def test_a_token_is_worth_nothing_without_its_key(server, url):
    caller, thief = Caller(server), Caller(server)
    token = caller.auth_token("GET", url, "read:notes")
    bearer = {"Authorization": f"Bearer {token}"}
    assert requests.get(url, headers=bearer, timeout=30).status_code == 401
    stolen = thief.client.signed_request("GET", url, auth_token=token)
    assert stolen.status_code == 401
    assert stolen.json()["details"]["reason"] == "key_binding_failed"


def test_a_request_counts_once_and_as_it_was_signed(server, url):
    caller = Caller(server)
    bearer = f"Bearer {caller.auth_token('GET', url, 'read:notes')}"

    def signed(method="GET", target=url):
        return {"Authorization": bearer, **caller.client.sign_request(method, target, authorization=bearer)}

    def refused(headers, reason, body=b""):
        answer = requests.get(url, headers=headers, data=body, timeout=30)
        assert answer.status_code == 401, answer.text
        assert answer.json()["details"]["reason"] == reason

    headers = signed()
    assert requests.get(url, headers=headers, data=b"", timeout=30).status_code == 200
    refused(headers, "invalid_signature")
    refused(signed(), "invalid_signature", body=b"x")
    # Signed for another method, another path or another service, and sent here.
    refused(signed(method="POST"), "key_binding_failed")
    refused(signed(target=f"{url}/"), "key_binding_failed")
    refused(signed(target=url.replace("127.0.0.1", "localhost")), "key_binding_failed")
    refused({**signed(), "Authorization": "Bearer " + caller.auth_token("GET", url, "read:notes")}, "key_binding_failed")
    assert requests.get(url, headers=signed(), data=b"", timeout=30).status_code == 200
