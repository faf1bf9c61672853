"""The official SDK, unmodified, sees a budget run out with the very call that uses it up."""

import pytest
from lumoauth.errors import LumoAuthRateLimitError

LIMIT = 100


class Spender:
    """An SDK agent with a hundred tokens a day, and its own calls about them."""

    def __init__(self, agent):
        self.agent = agent
        self.base = f"/orgs/{agent.org_id}/api/v1/agents/me"

    def post(self, path, **members):
        return self.agent.api_request("POST", f"{self.base}/{path}", data=members)

    def report(self, tokens):
        response = self.post("usage", tokens=tokens)
        assert response.status_code == 200, response.text
        return response.json()

    def reserve(self, name, tokens):
        return self.post("budget/reservations", id=name, tokens=tokens)

    def end(self, name, how, **members):
        return self.post(f"budget/reservations/{name}/{how}", **members)

    def is_exhausted(self):
        """What the SDK says, which keeps what it was told until it asks for the agent again."""
        self.agent.get_agent_info()
        return self.agent.is_budget_exhausted()

    def is_served(self):
        """Whether a call that needs room in the budget is served."""
        try:
            return self.agent.ask("read:a")["allowed"]
        except LumoAuthRateLimitError as error:
            assert (error.status_code, error.code) == (429, "budget_exceeded")
            assert 0 < error.retry_after <= 86400
            return False


@pytest.fixture
def spender(agent_of):
    return Spender(agent_of(capabilities=["read:a"], budget_policy={"max_tokens_per_day": LIMIT}))


def test_the_report_that_reaches_the_limit_exhausts_it_and_the_one_before_does_not(spender):
    for used in range(9, LIMIT, 9):
        assert spender.report(9)["exceeded"] == []
        assert not spender.is_exhausted() and spender.is_served(), used
    # 99 are used: one is left.
    assert spender.agent.get_budget_status()["tokens_used_today"] == 99
    assert spender.report(0)["exceeded"] == []
    assert not spender.is_exhausted() and spender.is_served()
    spender.report(1)
    assert spender.is_exhausted() and not spender.is_served()
    assert spender.agent.get_budget_status()["tokens_used_today"] == LIMIT


def test_a_reservation_exhausts_it_until_less_was_used(spender):
    assert spender.reserve("most", 99).status_code == 201
    assert not spender.is_exhausted() and spender.is_served()
    # All or nothing: what does not fit changes nothing.
    assert spender.reserve("too much", 2).status_code == 429
    assert not spender.is_exhausted() and spender.is_served()
    assert spender.reserve("last", 1).status_code == 201
    assert spender.is_exhausted() and not spender.is_served()
    # The same call again holds nothing more.
    assert spender.reserve("last", 1).status_code == 200
    assert spender.is_exhausted()

    settled = spender.end("most", "settle", tokens=98)
    assert settled.status_code == 200 and settled.json()["charged"]["tokens"] == 98
    assert not spender.is_exhausted() and spender.is_served()
    assert spender.reserve("again", 1).status_code == 201
    assert spender.is_exhausted() and not spender.is_served()
    assert spender.end("again", "release").status_code == 200
    assert not spender.is_exhausted() and spender.is_served()
    # What was really used is a fact, also above what was held.
    overshot = spender.end("last", "settle", tokens=50)
    assert overshot.status_code == 200 and overshot.json()["exceeded"] == ["max_tokens_per_day"]
    assert spender.is_exhausted() and not spender.is_served()
    assert spender.agent.get_budget_status()["tokens_used_today"] == 148


def test_reports_and_reservations_share_the_limit_and_raising_it_reopens(server, spender):
    spender.report(60)
    assert spender.reserve("rest", 40).status_code == 201
    assert spender.is_exhausted() and not spender.is_served()
    path = f"/agents/{spender.agent.record['agentId']}/budget"
    assert server.admin("PUT", path, json={"max_tokens_per_day": LIMIT + 1}).status_code == 200
    assert not spender.is_exhausted() and spender.is_served()
    assert spender.reserve("one more", 1).status_code == 201
    assert spender.is_exhausted() and not spender.is_served()
    assert server.admin("POST", f"{path}/reset").status_code == 200
    assert not spender.is_exhausted() and spender.is_served()
    # What was held before the reset belongs to what was reset.
    assert spender.end("rest", "settle", tokens=99).status_code == 200
    assert not spender.is_exhausted()
    assert spender.agent.get_budget_status()["tokens_used_today"] == 0
