"""The official SDK's chain of agency, unmodified: consent, exchange, sub-agents, and their end."""

import base64
import json
import uuid

import pytest
import requests
from browser import Browser, Outside, allow
from lumoauth import LumoAuthAgent
from lumoauth.delegation import DelegationChain
from lumoauth.errors import LumoAuthApiError, LumoAuthPermissionDeniedError

REDIRECT = "http://127.0.0.1/callback"


def claims(token):
    """The claims of a JWT, unverified."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def introspect(server, token, agent):
    """What the server says of a token to the agent that it was issued to."""
    response = requests.post(
        f"{server.url}/orgs/{server.org}/api/v1/oauth/introspect",
        data={"token": token},
        auth=(agent.client_id, agent.client_secret),
        timeout=30,
    )
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def orchestrator(agent_of):
    agent = agent_of(
        capabilities=["read:documents", "write:documents", "delegate:on_behalf"], redirectUris=[REDIRECT]
    )
    assert agent.authenticate()
    return agent


@pytest.fixture
def helper(agent_of):
    """Makes sub-agents."""

    def make(*capabilities):
        agent = agent_of(capabilities=list(capabilities))
        assert agent.authenticate()
        return agent

    return make


def consented(server, agent, scopes, session="s"):
    """A chain for which alice has said yes in her browser."""
    chain = DelegationChain(agent, redirect_uri=REDIRECT)
    landed = allow(Browser(server), chain.get_consent_url(session, scopes))
    assert landed.url.startswith(REDIRECT + "?")
    assert landed.query["state"] == f"session:{session}"
    assert landed.query["iss"] == f"{server.url}/orgs/{server.org}/api/v1"
    assert chain.handle_consent_callback(session, landed.query["code"])
    return chain


def test_the_whole_chain_from_consent_to_revocation(server, orchestrator, helper):
    chain = consented(server, orchestrator, ["read:documents", "write:documents"])
    delegated = chain.exchange("s", scopes=["read:documents"])
    found = claims(delegated)
    assert found["scope"] == "read:documents"
    assert found["client_id"] == orchestrator.client_id
    assert DelegationChain.parse_actor_chain(delegated) == [f"agent:{orchestrator.record['slug']}"]
    alice = server.admin("GET", f"/users/{server.variables['USER_EMAIL']}").json()["data"]
    assert DelegationChain.get_subject(delegated) == alice["id"]

    sub = helper("read:documents", "tool:search_web")
    nested = chain.delegate_to_sub_agent("s", sub.access_token, scopes=["read:documents"])
    actors = [f"agent:{orchestrator.record['slug']}", f"agent:{sub.record['slug']}"]
    assert DelegationChain.parse_actor_chain(nested) == actors
    assert claims(nested)["agent_id"] == sub.record["agentId"]
    seen = introspect(server, nested, sub)
    assert seen["active"] and seen["act"]["sub"] == actors[0] and seen["act"]["act"]["sub"] == actors[1]
    assert seen["sub"] == alice["id"] and seen["exp"] <= claims(delegated)["exp"]

    answer = chain.request("s", "GET", f"/orgs/{server.org}/api/v1/oauth/userinfo")
    assert answer.status_code == 200 and answer.json()["sub"] == alice["id"]

    assert chain.revoke("s")
    assert introspect(server, nested, sub) == {"active": False}
    assert introspect(server, delegated, orchestrator) == {"active": False}


def test_a_fourth_actor_is_one_too_many(server, orchestrator, helper):
    chain = consented(server, orchestrator, ["read:documents"])
    token = chain.exchange("s")
    for _ in range(2):
        sub = helper("read:documents", "delegate:on_behalf")
        chain._delegated_tokens["s"] = chain.delegate_to_sub_agent("s", sub.access_token)
    assert claims(chain._delegated_tokens["s"])["delegation_depth"] == 3
    with pytest.raises(LumoAuthPermissionDeniedError, match=r"too deep \(max depth: 3\)"):
        chain.delegate_to_sub_agent("s", helper("read:documents").access_token)
    assert introspect(server, token, orchestrator)["active"]


def test_nothing_is_wider_than_what_alice_and_the_agent_both_may(server, orchestrator, helper):
    chain = consented(server, orchestrator, ["read:documents"])
    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        chain.exchange("s", scopes=["write:documents"])
    assert refused.value.code == "invalid_scope"
    assert claims(chain.exchange("s"))["scope"] == "read:documents"
    with pytest.raises(LumoAuthApiError, match="HTTP 400"):
        chain.delegate_to_sub_agent("s", helper("tool:search_web").access_token, scopes=["read:documents"])
    assert claims(chain.delegate_to_sub_agent("s", helper("tool:search_web").access_token))["scope"] == ""


def test_a_delegated_token_for_a_resource_is_for_that_resource_only(server, orchestrator, helper):
    resource, supported = f"https://{uuid.uuid4().hex}.test/mcp", ["read:documents", "tool:x"]
    members = {"name": uuid.uuid4().hex, "resource_uri": resource, "scopes_supported": supported}
    assert server.admin("POST", "/mcp/servers", json=members).status_code == 201
    chain = consented(server, orchestrator, ["read:documents", "write:documents"])
    own = chain.exchange("s")
    assert claims(own)["aud"] == orchestrator.record["agentId"]

    # The SDK sends the URL as it is, and keeps the token for what it does next.
    bound = chain.exchange("s", resource=resource)
    found = claims(bound)
    assert found["aud"] == resource and found["scope"] == "read:documents"
    assert DelegationChain.parse_actor_chain(bound) == [f"agent:{orchestrator.record['slug']}"]
    assert DelegationChain.get_subject(bound) == DelegationChain.get_subject(own)
    seen = introspect(server, bound, orchestrator)
    assert seen["active"] and seen["aud"] == resource
    assert chain.request("s", "GET", f"/orgs/{server.org}/api/v1/agents/me").status_code == 401
    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        chain.delegate_to_sub_agent("s", helper("read:documents").access_token)
    assert refused.value.code == "invalid_grant"
    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        chain.exchange("s", scopes=["write:documents"], resource=resource)
    assert refused.value.code == "invalid_scope"
    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        chain.exchange("s", resource="https://nobody.test/mcp")
    assert refused.value.code == "invalid_target"

    # A sub-agent gets there by the token that is for this server.
    chain.exchange("s")
    sub = helper("read:documents")
    nested = claims(chain.delegate_to_sub_agent("s", sub.access_token, resource=resource))
    assert nested["aud"] == resource and nested["client_id"] == sub.client_id
    assert nested["delegation_depth"] == 2


def test_an_agent_that_may_not_delegate_is_told_so(server, agent_of):
    agent = agent_of(capabilities=["read:documents"], redirectUris=[REDIRECT])
    assert agent.authenticate()
    chain = consented(server, agent, ["read:documents"])
    with pytest.raises(LumoAuthPermissionDeniedError, match="^Token exchange forbidden .*: The agent holds no capability to act for others") as refused:
        chain.exchange("s")
    assert refused.value.body["error"] == "delegation_not_allowed"


def test_a_token_of_alice_alone_is_no_consent_to_another_agent(server, orchestrator, agent_of):
    chain = consented(server, orchestrator, ["read:documents"])
    other = agent_of(capabilities=["read:documents", "delegate:on_behalf"])
    assert other.authenticate()
    stranger = DelegationChain(other)
    stranger.set_user_token("s", chain._user_tokens["s"].access_token)
    with pytest.raises(LumoAuthPermissionDeniedError) as refused:
        stranger.exchange("s")
    assert refused.value.body["error"] == "consent_required"


def test_saying_no_gives_no_code(server, orchestrator):
    chain = DelegationChain(orchestrator, redirect_uri=REDIRECT)
    browser = Browser(server)
    page = browser.sign_in(browser.open(chain.get_consent_url("s", ["read:documents"])))
    assert orchestrator.record["name"] in page.text and "read:documents" in page.text
    landed = browser.submit(page, button="deny")
    assert isinstance(landed, Outside)
    assert landed.query["error"] == "access_denied" and "code" not in landed.query
    assert not chain.handle_consent_callback("s", "nothing")


def test_a_code_works_once_and_its_second_use_ends_what_it_gave(server, orchestrator):
    chain = DelegationChain(orchestrator, redirect_uri=REDIRECT)
    landed = allow(Browser(server), chain.get_consent_url("s", ["read:documents"]))
    assert chain.handle_consent_callback("s", landed.query["code"])
    delegated = chain.exchange("s")
    assert introspect(server, delegated, orchestrator)["active"]
    assert not DelegationChain(orchestrator, redirect_uri=REDIRECT).handle_consent_callback(
        "t", landed.query["code"]
    )
    assert introspect(server, delegated, orchestrator) == {"active": False}


def test_an_expired_user_token_is_refreshed_by_the_sdk(server, orchestrator):
    chain = consented(server, orchestrator, ["read:documents"])
    before = chain._user_tokens["s"]
    assert before.refresh_token
    before.expires_at = 1
    chain.exchange("s")
    after = chain._user_tokens["s"]
    assert after.refresh_token and after.refresh_token != before.refresh_token


def test_the_environment_agents_of_the_fixtures_work_as_documented(environment):
    agent = LumoAuthAgent()
    assert agent.authenticate()
    chain = consented(environment, agent, ["read:documents"])
    assert chain.exchange("s")
