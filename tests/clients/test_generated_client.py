"""The generated client `lumoauth-api-client`: its pydantic models are strict about what they read."""

import json
import uuid

import lumoauth_api_client
import pytest
from lumoauth import LumoAuth
from lumoauth_api_client import exceptions, models
from lumoauth_api_client.api import AdminAgentsApi, AdminAuditLogsApi, AdminMcpApi, AdminOAuthClientsApi, WellKnownApi
from lumoauth_api_client.models import (
    AdminAgentsCreateRequest,
    AdminAgentsGenerateTokenRequest,
    AdminAgentsSetScopesRequest,
    PutAdminAgentsUpdateRequest,
)

PAGINATION = {"total", "page", "limit", "totalPages", "hasNextPage", "hasPreviousPage"}


@pytest.fixture
def client(server):
    """Configured by the SDK, as its users get it."""
    return LumoAuth(base_url=server.url, org_id=server.org, api_key=server.api_key).api


@pytest.fixture
def agents(client):
    return AdminAgentsApi(client)


@pytest.fixture
def created(server, agents):
    request = AdminAgentsCreateRequest(
        name=f"Generated {uuid.uuid4().hex}", description="made by the generated client", capabilities=["read:a"]
    )
    return agents.admin_agents_create(server.org, request)


def test_create_returns_the_agent_and_its_secret(created):
    assert created.message
    data = created.data
    assert isinstance(data["id"], str) and data["agentId"].startswith("agt_")
    assert data["clientSecret"] and data["capabilities"] == ["read:a"]
    assert data["description"] == "made by the generated client"


def test_list_and_get(server, agents, created):
    page = agents.admin_agents_list(server.org)
    assert page.resource_type == "agents"
    assert set(page.pagination) == PAGINATION and page.meta == page.pagination
    assert page.data and all(isinstance(item["name"], str) for item in page.data)
    one = agents.admin_agents_get(server.org, created.data["agentId"])
    assert one.data["id"] == created.data["id"]
    assert "clientSecret" not in one.data


def test_put_and_patch(server, agents, created):
    agent_id = created.data["agentId"]
    changed = agents.put_admin_agents_update(server.org, agent_id, PutAdminAgentsUpdateRequest(description="put"))
    assert changed.data["description"] == "put" and changed.message
    assert changed.data["capabilities"] == ["read:a"]
    changed = agents.patch_admin_agents_update(
        server.org, agent_id, PutAdminAgentsUpdateRequest(capabilities=["read:a", "write:b"])
    )
    assert sorted(changed.data["capabilities"]) == ["read:a", "write:b"]


def test_scopes(server, agents, created):
    agent_id = created.data["agentId"]
    scopes = agents.admin_agents_get_scopes(server.org, agent_id)
    assert scopes.data == ["read:a"] and set(scopes.pagination) == PAGINATION
    request = AdminAgentsSetScopesRequest(scopes=["write:b"])
    replaced = agents.admin_agents_set_scopes(server.org, agent_id, request)
    assert replaced.data == ["write:b"] and replaced.message


def test_rotate_credentials_and_key(server, agents, created):
    agent_id = created.data["agentId"]
    rotated = agents.admin_agents_rotate_credentials(server.org, agent_id)
    assert rotated.data["clientSecret"] != created.data["clientSecret"] and rotated.message
    key = agents.admin_agents_agents_rotate_key(server.org, agent_id)
    assert key.api_key.startswith("agk_") and key.message
    assert agents.admin_agents_revoke_key(server.org, agent_id).message


def test_status_routes(server, agents, created):
    agent_id = created.data["agentId"]
    assert agents.admin_agents_agents_disable(server.org, agent_id).agent["isActive"] is False
    assert agents.admin_agents_agents_enable(server.org, agent_id).agent["isActive"] is True
    assert agents.admin_agents_deactivate(server.org, agent_id).data["status"] == "inactive"
    assert agents.admin_agents_activate(server.org, agent_id).data["status"] == "active"


def test_portal_token(server, agents, created):
    request = AdminAgentsGenerateTokenRequest(expires_in=600, scopes=["read:a"])
    data = agents.admin_agents_generate_token(server.org, created.data["agentId"], request).data
    assert data.expires_in == 600 and data.scopes == ["read:a"]
    assert data.token_type == "Bearer" and data.access_token.count(".") == 2


def test_portal_token_beyond_the_agent_is_a_400(server, agents, created):
    request = AdminAgentsGenerateTokenRequest(scopes=["admin:everything"])
    with pytest.raises(exceptions.BadRequestException):
        agents.admin_agents_generate_token(server.org, created.data["agentId"], request)


def test_delete_and_not_found(server, agents, created):
    agent_id = created.data["agentId"]
    assert agents.admin_agents_delete(server.org, agent_id).message
    for call in [agents.admin_agents_get, agents.admin_agents_delete, agents.admin_agents_activate]:
        with pytest.raises(exceptions.NotFoundException):
            call(server.org, agent_id)


def test_credentials_are_judged_with_typed_exceptions(server, created):
    def agents_with(**arguments):
        api = LumoAuth(base_url=server.url, org_id=server.org, **arguments).api
        return AdminAgentsApi(api)

    with pytest.raises(exceptions.UnauthorizedException):
        agents_with(api_key="lmk_unknown").admin_agents_list(server.org)
    other = server.variables["OTHER_API_KEY"]
    with pytest.raises((exceptions.ForbiddenException, exceptions.UnauthorizedException)):
        agents_with(api_key=other).admin_agents_list(server.org)
    record = server.create_agent(capabilities=["*"])
    auth = LumoAuth(base_url=server.url, org_id=server.org).auth
    token = auth.client_credentials(record["clientId"], record["clientSecret"])["access_token"]
    with pytest.raises(exceptions.ForbiddenException):
        agents_with(token_provider=lambda: token).admin_agents_list(server.org)


def test_bearer_api_key_is_accepted_on_admin_routes(server, created):
    configuration = lumoauth_api_client.Configuration(host=server.url, access_token=server.api_key)
    agents = AdminAgentsApi(lumoauth_api_client.ApiClient(configuration))
    assert agents.admin_agents_get(server.org, created.data["agentId"]).data["id"] == created.data["id"]


def test_mcp_servers(server, client):
    # This operation takes no body in the generated client, so the server is made as its documentation says.
    body = {
        "name": f"Generated {uuid.uuid4().hex}",
        "resource_uri": f"https://{uuid.uuid4().hex}.test/mcp",
        "scopes_supported": ["mcp:read"],
        "scope_descriptions": {"mcp:read": "Read"},
    }
    answer = server.admin("POST", "/mcp/servers", json=body)
    assert answer.status_code == 201, answer.text
    made = models.AdminMcpServersCreateResponse.from_json(answer.text)
    assert isinstance(made.data.id, int) and made.data.server_id.startswith("mcp_")
    assert made.data.scope_descriptions == {"mcp:read": "Read"} and made.message

    mcp = AdminMcpApi(client)
    read = mcp.admin_mcp_servers_get(server.org, made.data.server_id)
    assert read.data.resource_uri == body["resource_uri"] and read.data.created_at is not None
    page = mcp.admin_mcp_servers_list(server.org)
    assert page.data and set(page.pagination.to_dict()) == PAGINATION
    assert page.meta.total == page.pagination.total
    assert mcp.admin_mcp_servers_delete(server.org, made.data.server_id).message
    with pytest.raises(exceptions.NotFoundException):
        mcp.admin_mcp_servers_get(server.org, made.data.server_id)


def test_mcp_server_without_a_body_is_a_422(server, client):
    with pytest.raises(exceptions.ApiException) as caught:
        AdminMcpApi(client).admin_mcp_servers_create(server.org)
    assert caught.value.status in (400, 422)
    assert isinstance(json.loads(caught.value.body)["error"], str)


def test_clients(server, client):
    body = {"name": f"Generated {uuid.uuid4().hex}", "allowedScopes": ["read:a"], "requiresPkce": True}
    made = server.admin("POST", "/clients", json=body).json()["data"]
    clients = AdminOAuthClientsApi(client)
    one = clients.get_client(server.org, str(made["id"])).data
    assert (one.client_id, one.is_public, one.requires_pkce) == (made["clientId"], False, True)
    assert one.scopes == ["read:a"]
    assert clients.list_clients(server.org).data


def test_audit_logs(server, client, created):
    logs = AdminAuditLogsApi(client)
    page = logs.admin_audit_logs_list(server.org)
    assert page.data and page.pagination == page.meta
    assert all(isinstance(entry.id, int) and entry.created_at is not None for entry in page.data)
    one = logs.admin_audit_logs_get(server.org, str(page.data[0].id))
    assert one.data.id == page.data[0].id and one.data.status in ("success", "failure")
    actions = logs.admin_audit_logs_actions(server.org)
    assert "agent.created" in actions.data
    stats = logs.admin_audit_logs_stats(server.org)
    assert stats.data.total > 0 and stats.data.by_action["agent.created"] > 0
    assert stats.data.period.var_from < stats.data.period.to


def test_audit_export_satisfies_the_detailed_model(server, created):
    answer = server.admin("GET", "/audit-logs/export", params={"format": "json", "targetId": created.data["agentId"]})
    export = models.AdminAuditLogsExportResponse.from_json(answer.text)
    assert [entry.action for entry in export.data] == ["agent.created"]
    assert export.data[0].target_id == created.data["agentId"]


def test_well_known_documents_satisfy_the_models(server, client):
    well_known = WellKnownApi(client)
    metadata = well_known.get_authorization_server_metadata(server.org)
    issuer = f"{server.url}/orgs/{server.org}/api/v1"
    assert metadata.issuer == issuer
    assert metadata.token_endpoint == f"{issuer}/oauth/token"
    assert metadata.jwks_uri == f"{issuer}/.well-known/jwks.json"
    openid = well_known.get_openid_configuration(server.org)
    assert openid.issuer == issuer and openid.subject_types_supported
    keys = well_known.get_jwks(server.org).keys
    assert keys and all(key.kty in ("RSA", "EC") and key.kid and key.alg for key in keys)


def test_an_unknown_organization_is_not_found(client):
    with pytest.raises(exceptions.NotFoundException):
        WellKnownApi(client).get_authorization_server_metadata("nobody")
