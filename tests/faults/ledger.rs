//! What the writers were told, and the check that the server still knows all of it, once.

use std::collections::{HashMap, HashSet};

use lumoauth_tests::{Request, Server, int, list, text};
use serde_json::Value;

/// An agent as its owner knows it.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) agent_id: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

/// Acknowledged and attempted work. Whoever was not answered may or may not have had an effect, but only one.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) agents: Vec<Agent>,
    pub(crate) attempted_agents: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) unknown_keys: Vec<String>,
    pub(crate) charges: u64,
    pub(crate) attempted_charges: u64,
    pub(crate) tokens: u64,
    pub(crate) attempted_tokens: u64,
    pub(crate) questions: Vec<String>,
    pub(crate) attempted_questions: u64,
}

impl Ledger {
    /// A charge of one micro-dollar. The month is the longest window, so a run does not straddle one.
    pub(crate) fn charge(server: &Server, spender: &Agent, key: Option<&str>) -> Request {
        // As text: a JSON library may write such a small number with an exponent.
        let body = match key {
            Some(key) => format!(r#"{{"cost_usd":0.000001,"idempotency_key":"{key}"}}"#),
            None => r#"{"cost_usd":0.000001}"#.to_owned(),
        };
        server.acme().post("/agents/me/usage").bearer(&spender.token).body("application/json", body)
    }

    /// A request for a token, which writes an audit event.
    pub(crate) fn token_request(server: &Server, agent: &Agent) -> Request {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", agent.client_id.as_str()),
            ("client_secret", agent.secret.as_str()),
        ];
        server.acme().post("/oauth/token").form(&form)
    }

    /// Repeats the charges whose fate is unknown under their keys, as a careful client would.
    pub(crate) fn settle_unknown_charges(&mut self, server: &Server, spender: &Agent) {
        for key in self.unknown_keys.drain(..) {
            Self::charge(server, spender, Some(&key)).send().ok();
        }
    }

    /// What was acknowledged last is what a kill endangers most.
    pub(crate) fn check_newest(&self, server: &Server, spender: &Agent) {
        if let Some(agent) = self.agents.last() {
            Self::token_request(server, agent).send().ok();
        }
        if let Some(id) = self.questions.last() {
            assert_eq!(server.acme().audit(&format!("auditId={id}")).len(), 1, "{id}");
        }
        let used = self.used(server, spender);
        assert!(self.possible_use().contains(&used), "{used} micro-dollars, not {:?}", self.possible_use());
    }

    /// Every acknowledged agent, charge and event is there, nothing twice, and the log has no gap.
    pub(crate) fn check_everything(&self, server: &Server, spender: &Agent) {
        assert!(
            !self.agents.is_empty() && !self.keys.is_empty() && !self.questions.is_empty(),
            "{}",
            self.summary()
        );
        let used = self.used(server, spender);
        assert!(self.possible_use().contains(&used), "{used} micro-dollars, not {:?}", self.possible_use());

        let log = whole_log(server);
        let ids: HashSet<i64> = log.iter().map(|entry| int(&entry["id"])).collect();
        assert_eq!(ids.len(), log.len(), "a number occurs twice");
        let (first, last) = (ids.iter().min().expect("entries"), ids.iter().max().expect("entries"));
        assert_eq!((*first, usize::try_from(*last).expect("positive")), (1, ids.len()), "a gap");

        self.check_agents(server, &log);
        self.check_events(spender, &log, server);
    }

    fn check_agents(&self, server: &Server, log: &[Value]) {
        let created = count_by(log, "agent.created", "targetId");
        let attempted: HashSet<&str> = self.attempted_agents.iter().map(String::as_str).collect();
        let listed = whole_list(server, "/agents?search=Survivor");
        let names: Vec<&str> = listed.iter().map(|agent| text(&agent["name"])).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "an agent twice");
        assert!(names.iter().all(|name| attempted.contains(name)), "an agent nobody asked for");
        let known: HashSet<&str> = listed.iter().map(|agent| text(&agent["agentId"])).collect();
        for agent in &self.agents {
            assert!(known.contains(agent.agent_id.as_str()), "{} is lost", agent.agent_id);
        }
        // An agent without its event, or an event without its agent, is a torn write.
        for id in &known {
            assert_eq!(created.get(*id), Some(&1), "{id} has not exactly one event");
        }
        let survivors = log.iter().filter(|entry| entry["action"] == "agent.created");
        let survivors = survivors
            .filter(|entry| entry["targetName"].as_str().is_some_and(|it| it.starts_with("Survivor")));
        assert_eq!(survivors.count(), known.len(), "an event without its agent");
        // All secrets work; every tenth is enough to show it in the time there is.
        for agent in self.agents.iter().step_by(10).chain(self.agents.last()) {
            Self::token_request(server, agent).send().ok();
        }
    }

    fn check_events(&self, spender: &Agent, log: &[Value], server: &Server) {
        let by_actor = |action: &str| {
            let entries =
                log.iter().filter(|entry| entry["action"] == action && entry["actorId"] == spender.agent_id);
            u64::try_from(entries.count()).expect("fits")
        };
        // The spender's first token, for its own use, comes on top.
        let tokens = by_actor("agent.authenticated");
        assert!(
            (self.tokens + 1..=self.attempted_tokens + 1).contains(&tokens),
            "{tokens}: {}",
            self.summary()
        );
        let asked = by_actor("agent.action");
        let acknowledged = u64::try_from(self.questions.len()).expect("fits");
        assert!((acknowledged..=self.attempted_questions).contains(&asked), "{asked}: {}", self.summary());
        let distinct: HashSet<&String> = self.questions.iter().collect();
        assert_eq!(distinct.len(), self.questions.len(), "an audit id twice");
        for id in self.questions.iter().step_by(7) {
            assert_eq!(server.acme().audit(&format!("auditId={id}")).len(), 1, "{id} is lost or doubled");
        }
    }

    /// Charges with a key count once each, however often they were sent; others once if acknowledged, and at most
    /// once if not.
    fn possible_use(&self) -> std::ops::RangeInclusive<u64> {
        let keyed = u64::try_from(self.keys.len()).expect("fits");
        keyed + self.charges..=keyed + self.attempted_charges
    }

    fn used(&self, server: &Server, spender: &Agent) -> u64 {
        let info = server.acme().get("/oauth/userinfo").bearer(&spender.token).send().ok();
        let dollars = info["budget_policy"]["cost_this_month_usd"].as_f64().expect("a number");
        let micro = (dollars * 1e6).round();
        format!("{micro}").parse().expect("a whole number of micro-dollars")
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "agents {}/{}, charges with key {}, without {}/{}, tokens {}/{}, questions {}/{}",
            self.agents.len(),
            self.attempted_agents.len(),
            self.keys.len(),
            self.charges,
            self.attempted_charges,
            self.tokens,
            self.attempted_tokens,
            self.questions.len(),
            self.attempted_questions,
        )
    }
}

fn count_by(log: &[Value], action: &str, member: &str) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for entry in log.iter().filter(|entry| entry["action"] == action) {
        *counts.entry(text(&entry[member]).to_owned()).or_default() += 1;
    }
    counts
}

fn whole_log(server: &Server) -> Vec<Value> {
    let mut entries: Vec<Value> = whole_list(server, "/audit-logs?");
    entries.sort_by_key(|entry| int(&entry["id"]));
    entries
}

fn whole_list(server: &Server, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    for page in 1.. {
        let body = server.acme().admin("GET", &format!("{path}&limit=100&page={page}")).send().ok();
        items.extend_from_slice(list(&body["data"]));
        if body["meta"]["hasNextPage"] != true {
            break;
        }
    }
    items
}
