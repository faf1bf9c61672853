"""The agent of the examples, which calls the resource of the examples: the two programs, through the server."""

import json
import os
import socket
import subprocess
import uuid

import pytest
import requests
from conftest import REPOSITORY, binary
from test_approvals import Alice
from test_llm_gateway import address_in


class Agent:
    """The program, with a key of its own in a directory of its own."""

    def __init__(self, server, directory, name):
        self.key = directory / f"{name}.pem"
        self.variables = {
            **server.variables,
            "PATH": os.environ["PATH"],
            "AGENT_IDENTIFIER": f"https://{name}.agent.test",
            "AGENT_NAME": name,
            "AGENT_KEY": str(self.key),
        }

    def run(self, *arguments, typed=None):
        command = [binary("aauth-agent", "aauth-agent"), *arguments]
        return subprocess.run(
            command, env=self.variables, input=typed, capture_output=True, text=True, timeout=60, check=False
        )

    def says(self, *arguments):
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def notebook(server, tmp_path_factory):
    """The resource, registered, and its record."""
    directory = tmp_path_factory.mktemp("notebook")
    log, registration = directory / "log", directory / "registration.json"
    variables = {
        **server.variables,
        "PATH": os.environ["PATH"],
        "RESOURCE_LISTEN": "127.0.0.1:0",
        "RESOURCE_KEY": str(directory / "key.pem"),
        "RESOURCE_STATE": str(directory / "state"),
    }
    with log.open("w") as output, registration.open("w") as printed:
        program = binary("aauth-resource", "aauth-resource")
        process = subprocess.Popen(
            [program], env=variables, stdin=subprocess.DEVNULL, stdout=printed, stderr=output
        )
    try:
        url = f"http://{address_in(log, process)}/notes"
        response = server.admin("POST", "/aauth/resources", json=json.loads(registration.read_text()))
        assert response.status_code == 201, response.text
        yield url, response.json()["data"]["id"]
        assert process.poll() is None and "panicked" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def agent(server, tmp_path):
    return Agent(server, tmp_path, f"a{uuid.uuid4().hex[:8]}")


def test_an_agent_makes_its_key_registers_and_calls(agent, notebook):
    url, _ = notebook
    shown = agent.says("show")
    assert '"kid": "agent-1"' in shown and '"d"' not in shown
    assert agent.key.stat().st_mode & 0o777 == 0o600
    refused = agent.run("get", url)
    assert refused.returncode != 0 and "authentication_required" in refused.stderr

    assert agent.says("register") == "registered\n"
    text = uuid.uuid4().hex
    assert text in agent.says("post", url, f'{{"text":"{text}"}}')
    assert text in agent.says("get", url)
    # The same key at the next start.
    assert agent.says("show") == shown


def test_nobody_reads_the_notebook_without_a_key(notebook):
    response = requests.get(notebook[0], timeout=30)
    assert response.status_code == 401
    assert response.headers["agent-auth"].startswith("httpsig; auth-token")


def test_a_person_agrees_where_the_resource_wants_that(server, agent, notebook):
    url, resource = notebook
    agent.says("register")
    level = {"default_auth_level": "authorized"}
    response = server.admin("PATCH", f"/aauth/resources/{resource}", json=level)
    assert response.status_code == 200, response.text
    try:
        command = [binary("aauth-agent", "aauth-agent"), "get", url]
        waiting = subprocess.Popen(
            command,
            env=agent.variables,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        lines = iter(waiting.stderr.readline, "")
        token = next(line for line in lines if "request_token=" in line).strip().split("request_token=")[1]
        alice = Alice(server)
        decision = {"request_token": token, "decision": "approve"}
        answer = requests.post(f"{alice.base}/aauth/consent", json=decision, headers=alice.headers, timeout=30)
        assert answer.status_code == 200, answer.text
        out, err = waiting.communicate(answer.json()["code"] + "\n", timeout=60)
        assert waiting.returncode == 0 and '"notes"' in out, err
        # Without an answer there is nothing to see.
        denied = agent.run("get", url, typed="guessed\n")
        assert denied.returncode != 0 and "invalid_grant" in denied.stderr
    finally:
        server.admin("PATCH", f"/aauth/resources/{resource}", json={"default_auth_level": "none"})


def test_the_script_of_the_readme_works_twice(server, tmp_path):
    variables = tmp_path / "env.txt"
    variables.write_text("".join(f"{name}='{value}'\n" for name, value in server.variables.items()))
    name = f"s{uuid.uuid4().hex[:8]}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "PROGRAMS": os.path.dirname(binary("aauth-agent", "aauth-agent")),
        "RESOURCE_LISTEN": address,
        "AGENT_NAME": name,
        "AGENT_IDENTIFIER": f"https://{name}.agent.test",
    }
    for _ in range(2):
        script = str(REPOSITORY / "examples/aauth-agent/try")
        result = subprocess.run(
            [script, str(variables)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "signed, and nobody else could have" in result.stdout
        assert "Signature-Input" in result.stderr
