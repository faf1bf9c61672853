"""The pages that people see, in a real browser without JavaScript, on a desk and on a phone."""

import shutil
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from test_node_clients import MODULES, issuer, run

# Screenshots are kept beside the installed modules, for people to look at.
SCREENSHOTS = MODULES.parent / "screenshots"


def visit(server, agent, decision, viewport, name):
    folder = SCREENSHOTS / name
    folder.mkdir(parents=True, exist_ok=True)
    query = {
        "response_type": "code",
        "client_id": agent["clientId"],
        "redirect_uri": "https://agent.example.test/callback",
        "scope": "openid read:documents write:documents",
        "state": "a state",
    }
    variables = server.variables
    result = run(
        server,
        "pages.mjs",
        {
            "chromium": shutil.which("chromium") or shutil.which("chromium-browser"),
            "url": f"{issuer(server)}/oauth/authorize?{urlencode(query)}",
            "redirectUri": "https://agent.example.test/callback",
            "email": variables["USER_EMAIL"],
            "password": variables["USER_PASSWORD"],
            "decision": decision,
            "viewport": viewport,
            "folder": str(folder),
        },
    )
    for page in ["sign-in", "sign-in-refused", "consent"]:
        assert (folder / f"{page}.png").stat().st_size > 1000
    assert result["problems"] == []
    return result


@pytest.fixture
def agent(server):
    return server.create_agent(
        name="Invoice \u202eBot <script>alert(1)</script>",
        capabilities=["read:documents", "write:documents"],
        redirectUris=["https://agent.example.test/callback"],
    )


VIEWPORTS = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


@pytest.mark.parametrize("device", VIEWPORTS)
def test_a_person_reads_who_asks_for_what_and_says_yes(server, agent, device):
    result = visit(server, agent, "approve", VIEWPORTS[device], device)
    query = parse_qs(urlsplit(result["landed"]).query)
    assert query["state"] == ["a state"] and query["code"] and query["iss"] == [issuer(server)]
    text = result["consent"]
    assert "Invoice" in text and "<script>alert(1)</script>" in text and "\u202e" not in text
    for words in ["read:documents", "write:documents", "agent.example.test", server.variables["USER_EMAIL"]]:
        assert words in text, words


def test_a_person_says_no(server, agent):
    result = visit(server, agent, "deny", VIEWPORTS["desk"], "no")
    query = parse_qs(urlsplit(result["landed"]).query)
    assert query["error"] == ["access_denied"] and "code" not in query
