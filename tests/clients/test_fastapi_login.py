"""The official SDK's FastAPI integration, unmodified: a person signs in to an application by this server."""

from urllib.parse import parse_qs, urlsplit

import pytest
from browser import Browser, allow
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from lumoauth.fastapi import User, lumo_auth_router, require_auth
from starlette.middleware.sessions import SessionMiddleware

CALLBACK = "/callback"


@pytest.fixture
def application(server):
    """An application behind the SDK's router, at an address that its client has registered."""
    variables = server.variables
    app = FastAPI()
    app.add_middleware(SessionMiddleware, secret_key="for this test only")
    app.include_router(
        lumo_auth_router(
            base_url=server.url,
            organization=server.org,
            client_id=variables["LUMOAUTH_APP_CLIENT_ID"],
            client_secret=variables["LUMOAUTH_APP_CLIENT_SECRET"],
            callback_path=CALLBACK,
        )
    )

    @app.get("/me")
    def me(user: User = Depends(require_auth(scopes=["profile"]))):
        return user.model_dump()

    with TestClient(app, base_url="http://127.0.0.1:5000", follow_redirects=False) as client:
        yield client


def test_a_person_signs_in(server, application):
    assert application.get("/me").status_code == 401
    begun = application.get("/login", params={"return_to": "/me"})
    assert begun.status_code == 302
    landed = allow(Browser(server), begun.headers["location"])
    assert landed.url.startswith("http://127.0.0.1:5000/callback?")
    done = application.get(CALLBACK, params=landed.query)
    assert done.status_code == 302, done.text
    assert done.headers["location"] == "/me"
    me = application.get("/me").json()
    alice = server.admin("GET", f"/users/{server.variables['USER_EMAIL']}").json()["data"]
    assert me["sub"] == alice["id"]
    assert me["email"] == server.variables["USER_EMAIL"]


def test_a_code_is_of_no_use_without_the_verifier_of_its_browser(server, application):
    begun = application.get("/login")
    landed = allow(Browser(server), begun.headers["location"])
    stolen = dict(landed.query)
    # The state of the new attempt, with the code of the other one.
    again = application.get("/login").headers["location"]
    stolen["state"] = parse_qs(urlsplit(again).query)["state"][0]
    refused = application.get(CALLBACK, params=stolen)
    assert refused.status_code == 502
    assert refused.json()["detail"]["error"] == "invalid_grant"
