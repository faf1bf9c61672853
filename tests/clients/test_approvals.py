"""The official SDK's approvals, unmodified: it asks, alice decides in person, and it hears what she said."""

import os
import threading
import time
import uuid
from urllib.parse import urlencode

import pytest
import requests
from browser import Browser, allow
from conftest import BACKENDS, running, store_of
from lumoauth import LumoAuth, LumoAuthAgent, require_approval
from lumoauth.errors import (
    LumoAuthApiError,
    LumoAuthApprovalNotDeliveredError,
    LumoAuthNotFoundError,
    LumoAuthPermissionDeniedError,
)
from smtp import MailServer

REDIRECT = "http://127.0.0.1/callback"


class Alice:
    """The administrator of the fixtures, who may approve, at an application of the organization."""

    def __init__(self, server, scope="openid"):
        self.base = f"{server.url}/orgs/{server.org}/api/v1"
        self.email = server.variables["USER_EMAIL"]
        client_id = server.variables["LUMOAUTH_APP_CLIENT_ID"]
        query = {"response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT, "scope": scope}
        landed = allow(Browser(server), f"{self.base}/oauth/authorize?{urlencode(query)}")
        response = requests.post(
            f"{self.base}/oauth/token",
            data={"grant_type": "authorization_code", "code": landed.query["code"], "redirect_uri": REDIRECT},
            auth=(client_id, server.variables["LUMOAUTH_APP_CLIENT_SECRET"]),
            timeout=30,
        )
        assert response.status_code == 200, response.text
        self.headers = {"Authorization": f"Bearer {response.json()['access_token']}"}

    def pending(self, task_id):
        """What waits for her under this task, once there is something."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            url = f"{self.base}/approvals/pending"
            response = requests.get(url, params={"limit": 100}, headers=self.headers, timeout=30)
            assert response.status_code == 200, response.text
            found = [item for item in response.json()["data"] if item["task_id"] == task_id]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError("nothing waits")

    def say(self, what, token, note=""):
        """Approves or denies."""
        url = f"{self.base}/approvals/{token}/{what}"
        response = requests.post(url, json={"note": note}, headers=self.headers, timeout=30)
        assert response.status_code == 200, response.text


@pytest.fixture
def alice(server):
    return Alice(server)


@pytest.fixture
def agent(agent_of):
    agent = agent_of(capabilities=["delegate:on_behalf"])
    assert agent.authenticate()
    return agent


@pytest.fixture
def client(server, agent):
    return LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)


def asking(alice, **members):
    """The arguments of a request."""
    known = {"task_id": uuid.uuid4().hex, "reason": "Pay invoice 88", "impact": "high", "on_behalf_of": alice.email}
    return {**known, **members}


def while_deciding(alice, what, arguments, ask):
    """What `ask` returns while alice decides on what it asks."""
    seen = {}

    def decide():
        seen.update(alice.pending(arguments["task_id"]))
        alice.say(what, seen["approval_token"])

    decider = threading.Thread(target=decide)
    decider.start()
    result = ask(**arguments)
    decider.join()
    return result, seen


def test_require_approval_returns_once_it_is_approved(agent, alice):
    arguments = asking(alice, meta={"amount": "4500.00"}, poll_interval_s=0.1, timeout_s=30)
    result, seen = while_deciding(alice, "approve", arguments, lambda **known: require_approval(agent, **known))
    assert (result.status, result.task_id, result.impact) == ("approved", arguments["task_id"], "high")
    assert result.reason == "Pay invoice 88" and result.token == seen["approval_token"]
    assert isinstance(result.approved_by["user_id"], int) and result.responded_at.endswith("Z")
    assert seen["meta"] == {"amount": "4500.00"} and seen["agent_id"] == agent.record["agentId"]


def test_a_denial_is_told(client, alice):
    arguments = asking(alice, poll_interval_s=0.1, timeout_s=30)
    result, _ = while_deciding(alice, "deny", arguments, client.approvals.require)
    assert (result.status, result.approved_by) == ("denied", None)
    assert result.reason == "Pay invoice 88"


def test_create_wait_and_get_status(client, alice):
    created = client.approvals.create(**asking(alice))
    assert created["status"] == "pending" and created["approval_token"].startswith("apr_")
    token = created["approval_token"]
    assert client.approvals.wait(token, poll_interval_s=0.1, timeout_s=0.5)["status"] == "pending"
    alice.say("approve", token)
    assert client.approvals.wait(token, poll_interval_s=0.1)["status"] == "approved"
    assert isinstance(client.approvals.get_status(token)["approved_by"]["user_id"], int)


def test_somebody_without_a_channel_is_not_reached(server, agent, client, alice):
    email = f"{uuid.uuid4().hex}@people.test"
    assert server.admin("POST", "/users", json={"email": email, "name": "P"}).status_code == 201
    for who in [email, "nobody@people.test"]:
        arguments = asking(alice, on_behalf_of=who)
        for ask in [client.approvals.require, lambda **known: require_approval(agent, **known)]:
            with pytest.raises(LumoAuthApprovalNotDeliveredError) as caught:
                ask(**arguments)
            assert caught.value.reason == "no_enrolled_device"
            assert caught.value.task_id == arguments["task_id"]


def test_refusals_are_of_the_sdks_types(server, agent_of, client, alice):
    with pytest.raises(LumoAuthApiError) as caught:
        client.approvals.create(**asking(alice, reason="x" * 481))
    assert caught.value.status_code == 400
    with pytest.raises(LumoAuthNotFoundError):
        client.approvals.get_status("apr_unknown")
    other = agent_of(capabilities=["read:a"])
    assert other.authenticate()
    stranger = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: other.access_token)
    with pytest.raises(LumoAuthPermissionDeniedError) as caught:
        stranger.approvals.create(**asking(alice))
    assert caught.value.code == "delegation_not_allowed"
    token = client.approvals.create(**asking(alice))["approval_token"]
    with pytest.raises(LumoAuthPermissionDeniedError):
        stranger.approvals.get_status(token)


def test_a_test_token_of_the_portal_is_refused(server, agent, alice):
    made = server.admin("POST", f"/agents/{agent.record['agentId']}/token", json={})
    test = made.json()["data"]["accessToken"]
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: test)
    with pytest.raises(LumoAuthPermissionDeniedError) as caught:
        client.approvals.create(**asking(alice))
    assert caught.value.code == "test_token_not_accepted"


def test_the_bot_of_the_environment_asks_alice(environment, alice):
    agent = LumoAuthAgent()
    assert agent.authenticate()
    arguments = asking(alice, poll_interval_s=0.1, timeout_s=30)
    result, _ = while_deciding(alice, "approve", arguments, lambda **known: require_approval(agent, **known))
    assert result.status == "approved"


@pytest.mark.parametrize("backend", BACKENDS if "LUMOAUTH_URL" not in os.environ else BACKENDS[:1])
def test_with_mail_somebody_without_a_channel_is_told_and_the_agent_hears_202(backend, tmp_path, request):
    mail = MailServer()
    store = store_of(backend, tmp_path, request, "other_services")
    with running(tmp_path, store, "--mail-url", mail.url, "--mail-from", "LumoAuth <no-reply@auth.test>") as server:
        told(server, mail)


def told(server, mail):
    """Asks somebody without a channel, nobody, and alice, who has one, and looks at what comes by mail."""
    record = server.create_agent(capabilities=["delegate:on_behalf"], name="Bot\u00e9")
    agent = LumoAuthAgent(
        base_url=server.url, org_id=server.org, client_id=record["clientId"], client_secret=record["clientSecret"]
    )
    assert agent.authenticate()
    email = f"{uuid.uuid4().hex}@people.test"
    assert server.admin("POST", "/users", json={"email": email, "name": "P"}).status_code == 201

    def asked(who):
        arguments = {"task_id": "t-9", "reason": "Pay invoice 88", "impact": "high", "on_behalf_of": who}
        answer = requests.post(
            f"{server.url}/orgs/{server.org}/api/v1/agents/me/approvals",
            json=arguments,
            headers={"Authorization": f"Bearer {agent.access_token}"},
            timeout=30,
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    for who in [email, "nobody@people.test"]:
        with pytest.raises(LumoAuthApprovalNotDeliveredError) as caught:
            require_approval(agent, task_id="t-9", reason="Pay invoice 88", impact="high", on_behalf_of=who)
        assert caught.value.reason == "email_fallback_sent"
    first = asked("nobody@people.test")
    # Of one agent somebody is told five times an hour; whoever asks hears the same, whether they were told or not.
    for _ in range(20):
        assert asked(email) == first, "somebody is answered like nobody"
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    alice = server.variables["USER_EMAIL"]
    created = client.approvals.create(task_id="t", reason="Pay\nBcc: x@evil.test", impact="high", on_behalf_of=alice)

    def to():
        return [recipients[0].lower() for recipients, _ in mail.mails]

    end = time.monotonic() + 20
    while (len(mail.mails) < 6 or not any(alice in line for line in to())) and time.monotonic() < end:
        time.sleep(0.1)
    # Whatever should not come would have come by now: hers was the last to be asked for.
    time.sleep(0.3)
    assert sum(email in line for line in to()) == 5 and sum(alice in line for line in to()) == 1, to()
    assert len(mail.mails) == 6 and all(len(recipients) == 1 for recipients, _ in mail.mails), to()
    content = next(content for recipients, content in mail.mails if alice in recipients[0].lower())
    head, body = content.replace("=\r\n", "").split("\r\n\r\n", 1)
    assert "bcc" not in head.lower() and "/oauth/approvals" in body
    assert created["approval_token"] not in content
