"""Certified JavaScript clients, unmodified: openid-client and oauth4webapi."""

import base64
import json
import os
import pathlib
import subprocess
import threading
import time

import pytest
from browser import Browser, allow
from cryptography.hazmat.primitives.asymmetric import ec

SCRIPTS = pathlib.Path(__file__).resolve().parent / "node"
if "LUMOAUTH_NODE_MODULES" not in os.environ:
    raise RuntimeError("LUMOAUTH_NODE_MODULES must name what tests/run installed of tests/clients/node")
MODULES = pathlib.Path(os.environ["LUMOAUTH_NODE_MODULES"])


def start(script, options):
    """Runs a script beside the installed modules, which are not in the source tree."""
    copy = MODULES.parent / script
    copy.write_text((SCRIPTS / script).read_text())
    return subprocess.Popen(
        ["node", str(copy), json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server, script, options):
    """The result of a script; where it wants a person, alice says yes."""
    process = start(script, options)
    # A script that hangs before its first line would hang the test.
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        answer = None
        line = process.stdout.readline()
        if line.startswith("open "):
            landed = allow(Browser(server), line[5:].strip())
            answer = landed.url + "\n"
            line = ""
        output, errors = process.communicate(answer, timeout=60)
        lines = [line, *output.splitlines()]
        results = [line[7:] for line in lines if line.startswith("result ")]
        assert process.returncode == 0 and results, errors
        return json.loads(results[0])
    finally:
        patience.cancel()
        process.kill()


def issuer(server):
    return f"{server.url}/orgs/{server.org}/api/v1"


def base64url(number):
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["oidc", "oauth2"])
@pytest.mark.parametrize("par", [False, True], ids=["plain", "par"])
@pytest.mark.parametrize("basic", [False, True], ids=["post", "basic"])
def test_openid_client_runs_the_whole_code_flow(server, algorithm, par, basic):
    variables = server.variables
    result = run(
        server,
        "openid-client.mjs",
        {
            "issuer": issuer(server),
            "clientId": variables["LUMOAUTH_APP_CLIENT_ID"],
            "clientSecret": variables["LUMOAUTH_APP_CLIENT_SECRET"],
            "redirectUri": "http://127.0.0.1:7777/callback",
            "scope": "openid profile email",
            "algorithm": algorithm,
            "par": par,
            "basic": basic,
        },
    )
    alice = server.admin("GET", f"/users/{variables['USER_EMAIL']}").json()["data"]
    assert result["claims"]["sub"] == alice["id"]
    assert result["active"]["active"] and result["active"]["username"] == variables["USER_EMAIL"]
    assert result["userinfo"]["email"] == variables["USER_EMAIL"]
    assert result["inactive"] == {"active": False}
    assert result["reused"] == "invalid_grant"


@pytest.mark.parametrize("par", [False, True], ids=["plain", "par"])
def test_openid_client_proves_itself_with_a_key(server, par):
    # Assertions say whole seconds, and one of the second in which the server began to remember may be older than that.
    time.sleep(max(0, server.up_since + 1.1 - time.monotonic()))
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": base64url(public.x), "y": base64url(public.y), "kid": "k1"}
    agent = server.create_agent(
        capabilities=["read:documents"],
        redirectUris=["http://127.0.0.1/callback"],
        jwks={"keys": [{**jwk, "use": "sig", "alg": "ES256"}]},
    )
    private = {**jwk, "d": base64url(key.private_numbers().private_value)}
    result = run(
        server,
        "openid-client.mjs",
        {
            "issuer": issuer(server),
            "clientId": agent["clientId"],
            "privateJwk": private,
            "redirectUri": "http://127.0.0.1/callback",
            "scope": "openid read:documents",
            "algorithm": "oauth2",
            "par": par,
        },
    )
    assert result["active"]["client_id"] == agent["clientId"]
    assert set(result["scope"].split()) == {"openid", "read:documents"}
    assert result["inactive"] == {"active": False}
    assert result["exchanged"]["scope"] == "read:documents"
    assert result["exchanged"]["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"


def test_oauth4webapi_accepts_metadata_tokens_and_exchange(server):
    variables = server.variables
    result = run(
        server,
        "oauth4webapi.mjs",
        {
            "issuer": issuer(server),
            "clientId": variables["AGENT_CLIENT_ID"],
            "clientSecret": variables["AGENT_CLIENT_SECRET"],
            "resource": variables["MCP_RESOURCE"],
        },
    )
    assert result["claims"]["aud"] == variables["MCP_RESOURCE"]
    assert result["wrong"] == "OAUTH_JWT_CLAIM_COMPARISON_FAILED"
    for kind in ["oidc", "oauth2"]:
        metadata = result["metadata"][kind]
        assert metadata["issuer"] == issuer(server)
        assert metadata["code_challenge_methods_supported"] == ["S256"]
        assert metadata["pushed_authorization_request_endpoint"]
        assert "private_key_jwt" in metadata["token_endpoint_auth_methods_supported"]
