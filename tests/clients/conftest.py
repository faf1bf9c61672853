"""A running server for the real clients: started per backend, or the one that LUMOAUTH_URL names."""

import contextlib
import os
import pathlib
import subprocess
import tempfile
import time
import uuid

import pytest
import requests

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = ["memory", "embedded", "postgres", "postgres+redis"]


class Server:
    """What a client needs to know about a running server, and an administrator's hand on it."""

    def __init__(self, variables, log=None):
        self.variables = variables
        self.url = variables["LUMOAUTH_URL"].rstrip("/")
        self.org = variables["LUMOAUTH_ORG_ID"]
        self.api_key = variables["LUMOAUTH_API_KEY"]
        self.log = log
        self.up_since = time.monotonic()

    def admin(self, method, path, **arguments):
        """An administrator's request; any status is an answer, but never a server fault."""
        url = f"{self.url}/orgs/{self.org}/api/v1/admin{path}"
        headers = {"X-API-Key": self.api_key}
        response = requests.request(method, url, headers=headers, timeout=30, **arguments)
        assert response.status_code < 500, response.text
        return response

    def create_agent(self, **members):
        """A new agent with a name of its own."""
        members.setdefault("name", f"Client {uuid.uuid4().hex}")
        response = self.admin("POST", "/agents", json=members)
        assert response.status_code == 201, response.text
        return response.json()["data"]

    def audit(self, **filters):
        """Audit entries that pass the filters."""
        response = self.admin("GET", "/audit-logs", params={"limit": 100, **filters})
        assert response.status_code == 200, response.text
        return response.json()["data"]


def binary(name, package):
    """A built program: of the directory of LUMOAUTH_SERVER_BIN, or the debug build of the shared target directory."""
    if server := os.environ.get("LUMOAUTH_SERVER_BIN"):
        path = pathlib.Path(server).with_name(name)
    else:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        path = target / "debug" / name
    assert path.is_file(), f"{path} is missing: build it with `cargo build -p {package} --bin {name}`"
    return str(path)


def read_variables(path, process, log):
    """Waits for the file that the server writes once it accepts connections."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {log.read_text()}")
        text = path.read_text() if path.exists() else ""
        if text.endswith("\n") and "OTHER_CLIENT_SECRET=" in text:
            pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
            return {name: value.strip("'\"") for name, value in pairs}
        time.sleep(0.01)
    raise AssertionError(f"the server does not come up: {log.read_text()}")


def private_services():
    """The stores of the backends that need a service: started here, or made where DATABASE_URL and REDIS_URL say."""
    command = [binary("lumoauth-services", "lumoauth-tests")]
    # It ends what it started when its standard input closes, so also when this process is killed.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        stores = {}
        for line in process.stdout:
            backend, store = line.strip().split("=", 1)
            if backend == "end":
                break
            stores[backend] = store
        yield stores
    finally:
        process.stdin.close()
        process.wait(timeout=60)


services = pytest.fixture(private_services, scope="session", name="services")
# For servers that must not share what they keep with those of the session.
other_services = pytest.fixture(private_services, scope="session", name="other_services")


def store_of(backend, directory, request, services="services"):
    """The store of a server whose files are in the directory."""
    if backend == "memory":
        return "memory"
    if backend == "embedded":
        return f"embedded:{directory / 'data'}"
    return request.getfixturevalue(services)[backend]


@contextlib.contextmanager
def running(directory, store, *options):
    """A server whose files are in the directory. It must not have panicked, nor have died, when its user is done."""
    variables, log = directory / "env.txt", directory / "server.log"
    program = binary("lumoauth-server", "lumoauth-server")
    command = [program, "dev", "--listen", "127.0.0.1:0", "--store", store, "--fixtures", "full", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command + ["--env-out", str(variables)],
            cwd=directory,
            # Where `dev` keeps its secrets when the store is no file that they could lie beside.
            env={**os.environ, "XDG_STATE_HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Server(read_variables(variables, process, log), log)
            assert process.poll() is None, f"the server died: {log.read_text()}"
            assert "panicked" not in log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session", params=BACKENDS if "LUMOAUTH_URL" not in os.environ else ["given"])
def server(request):
    """One server per backend for the whole session."""
    if request.param == "given":
        yield Server(dict(os.environ))
        return
    with tempfile.TemporaryDirectory(prefix="lumoauth-clients-") as name:
        directory = pathlib.Path(name)
        with running(directory, store_of(request.param, directory, request)) as server:
            yield server


@pytest.fixture
def environment(server, monkeypatch):
    """The environment that the documentation tells users to set, and nothing else of it."""
    for name in list(os.environ):
        if name.startswith(("LUMOAUTH_", "AGENT_")):
            monkeypatch.delenv(name)
    for name in ["LUMOAUTH_URL", "LUMOAUTH_ORG_ID", "AGENT_CLIENT_ID", "AGENT_CLIENT_SECRET", "MCP_RESOURCE"]:
        monkeypatch.setenv(name, server.variables[name])
    return server


@pytest.fixture
def agent_of(server):
    """Makes an SDK agent for a fresh registration."""
    from lumoauth import LumoAuthAgent

    def make(kind=LumoAuthAgent, **members):
        record = server.create_agent(**members)
        agent = kind(
            base_url=server.url,
            org_id=server.org,
            client_id=record["clientId"],
            client_secret=record["clientSecret"],
        )
        agent.record = record
        return agent

    return make
