"""Parties of AAuth for tests: what an agent and a resource do with their keys, by `cryptography` alone."""

import base64
import hashlib
import json
import time
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(token):
    """The claims of a JWT, unverified."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class Key:
    """An Ed25519 key pair."""

    def __init__(self, kid="key-1", private=None):
        self.kid = kid
        self.private = private or Ed25519PrivateKey.generate()

    @property
    def pem(self):
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def x(self):
        return base64url(self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def jwk(self):
        return {"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.kid, "use": "sig"}

    @property
    def jwks(self):
        return {"keys": [self.jwk]}

    @property
    def thumbprint(self):
        """RFC 7638: the required members in order, without white space."""
        text = f'{{"crv":"Ed25519","kty":"OKP","x":"{self.x}"}}'
        return base64url(hashlib.sha256(text.encode()).digest())

    def sign(self, typ, **members):
        header = {"typ": typ, "alg": "EdDSA", "kid": self.kid}
        parts = [base64url(json.dumps(part).encode()) for part in (header, members)]
        signed = ".".join(parts)
        return f"{signed}.{base64url(self.private.sign(signed.encode()))}"


class Agent:
    """A registered agent."""

    def __init__(self, server, **members):
        self.key = Key()
        self.identifier = f"https://{uuid.uuid4().hex}.agents.test"
        body = {
            "name": f"Agent {uuid.uuid4().hex}",
            "agent_identifier": self.identifier,
            "jwks": self.key.jwks,
            "allowed_scopes": ["read", "write"],
            "user_authorization": True,
            **members,
        }
        response = server.admin("POST", "/aauth/agents", json=body)
        assert response.status_code == 201, response.text
        self.record = response.json()["data"]

    def token(self, key=None, **members):
        """An agent token, for the agent itself if nothing else is said."""
        now = int(time.time())
        key = key or self.key
        standard = {
            "iss": self.identifier,
            "sub": self.identifier,
            "cnf": {"jwk": {name: key.jwk[name] for name in ("kty", "crv", "x")}},
            "iat": now,
            "exp": now + 600,
            "jti": uuid.uuid4().hex,
        }
        return self.key.sign("agent+jwt", **{**standard, **members})


class Resource:
    """A registered resource."""

    def __init__(self, server, level="none", **members):
        self.key = Key("resource-1")
        self.identifier = f"https://{uuid.uuid4().hex}.resources.test"
        self.issuer = f"{server.url}/orgs/{server.org}/api/v1"
        body = {
            "name": f"Resource {uuid.uuid4().hex}",
            "resource_identifier": self.identifier,
            "jwks": self.key.jwks,
            "supported_scopes": ["read", "write"],
            "scope_descriptions": {"read": "Look at everything"},
            "default_auth_level": level,
            **members,
        }
        response = server.admin("POST", "/aauth/resources", json=body)
        assert response.status_code == 201, response.text
        self.record = response.json()["data"]

    def token(self, agent, key=None, scope="read write", **members):
        """What the resource hands to an agent that it was called by."""
        now = int(time.time())
        standard = {
            "iss": self.identifier,
            "aud": self.issuer,
            "agent": agent.identifier,
            "agent_jkt": (key or agent.key).thumbprint,
            "scope": scope,
            "iat": now,
            "exp": now + 240,
            "jti": uuid.uuid4().hex,
        }
        return self.key.sign("resource+jwt", **{**standard, **members})
