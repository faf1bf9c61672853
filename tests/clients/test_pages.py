"""The pages that people see, in a real browser without JavaScript, on a desk and on a phone.

They are the same whatever the store is, so one backend is enough.
"""

import os
import shutil
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from conftest import BACKENDS
from lumoauth import LumoAuth
from test_node_clients import MODULES, issuer, run

pytestmark = pytest.mark.parametrize(
    "server", ["given" if "LUMOAUTH_URL" in os.environ else BACKENDS[0]], indirect=True, scope="session"
)

# Screenshots are kept beside the installed modules, for people to look at.
SCREENSHOTS = MODULES.parent / "screenshots"
VIEWPORTS = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
CALLBACK = "https://agent.example.test/callback"


def visit(
    server, name, viewport, client_id, decision=None, *, redirect_uri=CALLBACK, problems=(), **query
):
    """What a person sees who follows an agent's link, and where the browser leaves the server."""
    folder = SCREENSHOTS / name
    folder.mkdir(parents=True, exist_ok=True)
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": "openid read:documents write:documents",
        "state": "a state",
        **query,
    }
    variables = server.variables
    result = run(
        server,
        "pages.mjs",
        {
            "chromium": shutil.which("chromium") or shutil.which("chromium-browser"),
            "url": f"{issuer(server)}/oauth/authorize?{urlencode(query)}",
            "redirectUri": redirect_uri,
            "email": variables["USER_EMAIL"],
            "password": variables["USER_PASSWORD"],
            "decision": decision,
            "viewport": viewport,
            "folder": str(folder),
        },
    )
    # What the browser itself complains of, and what does not fit on the screen.
    assert result["problems"] == list(problems)
    for page in result["seen"]:
        assert (folder / f"{page}.png").stat().st_size > 1000
    if decision:
        assert result["landed"], f"the browser never left for {redirect_uri}"
        result["query"] = parse_qs(urlsplit(result["landed"]).query)
        assert result["query"]["state"] == ["a state"] and result["query"]["iss"] == [issuer(server)]
    return result


@pytest.mark.parametrize("device", VIEWPORTS)
def test_a_person_reads_who_asks_for_what_and_says_yes(server, device):
    variables = server.variables
    result = visit(
        server,
        device,
        VIEWPORTS[device],
        variables["AGENT_CLIENT_ID"],
        "approve",
        redirect_uri="http://127.0.0.1/callback",
        resource=variables["MCP_RESOURCE"],
        scope="openid read:documents mcp:financial",
        prompt="consent",
    )
    assert result["query"]["code"]
    assert "The e-mail address or the password is wrong." in result["seen"]["sign-in-refused"]
    text = result["seen"]["consent"]
    for words in [
        "Research Assistant Bot",
        "agent:research-bot",
        variables["AGENT_CLIENT_ID"],
        variables["MCP_RESOURCE"],
        variables["USER_EMAIL"],
        "http://127.0.0.1",
        "Read documents read:documents",
        "mcp:financial",
        "Know who you are openid",
    ]:
        assert words in text, words


def test_a_person_says_no_to_somebody_whose_name_is_no_name(server):
    name = f"Invoice Bot <script>alert(1)</script> {'W' * 60}"
    agent = server.create_agent(
        name=name,
        capabilities=["read:documents", "write:documents", f"tool:{'x' * 80}"],
        redirectUris=[CALLBACK],
    )
    result = visit(
        server,
        "hostile",
        VIEWPORTS["phone"],
        agent["clientId"],
        "deny",
        scope=f"read:documents tool:{'x' * 80}",
    )
    assert result["query"]["error"] == ["access_denied"] and "code" not in result["query"]
    text = result["seen"]["consent"]
    assert name in text and "https://agent.example.test" in text


def test_the_browser_may_go_on_to_an_address_in_brackets(server):
    callback = "http://[::1]:5000/callback"
    agent = server.create_agent(capabilities=["read:documents", "write:documents"], redirectUris=[callback])
    result = visit(
        server, "brackets", VIEWPORTS["desk"], agent["clientId"], "approve", redirect_uri=callback
    )
    assert result["query"]["code"]


def test_a_person_is_told_why_a_request_is_refused(server):
    status = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    result = visit(server, "refused", VIEWPORTS["phone"], "cli_nobody", problems=[status])
    assert "This request cannot be served" in result["seen"]["page"] and result["landed"] is None


@pytest.mark.parametrize("viewport", VIEWPORTS)
def test_a_person_decides_what_agents_ask(server, agent_of, viewport):
    agent = agent_of(name=f"Invoice Bot {viewport}", capabilities=["delegate:on_behalf"])
    assert agent.authenticate()
    client = LumoAuth(base_url=server.url, org_id=server.org, token_provider=lambda: agent.access_token)
    meta = {"amount": "4500.00", "creditor": {"name": "ACME \u202e GmbH", "iban": "DE" + "0" * 300}}
    asked = {
        "task_id": "invoice-88",
        "reason": "Pay invoice 88\n<b>today</b>",
        "impact": "critical",
        "on_behalf_of": server.variables["USER_EMAIL"],
        "meta": meta,
    }
    approval = client.approvals.create(**asked)["approval_token"]
    task = client.jit.create_task(name="Clean up")["task_id"]
    detail = {"type": "file_access", "actions": ["delete"], "identifier": "reports/" + "q" * 200}
    permission = client.jit.request(task, detail, justification="They are old.")["request_id"]
    folder = SCREENSHOTS / f"approvals-{viewport}"
    folder.mkdir(parents=True, exist_ok=True)
    result = run(
        server,
        "approvals.mjs",
        {
            "chromium": shutil.which("chromium") or shutil.which("chromium-browser"),
            "url": f"{issuer(server)}/oauth/approvals",
            "email": server.variables["USER_EMAIL"],
            "password": server.variables["USER_PASSWORD"],
            "viewport": VIEWPORTS[viewport],
            "folder": str(folder),
            "decisions": [[approval, "approve"], [permission, "deny"]],
        },
    )
    assert result["problems"] == []
    waiting = result["seen"]["waiting"]
    for text in ["Pay invoice 88", "<b>today</b>", "4500.00", "\ufffd", "0" * 300, "q" * 200, "They are old.", "critical"]:
        assert text in waiting.replace("\n", "") or text in waiting, text
    assert "\u202e" not in waiting
    # What was decided is said, and gone; what was not waits on.
    approved, denied = result["seen"]["approve-0"], result["seen"]["deny-1"]
    assert "Approved." in approved and "4500.00" not in approved and "They are old." in approved
    assert "Denied." in denied and "They are old." not in denied and agent.record["name"] not in denied
    assert client.approvals.get_status(approval)["status"] == "approved"
    assert client.approvals.get_status(approval)["decision_note"] == "Seen in a browser."
    assert client.jit.get_status(permission)["deny_reason"] == "Seen in a browser."
    for name in ["waiting", "approve-0", "deny-1"]:
        assert (folder / f"{name}.png").stat().st_size > 1000
