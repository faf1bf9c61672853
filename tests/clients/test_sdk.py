"""The official SDK, unmodified, as the documentation of the agent registry uses it."""

import base64
import json
import os
import uuid

import pytest
from lumoauth import LumoAuth, LumoAuthAgent, require_capability
from lumoauth.errors import (
    LumoAuthApiError,
    LumoAuthAuthenticationError,
    LumoAuthNotFoundError,
    LumoAuthPermissionDeniedError,
    LumoAuthRateLimitError,
    LumoAuthValidationError,
)


def claims(token):
    """The claims of a JWT, unverified."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class ResearchAgent(LumoAuthAgent):
    """The documentation's subclass."""

    @require_capability("tool:search_web")
    def search(self, query):
        return self.api_request(
            "POST", f"/orgs/{self.org_id}/api/v1/tools/search", data={"query": query}
        )

    @require_capability("admin:everything")
    def rule_the_world(self):
        raise AssertionError("never reached")


def run_complete_example():
    """The complete example, with the https resource that SDK 1.1.0 wants in place of a URN."""
    # 1. Initialize - reads env vars automatically
    agent = LumoAuthAgent()

    # 2. Authenticate (OAuth 2.0 client credentials)
    if not agent.authenticate():
        raise SystemExit("Authentication failed - check credentials.")

    # 3. Inspect identity and capabilities
    info = agent.get_agent_info()
    print(f"Agent : {info['name']}")
    print(f"Caps  : {info['capabilities']}")
    budget = agent.get_budget_status()
    if budget:
        print(f"Tokens: {budget.get('tokens_used_today', 0)}/{budget.get('max_tokens_per_day', 'unlimited')}")

    # 4. Make authenticated API calls
    if agent.has_capability("read:documents"):
        resp = agent.api_request("GET", f"/orgs/{agent.org_id}/api/v1/documents/123")
        print(resp.status_code, resp.json())

    # 5. Token exchange for a secured MCP server
    mcp_token = agent.get_mcp_token(os.environ["MCP_RESOURCE"])
    if mcp_token:
        print("MCP token obtained - pass it to your MCP client.")
    return agent, resp, mcp_token


def test_complete_example_prints_name_capabilities_budget_and_mcp_token(environment, capsys):
    agent, response, mcp_token = run_complete_example()
    printed = capsys.readouterr().out
    assert "Agent : Research Assistant Bot" in printed
    for capability in ["read:documents", "write:documents", "tool:search_web", "mcp:financial"]:
        assert capability in printed
    assert "/100000" in printed
    assert "MCP token obtained" in printed
    assert claims(mcp_token)["aud"] == environment.variables["MCP_RESOURCE"]
    # The sample's documents are not ours; whoever parses the answer needs JSON.
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)
    assert agent.token_scopes


def test_wrong_secret_makes_authenticate_false(environment):
    agent = LumoAuthAgent(client_secret="wrong")
    assert agent.authenticate() is False
    # What the SDK does next without a token must be refused, or it would read what is not there.
    with pytest.raises(LumoAuthAuthenticationError):
        agent.is_budget_exhausted()


def test_unknown_client_makes_authenticate_false(environment):
    assert LumoAuthAgent(client_id="nobody").authenticate() is False


def test_suspended_agent_makes_authenticate_false(server, agent_of):
    agent = agent_of(capabilities=["read:a"])
    assert agent.authenticate()
    server.admin("POST", f"/agents/{agent.record['agentId']}/deactivate")
    assert agent.authenticate() is False
    with pytest.raises(LumoAuthAuthenticationError):
        agent.get_agent_info()


def test_scopes_can_be_requested_and_reauthentication_sends_them_back(agent_of):
    agent = agent_of(capabilities=["read:a", "write:b"])
    assert agent.authenticate(scopes=["read:a"])
    assert agent.token_scopes == ["read:a"]
    first = agent.access_token
    agent._token_expires_at = 0
    assert agent.ensure_authenticated()
    assert agent.access_token != first and agent.token_scopes == ["read:a"]
    assert agent.authenticate(scopes=["admin:everything"]) is False


def test_tokens_are_used_from_cache_until_shortly_before_they_end(agent_of):
    agent = agent_of(tokenLifetime=1)
    assert agent.authenticate()
    first = agent.access_token
    # The floor of the lifetime leaves time after the SDK's buffer of a minute.
    assert agent.ensure_authenticated() and agent.access_token == first


def test_granted_capability_lets_the_decorated_method_run(environment):
    agent = ResearchAgent()
    response = agent.search("q3")
    assert response.status_code == 404
    assert isinstance(response.json(), dict)


def test_missing_capability_makes_the_decorator_raise(environment):
    with pytest.raises(PermissionError, match="admin:everything"):
        ResearchAgent().rule_the_world()


def test_wildcards_of_the_organizations_vocabulary_are_listed_expanded(server, agent_of):
    scope = f"sdk{uuid.uuid4().hex}:read"
    body = {"name": "Vocabulary", "resource_uri": f"https://{uuid.uuid4().hex}.test", "scopes_supported": [scope]}
    assert server.admin("POST", "/mcp/servers", json=body).status_code == 201
    agent = agent_of(capabilities=[scope.split(":")[0] + ":*"])
    # `has_capability` compares strings exactly.
    assert agent.has_capability(scope.split(":")[0] + ":*")
    assert agent.has_capability(scope)


def test_budget_status_has_numbers_only(environment):
    agent = LumoAuthAgent()
    budget = agent.get_budget_status()
    assert budget["max_tokens_per_day"] == 100000
    assert budget["max_api_calls_per_hour"] == 500
    assert budget["allowed_models"] == ["gpt-4", "claude-3-sonnet"]
    assert all(value is not None for value in budget.values())
    assert agent.is_budget_exhausted() is False


def test_agent_without_a_policy_is_never_exhausted(agent_of):
    agent = agent_of()
    assert agent.get_budget_status() == {}
    assert agent.is_budget_exhausted() is False


def test_reported_usage_exhausts_the_budget_and_raising_it_reopens(server, agent_of):
    agent = agent_of(capabilities=["read:a"], budget_policy={"max_tokens_per_day": 100})
    assert agent.is_budget_exhausted() is False
    usage = f"/orgs/{agent.org_id}/api/v1/agents/me/usage"
    response = agent.api_request("POST", usage, data={"tokens": 100})
    assert response.status_code == 200 and response.json()["recorded"] is True
    agent.get_agent_info()
    assert agent.is_budget_exhausted() is True

    with pytest.raises(LumoAuthRateLimitError) as caught:
        agent.ask("read:a")
    assert caught.value.code == "budget_exceeded"
    assert caught.value.status_code == 429
    assert isinstance(caught.value.retry_after, float) and 0 < caught.value.retry_after <= 86400
    assert agent.get_mcp_token(server.variables["MCP_RESOURCE"]) is None
    # Still signs in: the documentation's framework sample does, before it looks at the budget.
    assert agent.authenticate()

    policy = {"max_tokens_per_day": 1000}
    server.admin("PUT", f"/agents/{agent.record['agentId']}", json={"budgetPolicy": policy})
    assert agent.ask("read:a")["allowed"] is True


def test_ask_and_is_allowed(agent_of):
    agent = agent_of(capabilities=["document.read"])
    answer = agent.ask("document.read", {"id": "doc_99"})
    assert answer["allowed"] is True and answer["action"] == "document.read"
    assert answer["context"]["id"] == "doc_99"
    assert answer["reason"] and answer["audit_id"]
    assert agent.is_allowed("document.read") is True
    assert agent.is_allowed("document.delete") is False


def test_identity_names_the_agent_and_its_workspace(server, agent_of):
    agent = agent_of(capabilities=["read:a"])
    identity = agent.get_identity()
    assert identity["identity"]["id"] == agent.record["agentId"]
    assert identity["identity"]["type"] == "agent"
    assert identity["capabilities"] == ["read:a"]
    assert identity["workspace"]["slug"] == server.org


def test_register_updates_the_own_record_and_widens_nothing(agent_of):
    agent = agent_of(capabilities=["read:a"])
    name = f"Document Analyser {uuid.uuid4().hex}"
    answer = agent.register(name, description="Reads", capabilities=["read:a", "write:b"])
    assert answer["agent_id"] == agent.record["agentId"]
    assert answer["requested_capabilities"] == ["write:b"]
    assert agent.get_agent_info()["name"] == name
    assert agent.has_capability("write:b") is False


def test_mcp_token_is_bound_and_refused_elsewhere(server, agent_of):
    resource = f"https://{uuid.uuid4().hex}.test/mcp"
    server.admin("POST", "/mcp/servers", json={"name": "Bound", "resource_uri": resource})
    agent = agent_of(capabilities=["read:a"])
    token = agent.get_mcp_token(resource)
    assert claims(token)["aud"] == resource
    with pytest.raises(LumoAuthAuthenticationError):
        LumoAuth(base_url=server.url, org_id=server.org).auth.userinfo(token)


def test_unknown_mcp_server_gives_no_token(agent_of):
    agent = agent_of()
    assert agent.get_mcp_token("https://nobody.test/mcp") is None
    with pytest.raises(LumoAuthApiError) as caught:
        agent.mcp.get_token("https://nobody.test/mcp", subject_token=agent.access_token)
    assert (caught.value.status_code, caught.value.code) == (400, "invalid_target")
    # SDK 1.1.0 refuses URNs before it sends anything.
    with pytest.raises(LumoAuthValidationError):
        agent.get_mcp_token("urn:mcp:financial-data")


def test_permissions_with_an_api_key_about_an_agent(server):
    record = server.create_agent(capabilities=["a:1", "b:2"])
    client = LumoAuth(base_url=server.url, org_id=server.org, api_key=server.api_key)
    agent_id = record["agentId"]
    assert client.permissions.check("a:1", agent_id=agent_id) is True
    assert client.permissions.check("c:3", agent_id=agent_id) is False
    assert client.permissions.check_any(["c:3", "b:2"], agent_id=agent_id) is True
    assert client.permissions.check_all(["a:1", "c:3"], agent_id=agent_id) is False
    bulk = client.permissions.check_bulk(["a:1", "c:3"], agent_id=agent_id)
    assert bulk["results"] == {"a:1": True, "c:3": False}
    assert isinstance(client.permissions.check("a:1"), bool)


def test_permissions_with_a_bearer_token_about_itself(server, agent_of):
    agent = agent_of(capabilities=["a:1", "b:2"])
    assert agent.authenticate()
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    assert client.permissions.check("a:1") is True
    assert client.permissions.check("c:3") is False
    assert client.permissions.check_any(["c:3", "b:2"]) is True
    assert client.permissions.check_all(["a:1", "b:2"]) is True
    assert client.permissions.check_bulk(["a:1", "c:3"])["results"] == {"a:1": True, "c:3": False}
    assert client.permissions.list_slugs() == {"a:1", "b:2"}
    assert client.agents.capabilities() == ["a:1", "b:2"]
    assert client.agents.budget() == {}


def test_errors_are_typed_as_the_sdk_documents_them(server, agent_of):
    with_key = LumoAuth(base_url=server.url, org_id=server.org, api_key=server.api_key)
    with pytest.raises(LumoAuthPermissionDeniedError) as caught:
        with_key.permissions.list()
    assert caught.value.required_scopes == ["authz:read"]
    assert caught.value.code == "forbidden"

    with pytest.raises(LumoAuthNotFoundError) as caught:
        with_key.permissions.check("a:1", agent_id="agt_doesnotexist")
    assert caught.value.code == "SUBJECT_NOT_FOUND"

    with pytest.raises(LumoAuthAuthenticationError):
        with_key.agents.me()
    with pytest.raises(LumoAuthAuthenticationError):
        with_key.agents.info()

    agent, other = agent_of(), agent_of()
    assert agent.authenticate()
    with_token = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    with pytest.raises(LumoAuthPermissionDeniedError) as caught:
        with_token.permissions.check("a:1", agent_id=other.record["agentId"])
    assert caught.value.code == "INSUFFICIENT_PERMISSIONS"

    with pytest.raises(LumoAuthNotFoundError):
        LumoAuth(base_url=server.url, org_id="nobody").auth.client_credentials("a", "b")
    with pytest.raises(LumoAuthApiError) as caught:
        with_key.auth.client_credentials(agent.client_id, agent.client_secret, scopes=["not:mine"])
    assert (caught.value.status_code, caught.value.code) == (400, "invalid_scope")


def test_revoke_ends_a_token(server, agent_of):
    agent = agent_of()
    assert agent.authenticate()
    client = LumoAuth(base_url=server.url, org_id=server.org)
    credentials = {"client_id": agent.client_id, "client_secret": agent.client_secret}
    assert client.auth.userinfo(agent.access_token)["agent_id"] == agent.record["agentId"]
    client.auth.revoke(agent.access_token, token_type_hint="access_token", **credentials)
    with pytest.raises(LumoAuthAuthenticationError):
        client.auth.userinfo(agent.access_token)


def test_what_the_sdk_did_is_in_the_audit_log(server, agent_of):
    agent = agent_of(capabilities=["read:a"])
    agent.ask("read:a")
    agent.get_mcp_token(server.variables["MCP_RESOURCE"])
    agent_id = agent.record["agentId"]
    actions = {entry["action"] for entry in server.audit(actorId=agent_id)}
    assert {"agent.authenticated", "agent.action"} <= actions
    agents = server.audit(actorId=agent_id, action="agent.authenticated")
    assert agents and all(entry["ipAddress"] == "127.0.0.1" for entry in agents)
