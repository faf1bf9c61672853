"""The official SDK's AAuth client, unmodified."""

import base64
import json
import uuid
from urllib.parse import urlencode

import pytest
import requests
from aauth_parties import Agent, Key, Resource, claims
from browser import Browser, Outside, allow
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from lumoauth.aauth import AAuthClient
from lumoauth.errors import LumoAuthApiError

REDIRECT = "http://127.0.0.1/aauth-callback"


def base_of(server):
    return f"{server.url}/orgs/{server.org}/api/v1"


def client_of(server, agent, key=None):
    return AAuthClient(
        agent.identifier, (key or agent.key).pem, org_id=server.org, base_url=server.url
    )


def token_of_alice(server):
    """Alice's own token, of an application that she uses."""
    back = "http://127.0.0.1/app"
    body = {
        "name": f"App {uuid.uuid4().hex}",
        "redirectUris": [back],
        "grantTypes": ["authorization_code"],
        "isConfidential": True,
        "allowedScopes": ["openid"],
    }
    made = server.admin("POST", "/clients", json=body)
    assert made.status_code == 201, made.text
    app = made.json()["data"]
    query = {"response_type": "code", "client_id": app["clientId"], "redirect_uri": back, "scope": "openid"}
    landed = allow(Browser(server), f"{base_of(server)}/oauth/authorize?{urlencode(query)}")
    form = {"grant_type": "authorization_code", "code": landed.query["code"], "redirect_uri": back}
    answer = requests.post(
        f"{base_of(server)}/oauth/token", data=form, auth=(app["clientId"], app["secret"]), timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def decide(server, request_token, decision, expect=200):
    """What a program of alice's answers for her."""
    response = requests.post(
        f"{base_of(server)}/aauth/consent",
        json={"request_token": request_token, "decision": decision},
        headers={"Authorization": f"Bearer {token_of_alice(server)}"},
        timeout=30,
    )
    assert response.status_code == expect, response.text
    return response.json()


def verified(server, token):
    """The claims of an auth token, checked as a resource checks them."""
    header, payload, signature = token.split(".")
    decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    kid = json.loads(decode(header))["kid"]
    assert json.loads(decode(header)) == {"typ": "auth+jwt", "alg": "EdDSA", "kid": kid}
    metadata = requests.get(f"{base_of(server)}/.well-known/aauth-issuer", timeout=30).json()
    keys = requests.get(metadata["jwks_uri"], timeout=30).json()["keys"]
    [key] = [key for key in keys if key["kid"] == kid]
    public = Ed25519PublicKey.from_public_bytes(decode(key["x"]))
    public.verify(decode(signature), f"{header}.{payload}".encode())
    return claims(token)


@pytest.fixture
def agent(server):
    return Agent(server, redirect_uris=[REDIRECT])


@pytest.fixture
def client(server, agent):
    return client_of(server, agent)


def test_the_issuer_is_found_at_the_root(server, client):
    found = client.discover_issuer()
    assert found["issuer"] == base_of(server)
    assert found["agent_token_endpoint"] == client._token_url()
    assert found["token_signing_algs_supported"] == ["EdDSA"]
    assert found["request_types_supported"] == ["auth", "code", "exchange", "refresh"]
    assert requests.get(found["jwks_uri"], timeout=30).json()["keys"]


def test_a_key_pair_that_the_client_makes_is_good_for_registration(server):
    pem, jwks = AAuthClient.generate_keypair()
    agent = Agent(server, jwks=jwks)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    agent.key = Key(private=load_pem_private_key(pem.encode(), password=None))
    granted = client_of(server, agent).request_authorization(
        Resource(server).token(agent), "read", agent_token=agent.token()
    )
    assert granted["scope"] == "read"


def test_a_resource_that_asks_for_nobody_is_open_at_once(server, agent, client):
    resource = Resource(server)
    granted = client.request_authorization(
        resource.token(agent), "read write", agent_token=agent.token()
    )
    assert granted["request_type"] == "auth" and granted["token_type"] == "auth+jwt"
    assert granted["access_token"] == granted["auth_token"] and granted["expires_in"] == 3600
    assert granted["scope"] == "read write"
    found = verified(server, granted["auth_token"])
    assert found["iss"] == base_of(server) and found["aud"] == resource.identifier
    assert found["agent"] == agent.identifier and found["scope"] == "read write"
    assert found["cnf"]["jwk"]["x"] == agent.key.x and found["cnf"]["jkt"] == agent.key.thumbprint
    assert found["exp"] - found["iat"] == 3600 and found["auth_level"] == "none"
    assert "sub" not in found and "agent_delegate" not in found and "act" not in found

    again = client.refresh(
        granted["refresh_token"], resource.token(agent), scope="read", agent_token=agent.token()
    )
    assert again["request_type"] == "refresh" and again["scope"] == "read"
    assert "refresh_token" not in again
    # It is not rotated: it works for as long as it lives.
    again = client.refresh(granted["refresh_token"], resource.token(agent), agent_token=agent.token())
    assert again["scope"] == "read write"


@pytest.mark.parametrize("door", ["json", "page"])
def test_a_person_agrees_and_the_agent_gets_a_code_and_then_tokens(server, agent, client, door):
    resource = Resource(server, "authorized")
    needed = client.request_authorization(
        resource.token(agent), "read", agent_token=agent.token(), redirect_uri=REDIRECT
    )
    assert needed["authorization_required"] is True
    assert needed["request_token"].startswith("areq_")
    assert needed["auth_url"] == (
        f"{base_of(server)}/aauth/agent/auth?request_token={needed['request_token']}"
    )
    if door == "json":
        decided = decide(server, needed["request_token"], "approve")
        assert decided["redirect_to"].startswith(f"{REDIRECT}?code={decided['code']}")
        code = decided["code"]
    else:
        browser = Browser(server)
        page = browser.open(needed["auth_url"] + "&state=s1")
        page = browser.sign_in(page)
        for text in [
            agent.record["name"],
            agent.identifier,
            resource.record["name"],
            resource.identifier,
            "Look at everything",
            "alice",
        ]:
            assert text.lower() in page.text.lower(), text
        landed = browser.submit(page, button="approve")
        assert isinstance(landed, Outside) and landed.url.startswith(REDIRECT + "?")
        assert landed.query["state"] == "s1" and landed.query["iss"] == base_of(server)
        code = landed.query["code"]

    tokens = client.exchange_code(code, REDIRECT, agent_token=agent.token())
    assert tokens["request_type"] == "code" and tokens["scope"] == "read"
    found = verified(server, tokens["auth_token"])
    alice = server.admin("GET", f"/users/{server.variables['USER_EMAIL']}").json()["data"]
    assert found["sub"] == alice["id"] and found["auth_level"] == "authorized"

    again = client.refresh(tokens["refresh_token"], resource.token(agent, scope="read"), agent_token=agent.token())
    assert verified(server, again["auth_token"])["sub"] == alice["id"]

    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        client.refresh(tokens["refresh_token"], resource.token(agent), scope="write", agent_token=agent.token())
    assert refused.value.body["error"] == "invalid_scope"

    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        client.exchange_code(code, REDIRECT, agent_token=agent.token())
    assert refused.value.body["error"] == "invalid_grant"
    # Whoever used it the first time may have been a thief.
    with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
        client.refresh(tokens["refresh_token"], resource.token(agent, scope="read"), agent_token=agent.token())
    assert refused.value.body["error"] == "invalid_grant"


def test_what_a_person_agreed_to_before_is_not_asked_again(server, agent, client):
    resource = Resource(server, "authorized")
    browser = Browser(server)

    def ask(scope):
        return client.request_authorization(
            resource.token(agent), scope, agent_token=agent.token(), redirect_uri=REDIRECT
        )

    allow(browser, ask("read")["auth_url"])
    # No silent grant: nobody knows for whom the agent asks. But her browser goes straight on.
    needed = ask("read")
    assert needed["authorization_required"] is True
    landed = browser.open(needed["auth_url"])
    assert isinstance(landed, Outside), landed.text
    assert client.exchange_code(landed.query["code"], REDIRECT, agent_token=agent.token())["scope"] == "read"
    # More than before is a new question.
    page = browser.open(ask("read write")["auth_url"])
    assert not isinstance(page, Outside)


def test_a_person_says_no(server, agent, client):
    resource = Resource(server, "authorized")
    needed = client.request_authorization(
        resource.token(agent), "read", agent_token=agent.token(), redirect_uri=REDIRECT
    )
    decided = decide(server, needed["request_token"], "deny")
    assert "code" not in decided and "error=access_denied" in decided["redirect_to"]
    decide(server, needed["request_token"], "approve", expect=409)

    needed = client.request_authorization(
        resource.token(agent), "read", agent_token=agent.token(), redirect_uri=REDIRECT
    )
    browser = Browser(server)
    landed = browser.submit(browser.sign_in(browser.open(needed["auth_url"])), button="deny")
    assert landed.query["error"] == "access_denied" and "code" not in landed.query


def test_a_code_that_goes_elsewhere_is_used_up(server, agent, client):
    resource = Resource(server, "authorized")
    needed = client.request_authorization(
        resource.token(agent), "read", agent_token=agent.token(), redirect_uri=REDIRECT
    )
    code = decide(server, needed["request_token"], "approve")["code"]
    for redirect_uri in ["http://127.0.0.1/other", REDIRECT]:
        with pytest.raises(LumoAuthApiError, match="HTTP 400") as refused:
            client.exchange_code(code, redirect_uri, agent_token=agent.token())
        assert refused.value.body["error"] == "invalid_grant"


def test_a_delegate_signs_with_its_own_key(server):
    agent = Agent(server, delegation=True)
    delegate = Key("d")
    resource = Resource(server)
    client = client_of(server, agent, delegate)
    granted = client.request_authorization(
        resource.token(agent, key=delegate), "read", agent_token=agent.token(key=delegate, sub="worker-1")
    )
    found = verified(server, granted["auth_token"])
    assert found["agent_delegate"] == "worker-1" and found["cnf"]["jkt"] == delegate.thumbprint


def test_an_unusable_signature_is_no_consent_url(server, agent):
    """The client takes every 401 for a question to a person; there must be nothing to follow."""
    stranger = client_of(server, agent, Key())
    answer = stranger.request_authorization(
        Resource(server).token(agent), "read", agent_token=agent.token()
    )
    assert answer == {"authorization_required": True, "auth_url": "", "request_token": ""}


def signed(client, agent, resource, **changed):
    body = json.dumps({"request_type": "auth", "resource_token": resource.token(agent), "scope": "read"})
    headers = client.sign_request("POST", client._token_url(), body=body.encode(), agent_token=agent.token())
    return body, headers


def test_a_request_counts_once(server, agent, client):
    body, headers = signed(client, agent, Resource(server))
    send = lambda: requests.post(client._token_url(), data=body, headers=headers, timeout=30)
    assert send().status_code == 200
    again = send()
    assert again.status_code == 401
    assert again.json()["error"] == "authentication_required"
    assert again.json()["details"]["reason"] == "invalid_signature"
    assert again.json()["auth_server"] == base_of(server)
    assert "auth_url" not in again.json() and again.headers["Agent-Auth"] == "httpsig"


@pytest.mark.parametrize("part", ["body", "digest", "type", "input", "signature", "authorization", "query"])
def test_what_was_signed_is_what_arrives(server, agent, client, part):
    body, headers = signed(client, agent, Resource(server))
    url = client._token_url()
    if part == "body":
        body = body.replace('"read"', '"write"')
    elif part == "digest":
        headers["Content-Digest"] = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"
    elif part == "type":
        headers["Content-Type"] = "application/json; charset=utf-8"
    elif part == "input":
        headers["Signature-Input"] = headers["Signature-Input"].replace('nonce="', 'nonce="A')
    elif part == "signature":
        headers["Signature"] = headers["Signature"].replace("sig1=:", "sig1=:A", 1)[:-2] + ":"
    elif part == "authorization":
        headers["Authorization"] = f"Bearer {uuid.uuid4().hex}"
    elif part == "query":
        url += "?x=1"
    refused = requests.post(url, data=body, headers=headers, timeout=30)
    assert refused.status_code == (400 if part == "query" else 401), refused.text
