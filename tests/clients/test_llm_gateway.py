"""The LLM gateway of the examples, called by the official OpenAI client, before a provider of our own."""

import decimal
import os
import pathlib
import re
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests
from conftest import binary
from fake_llm import PROMPT_TOKENS, WORDS, FakeLlm, chunk, event
from test_approvals import Alice

UPSTREAM_KEY = "sk-upstream-" + "k" * 24
HELLO = [{"role": "user", "content": "hello"}]


def saying(text):
    return [{"role": "user", "content": text}]


def cost(prompt, completion):
    """Of gpt-4, as the prices of the example have it: 30 and 60 dollars for a million tokens."""
    return decimal.Decimal(prompt * 30 + completion * 60) / 1_000_000


class Gateway:
    """A running gateway."""

    def __init__(self, url, resource, provider, log):
        self.url, self.resource, self.provider, self.log = url, resource, provider, log


@pytest.fixture(scope="session")
def gateway(server, tmp_path_factory):
    """One for each server, with an agent of its own and the resource that callers name."""
    agent = server.create_agent(name=f"LLM Gateway {uuid.uuid4().hex[:8]}")
    resource = f"https://llm.test/{uuid.uuid4().hex}"
    registered = {
        "name": "LLM Gateway",
        "resource_uri": resource,
        "scopes_supported": ["llm:chat", "read:documents"],
        "resource_client_id": agent["clientId"],
    }
    response = server.admin("POST", "/mcp/servers", json=registered)
    assert response.status_code == 201, response.text
    provider = FakeLlm()
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    variables = {
        "PATH": os.environ["PATH"],
        "LUMOAUTH_URL": server.url,
        "LUMOAUTH_ORG_ID": server.org,
        "GATEWAY_CLIENT_ID": agent["clientId"],
        "GATEWAY_CLIENT_SECRET": agent["clientSecret"],
        "GATEWAY_RESOURCE": resource,
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_PATIENCE_SECONDS": "20",
        "UPSTREAM_URL": provider.url,
        "UPSTREAM_API_KEY": UPSTREAM_KEY,
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [binary("llm-gateway", "llm-gateway")], env=variables, stdin=subprocess.DEVNULL, stderr=output
        )
        try:
            yield Gateway(f"http://{address_in(log, process)}/v1", resource, provider, log)
            assert process.poll() is None, f"the gateway died: {log.read_text()}"
            assert "panicked" not in log.read_text() and UPSTREAM_KEY not in log.read_text()
        finally:
            process.kill()
            process.wait()
            provider.shutdown()


def address_in(log: pathlib.Path, process):
    """Where it listens, once it does."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        if found := re.search(r"address=([0-9.:]+)", text):
            return found[1]
        time.sleep(0.01)
    raise AssertionError(log.read_text())


class Caller:
    """An agent with a budget, and OpenAI's client with its token for the gateway."""

    def __init__(self, server, gateway, agent):
        assert agent.authenticate()
        self.server, self.agent, self.id = server, agent, agent.record["agentId"]
        self.provider, self.before = gateway.provider, len(gateway.provider.requests)
        self.token = agent.get_mcp_token(gateway.resource)
        self.llm = openai.OpenAI(base_url=gateway.url, api_key=self.token, timeout=60)
        self.calls_before = self.used()[1]

    def used(self):
        """Tokens today, calls this hour, and dollars this month."""
        url = f"{self.server.url}/orgs/{self.server.org}/api/v1/oauth/userinfo"
        response = requests.get(url, headers={"Authorization": f"Bearer {self.agent.access_token}"}, timeout=30)
        assert response.status_code == 200, response.text
        policy = response.json(parse_float=decimal.Decimal)["budget_policy"]
        money = decimal.Decimal(policy["cost_this_month_usd"])
        return policy["tokens_used_today"], policy["api_calls_this_hour"], money

    def spent(self):
        """The same, without what getting the token took."""
        tokens, calls, money = self.used()
        return tokens, calls - self.calls_before, money

    def comes_to(self, expected):
        """Waits until that much is used: what nobody waits for is settled a moment later."""
        end = time.monotonic() + 10
        while self.spent() != expected and time.monotonic() < end:
            time.sleep(0.02)
        assert self.spent() == expected

    def reached(self):
        """How often the provider was asked."""
        return len(self.provider.requests) - self.before

    def chat(self, messages=HELLO, **members):
        return self.llm.chat.completions.create(**{"model": "gpt-4", "messages": messages, **members})


@pytest.fixture
def caller_of(server, gateway, agent_of):
    def make(capabilities=("llm:chat",), **policy):
        policy = {"max_tokens_per_day": 1_000_000, "max_api_calls_per_hour": 1000, **policy}
        policy.setdefault("max_cost_per_month_usd", 50)
        return Caller(server, gateway, agent_of(capabilities=list(capabilities), budgetPolicy=policy))

    return make


def test_a_call_is_charged_what_the_provider_says_it_used(caller_of, gateway):
    caller = caller_of()
    answer = caller.chat(max_tokens=100, user="somebody")
    assert answer.choices[0].message.content == "".join(WORDS)
    assert caller.spent() == (PROMPT_TOKENS + len(WORDS), 1, cost(PROMPT_TOKENS, len(WORDS)))
    asked = gateway.provider.requests[-1]
    assert asked["path"] == "/v1/chat/completions"
    assert asked["body"] == {"model": "gpt-4", "messages": HELLO, "max_tokens": 100, "user": "somebody"}
    sent = {name.lower(): value for name, value in asked["headers"].items()}
    assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert caller.token not in str(asked), "the caller's token stays here"


def test_a_stream_is_passed_on_and_charged_exactly(caller_of):
    caller = caller_of()
    chunks = list(caller.chat(stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "".join(WORDS)
    assert all(one.usage is None for one in chunks), "the client did not ask for it"
    caller.comes_to((PROMPT_TOKENS + len(WORDS), 1, cost(PROMPT_TOKENS, len(WORDS))))


def test_whoever_asks_for_the_last_chunk_sees_it(caller_of):
    caller = caller_of()
    *chunks, last = caller.chat(stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.total_tokens == PROMPT_TOKENS + len(WORDS)
    assert all(one.choices for one in chunks)
    caller.comes_to((PROMPT_TOKENS + len(WORDS), 1, cost(PROMPT_TOKENS, len(WORDS))))


def test_an_answer_that_is_no_stream_is_charged_like_one(caller_of):
    caller = caller_of()
    list(caller.chat(saying("whole"), stream=True))
    caller.comes_to((PROMPT_TOKENS + len(WORDS), 1, cost(PROMPT_TOKENS, len(WORDS))))


def test_every_event_arrives_as_it_was_sent(caller_of, gateway):
    caller = caller_of()
    body = {"model": "gpt-4", "messages": HELLO, "stream": True}
    headers = {"Authorization": f"Bearer {caller.token}"}
    response = requests.post(f"{gateway.url}/chat/completions", json=body, headers=headers, timeout=30)
    assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
    texts = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
    sent = [event(chunk("gpt-4", text)) for text in texts] + [event(chunk("gpt-4", {}, "stop")), event("[DONE]")]
    # Of the chunk that only the gateway asked for an empty line is left, which means nothing.
    assert response.content.replace(b"\n\n\n", b"\n\n") == b"".join(sent)


def test_an_exhausted_budget_is_a_rate_limit_error(caller_of):
    caller = caller_of(max_tokens_per_day=250)
    caller.chat(max_tokens=100)
    with pytest.raises(openai.RateLimitError) as caught:
        caller.chat(max_tokens=240)
    assert caught.value.code == "budget_exceeded" and "token" in caught.value.message.lower()
    assert caught.value.body["details"]["limit"] == "max_tokens_per_day"
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0", "trying again is of no use"
    assert caller.reached() == 1
    assert caller.spent()[0] == PROMPT_TOKENS + len(WORDS)


def test_models_are_those_of_the_policy_and_of_the_prices(caller_of):
    caller = caller_of(allowed_models=["gpt-4"])
    with pytest.raises(openai.PermissionDeniedError) as refused:
        caller.chat(model="gpt-4o")
    assert refused.value.code == "model_not_allowed"
    with pytest.raises(openai.NotFoundError) as unknown:
        caller.chat(model="gpt-4-free")
    assert unknown.value.code == "model_not_found"
    assert (caller.reached(), caller.spent()) == (0, (0, 0, 0))


def test_requests_that_cannot_be_priced_are_refused(caller_of, gateway):
    caller = caller_of()
    for members in [{"max_tokens": 0}, {"max_tokens": -1}, {"max_completion_tokens": 1.5}, {"n": "many"}]:
        with pytest.raises(openai.BadRequestError):
            caller.chat(**members)
    headers = {"Authorization": f"Bearer {caller.token}"}
    # The last of two members is not what the provider would read as well.
    for text in ["", "[]", '{"model":"gpt-4o-mini","model":"gpt-4","messages":[]}']:
        response = requests.post(f"{gateway.url}/chat/completions", data=text, headers=headers, timeout=30)
        assert response.status_code in (400, 404), text
    assert (caller.reached(), caller.spent()) == (0, (0, 0, 0))


def test_what_is_no_text_is_refused(caller_of):
    caller = caller_of()
    image = {"type": "image_url", "image_url": {"url": "https://images.test/1.png"}}
    text = {"type": "text", "text": "hello"}
    for message in [
        {"role": "user", "content": [text, image]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
        {"role": "assistant", "audio": {"id": "audio-1"}},
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            caller.chat([*HELLO, message])
        assert "text" in refused.value.message
    assert (caller.reached(), caller.spent()) == (0, (0, 0, 0))
    caller.chat([{"role": "user", "content": [text]}])
    assert caller.reached() == 1


def test_each_byte_may_be_a_token(caller_of):
    caller = caller_of(max_tokens_per_day=1000)
    with pytest.raises(openai.RateLimitError):
        caller.chat(saying("\u0f40" * 350), max_tokens=1)
    assert caller.reached() == 0


def test_who_is_not_let_in_learns_so_from_the_client(caller_of, gateway):
    caller = caller_of(capabilities=["llm:chat", "read:documents"])
    for token in ["nobody", caller.agent.access_token]:
        with pytest.raises(openai.AuthenticationError) as caught:
            openai.OpenAI(base_url=gateway.url, api_key=token).chat.completions.create(model="gpt-4", messages=HELLO)
        assert caught.value.code == "invalid_token"
    reader = caller_of(capabilities=["read:documents"])
    with pytest.raises(openai.PermissionDeniedError) as caught:
        reader.chat()
    assert caught.value.code == "capability_denied"
    assert caller.reached() == 0


def test_a_client_that_leaves_midway_pays_for_what_came(caller_of, gateway):
    caller = caller_of()
    gateway.provider.hung_up.clear()
    stream = caller.chat(saying("drip"), stream=True)
    for _ in range(20):
        next(stream)
    reserved = caller.spent()
    assert reserved[0] > 8192, "all that it may use is held"
    stream.close()
    assert gateway.provider.hung_up.wait(10), "the provider need not go on"
    end = time.monotonic() + 10
    while caller.spent() == reserved and time.monotonic() < end:
        time.sleep(0.02)
    tokens, calls, money = caller.spent()
    answered = (money - cost(tokens, 0)) / (cost(0, 1) - cost(1, 0))
    assert 20 <= answered < tokens < 2000 and calls == 1


def test_a_client_that_leaves_before_the_answer_pays_the_estimate(caller_of):
    caller = caller_of()
    with pytest.raises(openai.APITimeoutError):
        caller.llm.with_options(timeout=0.2, max_retries=0).chat.completions.create(
            model="gpt-4", messages=saying("wait"), max_tokens=50
        )
    time.sleep(0.6)
    tokens, calls, money = caller.spent()
    assert tokens > 50 and calls == 1 and money == cost(tokens - 50, 50)


def test_an_error_of_the_provider_is_passed_on_and_costs_one_call(caller_of):
    caller = caller_of()
    caller.llm = caller.llm.with_options(max_retries=0)
    for stream in [False, True]:
        with pytest.raises(openai.InternalServerError) as caught:
            caller.chat(saying("fail"), stream=stream)
        assert caught.value.message.endswith("overloaded") or caught.value.body["message"] == "overloaded"
        assert caught.value.response.headers["x-request-id"] == "req-1"
    caller.comes_to((0, 2, 0))


def test_the_key_of_the_provider_is_not_told(caller_of):
    caller = caller_of()
    caller.llm = caller.llm.with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        caller.chat(saying("forbid"))
    assert caught.value.status_code == 502 and UPSTREAM_KEY not in caught.value.response.text
    caller.comes_to((0, 1, 0))


def test_concurrent_calls_never_pass_the_limit(caller_of):
    caller = caller_of(max_tokens_per_day=1000)
    caller.llm = caller.llm.with_options(max_retries=0)

    def one(_):
        try:
            caller.chat(saying("wait"), max_tokens=100)
            return True
        except openai.RateLimitError:
            return False

    with ThreadPoolExecutor(24) as pool:
        passed = sum(pool.map(one, range(24)))
    # Each of them holds more than a hundred tokens while it runs, so at most nine do.
    assert 1 <= passed <= 9 and caller.reached() == passed
    caller.comes_to((passed * (PROMPT_TOKENS + len(WORDS)), passed, passed * cost(PROMPT_TOKENS, len(WORDS))))


@pytest.fixture
def alice(server):
    return Alice(server, "openid approvals.manage")


def pending(alice, caller):
    """What waits for her because of the caller."""
    url = f"{alice.base}/approvals/pending"
    response = requests.get(url, params={"limit": 100}, headers=alice.headers, timeout=30)
    assert response.status_code == 200, response.text
    return [item for item in response.json()["data"] if (item["meta"] or {}).get("caller") == caller.id]


def asked(alice, caller):
    """What she is asked for the caller."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if found := pending(alice, caller):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("nobody is asked")


def test_a_costly_call_waits_until_a_person_agrees(caller_of, alice):
    caller = caller_of(require_approval_above_usd=0.1)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(caller.chat, max_tokens=4000)
        seen = asked(alice, caller)
        assert not call.done() and caller.reached() == 0
        assert caller.agent.record["name"] in seen["reason"] and "LLM Gateway" in seen["reason"]
        assert seen["meta"]["model"] == "gpt-4"
        assert decimal.Decimal(seen["meta"]["reserve"]["cost_usd"]) > cost(0, 4000)
        alice.say("approve", seen["approval_token"])
        assert call.result(30).choices[0].message.content == "".join(WORDS)
    caller.comes_to((PROMPT_TOKENS + len(WORDS), 1, cost(PROMPT_TOKENS, len(WORDS))))
    # A cheap one asks nobody.
    caller.chat(max_tokens=10)


def test_a_costly_call_that_is_denied_is_refused(caller_of, alice):
    caller = caller_of(require_approval_above_usd=0.1)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(caller.chat, max_tokens=4000)
        alice.say("deny", asked(alice, caller)["approval_token"])
        with pytest.raises(openai.PermissionDeniedError) as caught:
            call.result(30)
    assert caught.value.code == "approval_denied"
    assert (caller.reached(), caller.spent()) == (0, (0, 0, 0))


def test_a_client_that_does_not_wait_for_the_person_pays_nothing(caller_of, alice):
    caller = caller_of(require_approval_above_usd=0.1)
    with pytest.raises(openai.APITimeoutError):
        caller.llm.with_options(timeout=1, max_retries=0).chat.completions.create(
            model="gpt-4", messages=HELLO, max_tokens=4000
        )
    caller.comes_to((0, 0, 0))
    # Nobody is asked any more.
    end = time.monotonic() + 10
    while pending(alice, caller) and time.monotonic() < end:
        time.sleep(0.05)
    assert not pending(alice, caller)
    assert (caller.reached(), caller.spent()) == (0, (0, 0, 0))
