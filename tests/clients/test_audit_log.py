"""The exported audit log, checked by somebody else's code: written from the documentation of `audit_export`, in Python."""

import base64
import hashlib
import json

import pytest
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def tree_hash(leaves):
    """MTH of RFC 9162, section 2.1.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:middle]) + tree_hash(leaves[middle:])).digest()


def leaf_hash(org, entry):
    lines = ["lumoauth-audit-2", org, str(entry["seq"]), entry["event_id"], str(entry["at"]), entry["body"]]
    return hashlib.sha256(b"\x00" + "\n".join(lines).encode()).digest()


def claims_of(head, keys):
    signed, signature = head.rsplit(".", 1)
    header, payload = (json.loads(unb64(part)) for part in signed.split("."))
    assert header.keys() == {"alg", "kid", "typ"} and header["typ"] == "audit-head+jwt" and header["alg"] == "EdDSA"
    key = Ed25519PublicKey.from_public_bytes(unb64(keys[header["kid"]]["x"]))
    key.verify(unb64(signature), signed.encode())
    return payload


def verify(text, keys, org):
    """How many entries and heads there are; fails where they do not fit together."""
    leaves, heads, size = [], 0, 0
    for line in text.splitlines():
        line = json.loads(line)
        if line["type"] == "log":
            assert (line["format"], line["org"]) == ("lumoauth-audit-2", org)
        elif line["type"] == "entry":
            assert line["seq"] == len(leaves) + 1
            if line["body"] is not None:
                assert leaf_hash(org, line).hex() == line["leaf"], line["seq"]
                assert json.loads(line["body"])["id"] == line["event_id"]
            leaves.append(bytes.fromhex(line["leaf"]))
        elif line["type"] == "head":
            claims = claims_of(line["jws"], keys)
            size = claims["size"]
            assert (claims["org"], size) == (org, len(leaves))
            assert claims["root"] == tree_hash(leaves).hex()
            heads += 1
    assert size == len(leaves), "the last entry has a head"
    return len(leaves), heads


def test_the_log_is_what_was_signed(server):
    agent = server.create_agent()
    keys = requests.get(f"{server.url}/orgs/{server.org}/api/v1/.well-known/audit-jwks.json", timeout=30).json()["keys"]
    keys = {key["kid"]: key for key in keys}
    text = server.admin("GET", "/audit-logs/tree/export").content.decode()
    entries, heads = verify(text, keys, server.org)
    assert entries > 1 and heads >= 1
    assert (agent.get("agentId") or agent["data"]["agentId"]) in text
    body = next(line for line in text.splitlines() if line.startswith('{"type":"entry"'))
    with pytest.raises(AssertionError):
        verify(text.replace(body, body.replace("created", "updated")), keys, server.org)
    head = next(line for line in text.splitlines() if line.startswith('{"type":"head"'))
    with pytest.raises((AssertionError, InvalidSignature, ValueError)):
        verify(text.replace(head, head[:-30] + "AAAA" + head[-26:]), keys, server.org)
    lines = text.splitlines(keepends=True)
    last = max(at for at, line in enumerate(lines) if line.startswith('{"type":"entry"'))
    for cut in (lines[: last + 1], lines[:last] + lines[last + 1 :]):
        with pytest.raises(AssertionError):
            verify("".join(cut), keys, server.org)
