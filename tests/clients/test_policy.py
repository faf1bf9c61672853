"""The official SDK's permissions, zanzibar and abac, unmodified, and the generated client on the same routes."""

import uuid
from urllib.parse import urlencode

import pytest
import requests
from browser import Browser, allow
from lumoauth import LumoAuth
from lumoauth.errors import (
    LumoAuthApiError,
    LumoAuthAuthenticationError,
    LumoAuthNotFoundError,
    LumoAuthPermissionDeniedError,
)
from lumoauth_api_client import models
from lumoauth_api_client.api import AdminAbacApi, AdminPermissionsApi, AdminRolesApi

REDIRECT = "http://127.0.0.1/callback"


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def with_key(server):
    return LumoAuth(base_url=server.url, org_id=server.org, api_key=server.api_key)


def as_alice(server, scope):
    """The SDK with a token of the administrator of the fixtures, in person."""
    base = f"{server.url}/orgs/{server.org}/api/v1"
    client_id = server.variables["LUMOAUTH_APP_CLIENT_ID"]
    query = {"response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT, "scope": scope}
    landed = allow(Browser(server), f"{base}/oauth/authorize?{urlencode(query)}")
    form = {"grant_type": "authorization_code", "code": landed.query["code"], "redirect_uri": REDIRECT}
    secret = server.variables["LUMOAUTH_APP_CLIENT_SECRET"]
    response = requests.post(f"{base}/oauth/token", data=form, auth=(client_id, secret), timeout=30)
    assert response.status_code == 200, response.text
    token = response.json()["access_token"]
    return LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: token)


def write(server, method, path, body):
    url = f"{server.url}/orgs/{server.org}/api/v1{path}"
    response = requests.request(method, url, json=body, headers={"X-API-Key": server.api_key}, timeout=30)
    assert response.status_code < 300, response.text
    return response.json()


def test_permissions_see_roles(server, agent_of):
    action = f"{unique('doc')}.read"
    agent = agent_of(capabilities=["a:1"])
    assert agent.authenticate()
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    agent_id = agent.record["agentId"]
    assert client.permissions.check(action) is False
    assert agent.is_allowed(action) is False
    role = unique("role")
    write(server, "POST", "/admin/roles", {"name": "Role", "slug": role, "permissions": [action]})
    write(server, "POST", f"/admin/agents/{agent_id}/roles", {"roles": [role]})
    assert client.permissions.check(action) is True
    assert client.permissions.check_bulk([action, "no:no"])["results"] == {action: True, "no:no": False}
    assert client.permissions.list_slugs() == {"a:1", action}
    assert with_key(server).permissions.check(action, agent_id=agent_id) is True
    answer = agent.ask(action, {"id": "d-1"})
    assert (answer["allowed"], answer["decided_by"]) == (True, "role")
    assert agent.get_agent_info()["roles"] == [role]


def test_permissions_of_a_person(server):
    action = f"{unique('doc')}.read"
    alice = as_alice(server, "authz:read openid")
    assert alice.permissions.check(action) is False
    role = unique("role")
    write(server, "POST", "/admin/roles", {"name": "Role", "slug": role, "permissions": [action]})
    write(server, "POST", f"/admin/roles/{role}/users", {"user": server.variables["USER_EMAIL"]})
    assert alice.permissions.check(action) is True
    assert action in alice.permissions.list_slugs()


def test_zanzibar(server, agent_of):
    client = with_key(server)
    document, team = f"document:{unique('d')}", f"team:{unique('t')}"
    tuples = [f"{document}#editor@{team}#member", f"{team}#admin@user:alice", f"{document}#owner@user:bob"]
    write(server, "POST", "/zanzibar/tuples", {"tuples": tuples})
    assert client.zanzibar.check(document, "viewer", "user:alice") is True
    assert client.zanzibar.is_viewer(document, "user:bob") and client.zanzibar.is_owner(document, "user:bob")
    assert client.zanzibar.is_owner(document, "user:alice") is False
    assert client.zanzibar.is_member(team, "user:alice") and client.zanzibar.is_admin(team, "user:alice")
    assert client.zanzibar.is_editor(document, f"{team}#member") is True
    detailed = client.zanzibar.check_detailed(document, "viewer", "user:eve")
    assert (detailed["allowed"], detailed["subject"], detailed["object"]) == (False, "user:eve", document)
    tree = client.zanzibar.expand(document, "viewer")
    assert tree["type"] == "union" and tree["object"] == document
    with pytest.raises(LumoAuthApiError) as caught:
        client.zanzibar.check("unicorn:1", "viewer", "user:alice")
    assert (caught.value.status_code, caught.value.code) == (400, "ZANZIBAR_CHECK_FAILED")

    agent = agent_of()
    assert agent.authenticate()
    own = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    itself = f"agent:{agent.record['slug']}"
    assert own.zanzibar.check(document, "viewer", itself) is False
    write(server, "POST", "/zanzibar/tuples", {"object": document, "relation": "viewer", "subject": itself})
    assert own.zanzibar.check(document, "viewer", itself) is True
    for refused in [lambda: own.zanzibar.check(document, "viewer", "user:alice"), lambda: own.zanzibar.expand(document, "viewer")]:
        with pytest.raises(LumoAuthPermissionDeniedError):
            refused()


def test_abac(server, agent_of):
    kind, slug, own_slug = unique("kind"), unique("level"), unique("department")
    for name, of in [(slug, "resource"), (own_slug, "user")]:
        write(server, "POST", "/abac/attributes", {"name": name, "slug": name, "attributeType": of})
    conditions = {"operator": "AND", "conditions": [
        {"subject": f"resource.{slug}", "operator": "equals", "value": "open"},
        {"subject": "environment.purpose", "operator": "in", "value": ["audit"]},
    ]}
    policy = {"name": unique("policy"), "resourceType": kind, "action": "read", "effect": "allow", "conditions": conditions}
    made = write(server, "POST", "/abac/policies", policy)["data"]

    alice = as_alice(server, "abac:read abac:write openid")
    alice.abac.set_resource_attribute(kind, "d 1", slug, "open")
    assert alice.abac.get_resource_attributes(kind, "d 1")["attributes"][slug] == "open"
    user = alice.abac.get_my_attributes()["user_id"]
    alice.abac.set_user_attribute(user, own_slug, "law")
    assert alice.abac.get_my_attributes()["attributes"][own_slug] == "law"
    assert {slug, own_slug} <= {item["slug"] for item in alice.abac.get_attribute_definitions()}
    assert slug not in {item["slug"] for item in alice.abac.get_attribute_definitions("user")}
    with pytest.raises(LumoAuthNotFoundError):
        alice.abac.set_user_attribute(user, "no-such", 1)

    agent = agent_of()
    assert agent.authenticate()
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    answer = client.abac.check(kind, "read", "d 1", {"purpose": "audit", "ip": "10.0.0.1"})
    assert answer["allowed"] is True
    assert answer["matchedPolicies"] == [{"id": made["id"], "name": made["name"]}]
    assert client.abac.is_allowed(kind, "read", "d 1") is False
    checks = [{"resource_type": kind, "action": "read", "resource_id": "d 1"}, {"resource_type": kind, "action": "write"}]
    results = client.abac.check_bulk(checks, {"purpose": "audit"})["results"]
    assert [item["allowed"] for item in results] == [True, False]
    with pytest.raises(LumoAuthPermissionDeniedError):
        client.abac.set_user_attribute(user, own_slug, "x")
    with pytest.raises(LumoAuthAuthenticationError):
        with_key(server).abac.check(kind, "read")


def test_the_generated_client_reads_what_there_is(server, agent_of):
    client = with_key(server).api
    action, role = f"{unique('doc')}.read", unique("role")
    write(server, "POST", "/admin/roles", {"name": "Role", "slug": role, "permissions": [action]})
    roles = AdminRolesApi(client).admin_roles_list(server.org)
    assert any(item.slug == role for item in roles.data)
    assert AdminRolesApi(client).admin_roles_get(server.org, role).data.permissions[0].slug == action
    replaced = server.admin("PUT", f"/roles/{role}/permissions", json={"permissions": [action]})
    assert models.AdminRolesCreateResponse.from_json(replaced.text).data.permissions[0].slug == action
    listed = AdminPermissionsApi(client).admin_permissions_list(server.org).data
    assert any(item.slug == "abac.manage" and item.is_system for item in listed)
    assert AdminPermissionsApi(client).admin_permissions_get(server.org, action).data.slug == action
    policy = {"name": unique("policy"), "resourceType": "x", "action": "y", "effect": "deny", "conditions": {}}
    made = write(server, "POST", "/abac/policies", policy)["data"]
    assert models.AbacPolicy.from_dict(made).id == made["id"]
    assert AdminAbacApi(client).abac_policies_get(server.org, str(made["id"])).data.name == made["name"]
    user = server.variables["USER_EMAIL"]
    write(server, "POST", f"/admin/roles/{role}/users", {"user": user})
    assert AdminRolesApi(client).admin_roles_get_users(server.org, role).data
    evaluation = {
        "subject": {"type": "user", "id": user},
        "action": {"name": "read"},
        "resource": {"type": action.split(".")[0], "id": "1"},
    }
    url = f"{server.url}/api/v1/authz/v1/evaluation"
    answer = requests.post(url, json=evaluation, headers={"X-API-Key": server.api_key}, timeout=30).json()
    assert models.AuthZenDecision.from_dict(answer).decision is True
