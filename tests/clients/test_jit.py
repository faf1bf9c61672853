"""The official SDK's just-in-time permissions, unmodified: JITContext and the low-level calls, with a person who decides."""

import base64
import json
import threading
import time
import uuid

import pytest
import requests
from browser import Browser, Forms
from lumoauth import LumoAuth
from lumoauth.errors import LumoAuthApiError, LumoAuthPermissionDeniedError
from lumoauth.jit import JITContext
from test_approvals import Alice

READ = {"type": "file_access", "actions": ["read"], "identifier": "report_q4.pdf"}
DELETE = {"type": "file_access", "actions": ["delete"], "identifier": "report_q4.pdf"}


@pytest.fixture
def agent(agent_of):
    agent = agent_of(capabilities=["delegate:on_behalf", "read:a"])
    assert agent.authenticate()
    return agent


@pytest.fixture
def client(server, agent):
    return LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)


@pytest.fixture
def reviewer(server):
    return Alice(server, scope="openid jit:approve")


def introspect(server, agent, token):
    response = requests.post(
        f"{server.url}/orgs/{server.org}/api/v1/oauth/introspect",
        data={"token": token},
        auth=(agent.record["clientId"], agent.record["clientSecret"]),
        timeout=30,
    )
    assert response.status_code == 200, response.text
    return response.json()


def say(reviewer, what, request_id, **body):
    url = f"{reviewer.base}/jit/{what}/{request_id}"
    response = requests.post(url, json=body, headers=reviewer.headers, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


class OnPage:
    """Alice at the page of the reference server: she signs in and presses a button of the form about one thing."""

    def __init__(self, server):
        self.server, self.browser = server, Browser(server)
        self.page = f"{server.url}/orgs/{server.org}/api/v1/oauth/approvals"

    def look(self):
        page = self.browser.open(self.page)
        if "/oauth/login" in page.url:
            page = self.browser.sign_in(page)
        assert "What agents ask you" in page.text, page.text
        return page

    def press(self, page, key, decision, **values):
        forms = [form for form in Forms(page.text).forms if ("id", key) in form["fields"]]
        assert len(forms) == 1, f"{key} is not on the page"
        assert ("decision", decision) in forms[0]["buttons"]
        fields = [pair for pair in forms[0]["fields"] if pair[0] not in values]
        fields += [*values.items(), ("decision", decision)]
        headers = {"Origin": self.server.url, "Sec-Fetch-Site": "same-origin"}
        url = f"{self.server.url}{forms[0]['action']}"
        done = self.browser.session.post(url, data=fields, headers=headers, allow_redirects=False, timeout=30)
        assert done.status_code == 303, done.text

    def decide_when_asked(self, task_id, decision):
        """Presses the button about whatever is asked in the task, once something is."""

        def wait():
            end = time.monotonic() + 30
            while time.monotonic() < end:
                page = self.look()
                for form in Forms(page.text).forms:
                    key = dict(form["fields"]).get("id", "")
                    section = page.text.split(f'value="{key}"')[0].rsplit("<section", 1)[-1] if key else ""
                    if task_id in section:
                        self.press(page, key, decision)
                        return
                time.sleep(0.2)
            raise AssertionError("nothing was asked")

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


def test_low_risk_is_granted_at_once_and_ends_with_the_task(server, agent):
    with JITContext(agent) as jit:
        task = jit.create_task(name="Analyse Q4 report", task_type="analysis")
        assert task.startswith("task_") and jit.caep_session_id.startswith("caep_")
        result = jit.request_permission(READ, justification="for the report")
        assert result["status"] == "approved" and result["risk_level"] == "low"
        token = jit.get_token(result["request_id"])
        seen = introspect(server, agent, token)
        assert seen["active"] and seen["jit"] and seen["task_id"] == task
        assert seen["authorization_details"] == [READ]
    assert introspect(server, agent, token) == {"active": False}


def test_a_person_grants_on_the_page_while_the_sdk_waits(server, agent):
    with JITContext(agent) as jit:
        task = jit.create_task()
        thread = OnPage(server).decide_when_asked(task, "approve")
        result = jit.request_permission(DELETE, poll_interval=1, poll_timeout=40)
        thread.join()
        assert result["status"] == "approved", result
        token = jit.get_token(result["request_id"])
        assert introspect(server, agent, token)["active"]
    assert introspect(server, agent, token) == {"active": False}


def test_a_denial_on_the_page_is_told(server, agent):
    with JITContext(agent) as jit:
        thread = OnPage(server).decide_when_asked(jit.create_task(), "deny")
        result = jit.request_permission(DELETE, poll_interval=1, poll_timeout=40)
        thread.join()
        assert result["status"] == "denied"
        with pytest.raises(LumoAuthPermissionDeniedError):
            jit.get_token(result["request_id"])


def test_without_waiting_it_is_pending_and_has_a_status_url(agent):
    with JITContext(agent) as jit:
        jit.create_task()
        result = jit.request_permission(DELETE, wait_for_approval=False)
        assert result["status"] == "pending" and result["status_url"].startswith("/")
        # Nobody decides in time: the SDK gives back what it has.
        again = jit.request_permission(DELETE, poll_interval=1, poll_timeout=2)
        assert again["status"] == "pending"


def test_every_low_level_call(server, client, agent, reviewer):
    task = client.jit.create_task(name="t", task_type="research")["task_id"]
    made = client.jit.request(task, DELETE, justification="j", ttl=5000)
    assert made["status"] == "pending" and made["risk_level"] == "high"
    supervisor = LumoAuth(
        base_url=server.url,
        org_id=server.org,
        token_provider=lambda: reviewer.headers["Authorization"].removeprefix("Bearer "),
    )
    assert any(item["request_id"] == made["request_id"] for item in supervisor.jit.pending())
    with pytest.raises(LumoAuthPermissionDeniedError):
        client.jit.pending()
    say(reviewer, "approve", made["request_id"], agent_message="fine")
    seen = client.jit.get_status(made["request_id"])
    assert (seen["status"], seen["granted_ttl"], seen["agent_message"]) == ("approved", 900, "fine")
    assert client.jit.get_token(made["request_id"])["expires_in"] > 850
    evaluated = client.jit.evaluate_task(task, result="failed", notes="n")
    assert (evaluated["status"], evaluated["active"]) == ("failed", False)
    for _ in range(2):
        assert client.jit.complete_task(task)["task_id"] == task
    with pytest.raises(LumoAuthApiError) as caught:
        client.jit.request(task, READ)
    assert caught.value.status_code == 400


def test_supervisors_see_what_waits_by_the_context(server, agent, reviewer):
    with JITContext(agent) as jit:
        jit.create_task()
        made = jit.request_permission(DELETE, wait_for_approval=False)

        class Person:
            base_url, org_id = server.url, server.org
            access_token = reviewer.headers["Authorization"].removeprefix("Bearer ")

        listed = JITContext(Person()).list_pending_requests()
        assert any(item["request_id"] == made["request_id"] for item in listed)


def test_escalation_asks_for_what_the_resource_says_is_missing(server, agent, reviewer):
    uri = f"https://{uuid.uuid4().hex}.test/mcp"
    made = server.admin("POST", "/mcp/servers", json={"name": "Files", "resource_uri": uri})
    mcp = made.json()["data"]["server_id"]
    url = f"{server.url}/orgs/{server.org}/api/v1/mcp/{mcp}/challenge"
    with JITContext(agent) as jit:
        task = jit.create_task()
        # What anybody may read is granted at once.
        query = f"?authorization_details={json.dumps(READ)}"
        answer = jit.call_with_escalation("GET", url + query)
        assert (answer.status_code, answer.json()["status"]) == (200, "authenticated")
        # What a person must decide waits for her, at the page.
        thread = OnPage(server).decide_when_asked(task, "approve")
        answer = jit.call_with_escalation("GET", f"{url}?authorization_details={json.dumps(DELETE)}")
        thread.join()
        assert (answer.status_code, answer.json()["status"]) == (200, "authenticated")
    refused = requests.get(
        f"{url}?authorization_details={json.dumps(DELETE)}",
        headers={"Authorization": f"Bearer {agent.access_token}"},
        timeout=30,
    )
    missing = json.loads(base64.b64decode(refused.headers["Insufficient-Authorization-Details"]))
    assert refused.status_code == 403 and missing == {**DELETE, "locations": [uri]}


def test_on_behalf_of_a_person(server, agent_of, reviewer):
    # A client of SDK users: the person signed in for this agent, and the agent takes it from there.
    agent = agent_of(
        capabilities=["delegate:on_behalf"], delegationPolicy={"consent": "implicit"}
    )
    assert agent.authenticate()
    jit = JITContext(agent)
    assert jit.delegate_on_behalf_of(Alice(server).headers["Authorization"].removeprefix("Bearer "))
    with jit:
        jit.create_task()
        result = jit.request_permission(READ)
        token = jit.get_token(result["request_id"])
        seen = introspect(server, agent, token)
        assert seen["active"] and seen["act"]["agent_id"] == agent.record["agentId"]
        assert seen["on_behalf_of"] and not jit.delegate_on_behalf_of("nonsense")
