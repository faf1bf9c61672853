"""Signed requests (RFC 9421) against implementations of others: `http-message-signatures` and `@hellocoop/httpsig`."""

import base64
import hashlib
import json
import os
import re
import subprocess
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
import requests
from aauth_parties import Agent, Key, Resource, claims
from conftest import binary
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, InvalidSignature, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from test_aauth_agent import notebook  # noqa: F401  (a fixture)
from test_node_clients import start

URL = "https://api.example.test/orders/a%2Fb?x=1&y=%20"


@dataclass
class Message:
    """A request, as `http-message-signatures` looks at one."""

    method: str
    url: str
    body: str = ""
    headers: dict = field(default_factory=dict)


@pytest.fixture(scope="session")
def sign():
    """Signs messages with our own core."""
    process = subprocess.Popen(
        [binary("lumoauth-sign", "lumoauth-tests")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def signed(key, message, profile="rfc", signature_key=None, keyid=None):
        asked = {
            "profile": profile,
            "method": message.method,
            "url": message.url,
            "headers": message.headers,
            "body": message.body,
            "pkcs8": key.pem,
            "signature_key": signature_key,
            "keyid": keyid,
        }
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        more = json.loads(process.stdout.readline())["headers"]
        names = {"content-digest": "Content-Digest", "signature-key": "Signature-Key"}
        names |= {"signature-input": "Signature-Input", "signature": "Signature"}
        return Message(
            message.method,
            message.url,
            message.body,
            {**message.headers, **{names[name]: value for name, value in more.items()}},
        )

    yield signed
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture
def key():
    return Key()


def verifier(key, kid=None):
    keys = MappingKeyResolver(public_keys={kid: key.private.public_key()}, private_keys={})
    return HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=keys)


class OnlyKey:
    """Whatever it is called."""

    def __init__(self, key):
        self.key = key

    def resolve_public_key(self, key_id):
        return self.key.private.public_key()

    def resolve_private_key(self, key_id):
        return self.key.private


def covered_by(result):
    return [name.strip('"') for name in result.covered_components if name != '"@signature-params"']


def verify(key, message):
    """What `http-message-signatures` says is covered, once it has verified the message."""
    found = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=OnlyKey(key)).verify(
        message, max_age=timedelta(seconds=60), body=message.body.encode() if message.body else None
    )
    assert len(found) == 1
    return covered_by(found[0])


def signed_by_another(key, message, covered, nonce=True, **more):
    """The message, signed by `http-message-signatures`."""
    signer = HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=OnlyKey(key))
    if nonce:
        more["nonce"] = base64.b64encode(os.urandom(16)).decode()
    if message.body:
        more["body"] = message.body.encode()
    signer.sign(message, key_id="k", covered_component_ids=covered, **more)
    return message


POST = {"Content-Type": "application/json", "Authorization": "Bearer abc"}


def test_the_example_of_the_standard(key):
    """RFC 9421 B.2.6: what the other implementation says of it is what we say in our own tests."""
    pem = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
    private = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    message = Message(
        "POST",
        "https://example.com/foo?param=Value&Pet=dog",
        '{"hello": "world"}',
        {
            "Host": "example.com",
            "Date": "Tue, 20 Apr 2021 02:07:55 GMT",
            "Content-Type": "application/json",
            "Content-Length": "18",
            "Signature-Input": 'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
            ';created=1618884473;keyid="test-key-ed25519"',
            "Signature": "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        },
    )
    found = verifier(Key(private=private), "test-key-ed25519").verify(message, max_age=None)
    assert covered_by(found[0]) == [
        "date",
        "@method",
        "@path",
        "@authority",
        "content-type",
        "content-length",
    ]
    message.headers["Date"] = "Tue, 20 Apr 2021 02:07:56 GMT"
    with pytest.raises(InvalidSignature):
        verifier(Key(private=private), "test-key-ed25519").verify(message, max_age=None)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", [URL, "https://API.example.test:443/", "http://127.0.0.1:8080/a?"])
def test_ours_are_verified_by_http_message_signatures(sign, key, method, url):
    body = '{"a": 1}' if method == "POST" else ""
    headers = dict(POST) if body else {"Authorization": "Bearer abc"}
    message = sign(key, Message(method, url, body, headers), keyid="k")
    covered = verify(key, message)
    assert {"@method", "@authority", "@path", "authorization"} <= set(covered)
    assert ("content-digest" in covered) == bool(body)
    with pytest.raises(InvalidSignature):
        verify(Key(), message)
    message.method = "PUT"
    with pytest.raises(InvalidSignature):
        verify(key, message)


def hwk(key, label="sig1"):
    return f'{label}=hwk;kty="OKP";crv="Ed25519";x="{key.x}";alg="Ed25519"'


def run(options):
    """The result of the node script."""
    process = start("httpsig.mjs", options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    [result] = [line[7:] for line in output.splitlines() if line.startswith("result ")]
    return json.loads(result)


def verified_by_node(message):
    parts = urlsplit(message.url)
    asked = {
        "method": message.method,
        "authority": parts.netloc,
        "path": parts.path or "/",
        "headers": message.headers,
    }
    if parts.query:
        # It takes what it is given for the value of `@query`, which begins with the question mark (RFC 9421 section 2.2.7).
        asked["query"] = f"?{parts.query}"
    if message.body:
        asked["body"] = message.body
    return run({"verify": asked})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", [URL, URL.split("?")[0]])
def test_ours_are_verified_by_hellocoop_httpsig(sign, key, method, url):
    body = '{"a": 1}' if method == "POST" else ""
    headers = dict(POST) if body else {"Authorization": "Bearer abc"}
    message = sign(key, Message(method, url, body, headers), signature_key=hwk(key))
    found = verified_by_node(message)
    assert found.get("error") is None and found["verified"] is True
    assert found["thumbprint"] == key.thumbprint
    if url == URL:
        # With the query that was signed, and no other.
        assert '"@query"' in message.headers["Signature-Input"]
        changed = Message(message.method, url.replace("x=1", "x=2"), message.body, message.headers)
        assert verified_by_node(changed)["verified"] is False
    changed = Message(message.method, message.url, message.body, {**message.headers, "Authorization": "Bearer abd"})
    assert verified_by_node(changed)["verified"] is False
    if body:
        changed = Message(message.method, message.url, '{"a": 2}', message.headers)
        assert verified_by_node(changed)["verified"] is False


def token_request(server, agent, resource):
    body = json.dumps({"request_type": "auth", "resource_token": resource.token(agent), "scope": "read"})
    url = f"{server.url}/orgs/{server.org}/api/v1/aauth/agent/token"
    headers = {"Content-Type": "application/json", "Agent-Auth": f"agent_token={agent.token()}"}
    return Message("POST", url, body, headers)


def send(message):
    return requests.request(
        message.method, message.url, data=message.body.encode(), headers=message.headers, timeout=30
    )


COVERED = ["@method", "@authority", "@path", "content-type", "content-digest"]


def granted(agent, answer):
    assert answer.status_code == 200, answer.text
    found = claims(answer.json()["auth_token"])
    assert found["agent"] == agent.identifier and found["cnf"]["jkt"] == agent.key.thumbprint


@pytest.mark.parametrize("covered", [COVERED, ["@target-uri", "content-digest", "content-type", "@method"]])
@pytest.mark.parametrize("include_alg", [False, True])
def test_http_message_signatures_signs_for_the_token_endpoint(server, covered, include_alg):
    agent, resource = Agent(server), Resource(server)
    message = token_request(server, agent, resource)
    more = {"include_alg": include_alg, "expires": datetime.now(timezone.utc) + timedelta(seconds=30)}
    signed_by_another(agent.key, message, covered, **more)
    granted(agent, send(message))
    assert send(message).status_code == 401


@pytest.mark.parametrize("missing", [*COVERED, "nonce"])
def test_what_another_does_not_sign_is_not_accepted(server, missing):
    agent, resource = Agent(server), Resource(server)
    message = token_request(server, agent, resource)
    covered = [name for name in COVERED if name != missing]
    if missing == "content-digest":
        # It adds what it has a body for.
        message, body = Message(message.method, message.url, "", message.headers), message.body
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        message.headers["Content-Digest"] = f"sha-256=:{digest}:"
        signed_by_another(agent.key, message, covered, use_existing_digest=True)
        message.body = body
    else:
        signed_by_another(agent.key, message, covered, nonce=missing != "nonce")
    answer = send(message)
    assert answer.status_code == 401, answer.text
    assert answer.json()["details"]["reason"] == "invalid_signature"


def signed_by_node(key, message, components, label="sig"):
    """The message, signed by `@hellocoop/httpsig`. It has no nonce, so one goes in a field of its own that is covered."""
    message.headers["Nonce"] = uuid.uuid4().hex
    private = base64.urlsafe_b64encode(key.private.private_bytes_raw()).rstrip(b"=").decode()
    public = {name: key.jwk[name] for name in ("kty", "crv", "x")}
    asked = {
        "url": message.url,
        "method": message.method,
        "headers": message.headers,
        "body": message.body,
        "signingKey": {**public, "alg": "Ed25519", "d": private},
        "components": components,
        "label": label,
    }
    return Message(message.method, message.url, message.body, run({"sign": asked}))


@pytest.mark.parametrize("signature_key", [False, True])
def test_hellocoop_httpsig_signs_for_the_token_endpoint(server, signature_key):
    agent, resource = Agent(server), Resource(server)
    components = ["@method", "@authority", "@path", "content-type", "nonce"]
    if signature_key:
        # What it says of its key decides nothing here; the agent token does.
        components.append("signature-key")
    message = signed_by_node(agent.key, token_request(server, agent, resource), components)
    assert ("signature-key" in message.headers) == signature_key
    granted(agent, send(message))
    assert send(message).status_code == 401
    # Its default list has no nonce.
    components.remove("nonce")
    message = signed_by_node(agent.key, token_request(server, agent, resource), components)
    answer = send(message)
    assert answer.status_code == 401 and answer.json()["details"]["reason"] == "invalid_signature"
    # By a key that the agent token is not bound to.
    message = signed_by_node(Key(), token_request(server, agent, resource), [*components, "nonce"])
    answer = send(message)
    assert answer.status_code == 401 and answer.json()["details"]["reason"] == "key_binding_failed"


@pytest.mark.parametrize("profile", ["sdk", "rfc"])
def test_our_own_signatures_are_accepted_in_both_forms(server, sign, profile):
    agent, resource = Agent(server), Resource(server)
    message = sign(agent.key, token_request(server, agent, resource), profile=profile)
    # Standard base64, also where base64url is accepted.
    value = message.headers["Signature"].removeprefix("sig1=:").removesuffix(":")
    assert len(base64.b64decode(value, validate=True)) == 64
    granted(agent, send(message))
    assert send(message).status_code == 401


@pytest.fixture
def reader(server, notebook):  # noqa: F811
    """An agent, its auth token for the service behind the AAuth layer, and a request with it that nobody has signed."""
    url, _ = notebook
    agent = Agent(server, allowed_scopes=["read:notes"])
    headers = {"Content-Type": "application/json", "Agent-Auth": f"agent_token={agent.token()}"}
    asked = signed_by_another(agent.key, Message("GET", url, "", headers), ["@method", "@authority", "@path"])
    challenge = requests.get(url, headers=asked.headers, timeout=30).headers["agent-auth"]
    resource_token = re.search(r'resource_token="([^"]+)"', challenge).group(1)
    body = json.dumps({"request_type": "auth", "resource_token": resource_token, "scope": "read:notes"})
    endpoint = f"{server.url}/orgs/{server.org}/api/v1/aauth/agent/token"
    headers = {"Content-Type": "application/json", "Agent-Auth": f"agent_token={agent.token()}"}
    answer = send(signed_by_another(agent.key, Message("POST", endpoint, body, headers), COVERED))
    assert answer.status_code == 200, answer.text
    bearer = {"Authorization": f"Bearer {answer.json()['auth_token']}"}
    return agent, lambda query="": Message("GET", url + query, "", dict(bearer))


READING = ["@method", "@authority", "@path", "authorization"]


def refused(message, reason):
    answer = send(message)
    assert answer.status_code == 401, answer.text
    assert answer.json()["details"]["reason"] == reason


def test_http_message_signatures_signs_for_a_resource(reader):
    agent, request = reader
    for query, covered in [("", READING), ("?a=1", [*READING, "@query"]), ("?a=1", ["@method", "@target-uri", "authorization"])]:
        message = signed_by_another(agent.key, request(query), covered)
        answer = send(message)
        assert answer.status_code == 200 and "notes" in answer.json(), answer.text
        refused(message, "invalid_signature")
    for missing in READING:
        covered = [name for name in READING if name != missing]
        refused(signed_by_another(agent.key, request(), covered), "invalid_signature")
    refused(signed_by_another(agent.key, request("?a=1"), READING), "invalid_signature")
    refused(signed_by_another(agent.key, request(), READING, nonce=False), "invalid_signature")
    refused(signed_by_another(Key(), request(), READING), "key_binding_failed")


def test_hellocoop_httpsig_signs_for_a_resource(reader):
    agent, request = reader
    components = [*READING, "nonce"]
    message = signed_by_node(agent.key, request(), components)
    answer = send(message)
    assert answer.status_code == 200 and "notes" in answer.json(), answer.text
    refused(message, "invalid_signature")
    refused(signed_by_node(agent.key, request(), READING), "invalid_signature")
    refused(signed_by_node(Key(), request(), components), "key_binding_failed")
