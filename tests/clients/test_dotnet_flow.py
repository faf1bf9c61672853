"""The .NET sample of the documentation, request by request, on the `/t/` prefix."""

import json
import uuid

import pytest
import requests

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class DotnetSample:
    """What the sample's HttpClient does, its default Authorization header included."""

    def __init__(self, server, client_id, client_secret):
        self.base = f"{server.url}/t/{server.org}/api/v1"
        self.http = requests.Session()
        self.http.headers.clear()
        self.client_id, self.client_secret = client_id, client_secret
        self.token = None

    def sign_in(self, scope):
        """FormUrlEncodedContent to the token endpoint; then the header becomes a default of the client."""
        response = self.http.post(
            f"{self.base}/oauth/token",
            data={
                "grant_type": "client_credentials",
                "client_id": self.client_id,
                "client_secret": self.client_secret,
                "scope": scope,
            },
            timeout=30,
        )
        response.raise_for_status()
        self.token = response.json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"
        return response

    def has_capability(self, permission):
        """StringContent of UTF-8 JSON, which .NET announces with a charset."""
        response = self.http.post(
            f"{self.base}/authz/check",
            data=json.dumps({"permission": permission}).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
            timeout=30,
        )
        if not response.ok:
            return False
        allowed = response.json().get("allowed")
        assert isinstance(allowed, bool), "GetBoolean() throws for anything else"
        return allowed

    def mcp_token(self, resource):
        """The exchange, with the default header that is no client authentication."""
        response = self.http.post(
            f"{self.base}/oauth/token",
            data={
                "grant_type": EXCHANGE,
                "subject_token": self.token,
                "subject_token_type": ACCESS_TOKEN,
                "audience": resource,
            },
            timeout=30,
        )
        assert response.status_code < 500, response.text
        return response.json().get("access_token") if response.ok else None


@pytest.fixture
def sample(server):
    return DotnetSample(server, server.variables["AGENT_CLIENT_ID"], server.variables["AGENT_CLIENT_SECRET"])


def test_the_sample_runs_from_start_to_end(sample):
    response = sample.sign_in("read:documents mcp:financial")
    assert set(response.json()["scope"].split()) == {"read:documents", "mcp:financial"}
    assert sample.has_capability("read:documents") is True
    assert sample.has_capability("mcp:financial") is True
    assert sample.mcp_token("urn:mcp:financial-data")


def test_a_capability_outside_the_token_is_denied_with_a_plain_answer(sample):
    sample.sign_in("read:documents mcp:financial")
    # The agent has it; this token does not.
    assert sample.has_capability("write:documents") is False
    assert sample.has_capability("admin:everything") is False


def test_an_unknown_mcp_server_gives_no_token(sample):
    sample.sign_in("read:documents")
    assert sample.mcp_token("urn:mcp:nobody") is None


def test_signing_in_again_with_the_default_header_still_works(sample):
    sample.sign_in("read:documents")
    first = sample.token
    sample.sign_in("read:documents")
    assert sample.token != first


def test_a_stale_default_header_does_not_hinder_signing_in(sample):
    sample.http.headers["Authorization"] = "Bearer expired.or.worse"
    assert sample.sign_in("read:documents").status_code == 200


def test_a_wrong_secret_throws_where_the_sample_ensures_success(server):
    sample = DotnetSample(server, server.variables["AGENT_CLIENT_ID"], "wrong")
    with pytest.raises(requests.HTTPError):
        sample.sign_in("read:documents")


def test_a_urn_registered_by_an_administrator_is_reachable(server, sample):
    urn = f"urn:mcp:{uuid.uuid4().hex}"
    created = server.admin("POST", "/mcp/servers", json={"name": "Urn", "resource_uri": urn})
    assert created.status_code == 201, created.text
    sample.sign_in("read:documents")
    assert sample.mcp_token(urn)
