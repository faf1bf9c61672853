"""The official SDK's just-in-time permissions, unmodified: JITContext and the low-level calls, with a person who decides."""

import base64
import functools
import json
import os
import shutil
import subprocess
import threading
import time
import uuid

import pytest
import requests
from browser import Browser, Forms
from conftest import binary
from lumoauth import LumoAuth
from lumoauth.errors import LumoAuthApiError, LumoAuthPermissionDeniedError
from lumoauth.jit import JITContext
from test_approvals import Alice
from test_llm_gateway import address_in
from test_node_clients import MODULES, issuer, run

# Screenshots are kept beside the installed modules, for people to look at.
SCREENSHOTS = MODULES.parent / "screenshots"
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


def waiting_in(reviewer, task):
    """What waits for people in the task, once something does."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        listed = requests.get(
            f"{reviewer.base}/jit/pending", params={"limit": 100}, headers=reviewer.headers, timeout=30
        )
        assert listed.status_code == 200, listed.text
        for item in listed.json()["data"]:
            if item["task_id"] == task:
                return item
        time.sleep(0.1)
    raise AssertionError("nothing was asked")


def ask_often(jit):
    """Lets a context that waits for a person ask each second, where the SDK itself passes on no other number."""
    jit.request_permission = functools.partial(jit.request_permission, poll_interval=1, poll_timeout=40)


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


def test_a_person_grants_in_a_browser_while_the_sdk_waits(server, agent, reviewer):
    folder = SCREENSHOTS / "jit"
    folder.mkdir(parents=True, exist_ok=True)
    granted = []
    with JITContext(agent) as jit:
        task = jit.create_task(name="Clean up")

        def ask():
            why = "They are old."
            granted.append(jit.request_permission(DELETE, justification=why, poll_interval=1, poll_timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        asked = waiting_in(reviewer, task)
        options = {
            "chromium": shutil.which("chromium") or shutil.which("chromium-browser"),
            "url": f"{issuer(server)}/oauth/approvals",
            "email": server.variables["USER_EMAIL"],
            "password": server.variables["USER_PASSWORD"],
            "viewport": {"width": 360, "height": 740},
            "folder": str(folder),
            "decisions": [[asked["request_id"], "approve"]],
        }
        shown = run(server, "approvals.mjs", options)
        asking.join()
        assert shown["problems"] == []
        waiting, done = shown["seen"]["waiting"], shown["seen"]["approve-0"]
        for text in [agent.record["name"], '"delete"', DELETE["identifier"], "They are old.", task, "high", "5 min"]:
            assert text in waiting, text
        assert "Approved." in done and task not in done
        assert (granted[0]["status"], granted[0]["agent_message"]) == ("approved", "Seen in a browser."), granted
        token = jit.get_token(asked["request_id"])
        assert introspect(server, agent, token)["active"]
    assert introspect(server, agent, token) == {"active": False}
    for name in ["waiting", "approve-0"]:
        assert (folder / f"{name}.png").stat().st_size > 1000


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
        ask_often(jit)
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


class Files:
    """Where the service is, and what it is registered as."""

    def __init__(self, address, resource):
        self.url, self.resource = f"http://{address}/files", resource


@pytest.fixture
def files(server, tmp_path):
    """A service elsewhere that asks for exactly what its callers were granted."""
    resource = f"https://{uuid.uuid4().hex}.test/files"
    body = {"name": "Files", "resource_uri": resource, "issueResourceClient": True}
    made = server.admin("POST", "/mcp/servers", json=body)
    assert made.status_code == 201, made.text
    account = made.json()["data"]
    log = tmp_path / "log"
    variables = {
        "PATH": os.environ["PATH"],
        "LUMOAUTH_URL": server.url,
        "LUMOAUTH_ORG_ID": server.org,
        "FILES_CLIENT_ID": account["resource_client_id"],
        "FILES_CLIENT_SECRET": account["resource_client_secret"],
        "FILES_RESOURCE": resource,
        "FILES_LISTEN": "127.0.0.1:0",
    }
    with log.open("w") as output:
        program = binary("file-service", "file-service")
        process = subprocess.Popen([program], env=variables, stdin=subprocess.DEVNULL, stderr=output)
    try:
        yield Files(address_in(log, process), resource)
        assert process.poll() is None and "panicked" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_escalation_at_a_service_behind_our_layers(server, agent, files):
    url = f"{files.url}/report_q4.pdf"
    plain = {"Authorization": f"Bearer {agent.access_token}"}

    def status(method, token=None, at=url):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, at, headers=headers, timeout=30).status_code

    refused = requests.delete(url, headers=plain, timeout=30)
    missing = json.loads(base64.b64decode(refused.headers["Insufficient-Authorization-Details"]))
    assert refused.status_code == 403 and missing == {**DELETE, "locations": [files.resource]}
    assert 'error="insufficient_authorization_details"' in refused.headers["WWW-Authenticate"]
    assert (status("GET"), status("GET", "nobody")) == (401, 401)
    spelled = requests.delete(url.replace("_", "%2F"), headers=plain, timeout=30)
    assert spelled.status_code == 403 and "Insufficient-Authorization-Details" not in spelled.headers
    with JITContext(agent) as jit:
        task = jit.create_task()
        # Reading is granted at once.
        assert jit.call_with_escalation("GET", url).json()["name"] == "report_q4.pdf"
        read = jit.request_permission({**READ, "locations": [files.resource]})
        reading = jit.get_token(read["request_id"])
        # What was granted is for this and nothing else.
        assert status("GET", reading) == 200 and status("DELETE", reading) == 403
        assert status("GET", reading, url.replace("q4", "q3")) == 403
        # Deleting waits for somebody at the page, who may say no.
        ask_often(jit)
        for decision, answered, left in [("deny", 403, 200), ("approve", 204, 404)]:
            thread = OnPage(server).decide_when_asked(task, decision)
            assert jit.call_with_escalation("DELETE", url).status_code == answered
            thread.join()
            assert status("GET", reading) == left
    # The task is over, and the service knows within a second: before the token expires, and without another file.
    end = time.monotonic() + 5
    while (seen := status("GET", reading)) == 404 and time.monotonic() < end:
        time.sleep(0.05)
    assert seen == 401
    assert status("GET", agent.access_token) == 403, "it is the token that ended"


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
