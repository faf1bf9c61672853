//! What the writers were told, and the check that the servers still know all of it, once.

use std::{
    collections::{HashMap, HashSet},
    thread,
};

use lumoauth_tests::{Auditor, Connection, Request, Response, Server, int, list, text};
use serde_json::{Value, json};

/// An agent as its owner knows it.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) agent_id: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

impl Agent {
    /// An agent with `policy` as its budget, and a token of it.
    pub(crate) fn create(server: &Server, policy: &Value) -> Self {
        // Its token outlives the longest run.
        let members = json!({ "capabilities": ["read:a"], "budgetPolicy": policy, "tokenLifetime": DAY });
        let agent = server.acme().create_agent(members);
        let token = agent.token();
        Self { agent_id: agent.agent_id, client_id: agent.client_id, secret: agent.secret, token }
    }

    /// The agent whose budget charges go to. It has limits, so that use is shown, and never reaches them.
    pub(crate) fn spender(server: &Server) -> Self {
        Self::create(server, &json!({ "max_cost_per_month_usd": 1_000_000 }))
    }

    fn form<'a>(&'a self, first: (&'a str, &'a str)) -> [(&'a str, &'a str); 3] {
        [first, ("client_id", &self.client_id), ("client_secret", &self.secret)]
    }

    /// A request for a token, which writes an audit event.
    pub(crate) fn token_request(&self, server: &Server) -> Request {
        server.acme().post("/oauth/token").form(&self.form(("grant_type", "client_credentials")))
    }

    /// A request to revoke `token`.
    pub(crate) fn revocation(&self, server: &Server, token: &str) -> Request {
        server.acme().post("/oauth/revoke").form(&self.form(("token", token)))
    }

    /// A question about `token`.
    pub(crate) fn introspection(&self, server: &Server, token: &str) -> Request {
        server.acme().post("/oauth/introspect").form(&self.form(("token", token)))
    }

    /// Asks whether it may act, which counts as a call and writes an audit event.
    pub(crate) fn question(&self, server: &Server) -> Request {
        let body = json!({ "action": "read:a" });
        server.acme().post("/agents/ask").bearer(&self.token).json(body)
    }

    /// A charge of one micro-dollar. The month is the longest window, so a run does not straddle one.
    pub(crate) fn charge(&self, server: &Server, key: Option<&str>) -> Request {
        // As text: a JSON library may write such a small number with an exponent.
        let body = match key {
            Some(key) => format!(r#"{{"cost_usd":0.000001,"idempotency_key":"{key}"}}"#),
            None => r#"{"cost_usd":0.000001}"#.to_owned(),
        };
        server.acme().post("/agents/me/usage").bearer(&self.token).body("application/json", body)
    }

    /// How many micro-dollars it has used this month, as it is shown.
    pub(crate) fn used(&self, server: &Server) -> u64 {
        let dollars = self.shown(server, "cost_this_month_usd").as_f64().expect("a number");
        let micro = (dollars * 1e6).round();
        format!("{micro}").parse().expect("a whole number of micro-dollars")
    }

    /// How many calls it has made this hour, as it is shown.
    pub(crate) fn calls(&self, server: &Server) -> u64 {
        u64::try_from(int(&self.shown(server, "api_calls_this_hour"))).expect("no less than zero")
    }

    fn shown(&self, server: &Server, member: &str) -> Value {
        let info = server.acme().get("/oauth/userinfo").bearer(&self.token).send().ok();
        info["budget_policy"][member].clone()
    }
}

/// In seconds.
pub(crate) const DAY: i64 = 86_400;

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
    pub(crate) revoked: Vec<String>,
    pub(crate) attempted_revocations: u64,
    /// Tokens that nobody wanted to revoke.
    pub(crate) kept: Vec<String>,
    /// Keeps signed heads of the log, which it may not contradict later.
    pub(crate) auditor: Auditor,
}

impl Ledger {
    /// Repeats the charges whose fate is unknown under their keys, as a careful client would.
    pub(crate) fn settle_unknown_charges(&mut self, server: &Server, spender: &Agent) {
        let keys = std::mem::take(&mut self.unknown_keys);
        let share = (keys.len() / 8).max(1);
        thread::scope(|scope| {
            for keys in keys.chunks(share) {
                scope.spawn(move || {
                    let mut connection = Connection::open(server.authority()).expect("the server listens");
                    for key in keys {
                        let request = spender.charge(server, Some(key));
                        connection.send(&request).expect("the server answers").ok();
                    }
                });
            }
        });
    }

    /// What was acknowledged last is what a kill endangers most.
    pub(crate) fn check_newest(&self, server: &Server, spender: &Agent) {
        if let Some(agent) = self.agents.last() {
            agent.token_request(server).send().ok();
        }
        if let Some(id) = self.questions.last() {
            assert_eq!(server.acme().audit(&format!("auditId={id}")).len(), 1, "{id}");
        }
        check_tokens(server, spender, self.revoked.iter().rev().take(3), false);
        check_tokens(server, spender, self.kept.iter().rev().take(1), true);
        let used = spender.used(server);
        assert!(self.possible_use().contains(&used), "{used} micro-dollars, not {:?}", self.possible_use());
    }

    /// Every acknowledged agent, charge, revocation and event is there, nothing twice, and the log has no gap.
    pub(crate) fn check_everything(&self, server: &Server, spender: &Agent) {
        let kinds = [self.agents.len(), self.keys.len(), self.questions.len(), self.revoked.len()];
        assert!(!kinds.contains(&0), "{}", self.summary());
        let used = spender.used(server);
        assert!(self.possible_use().contains(&used), "{used} micro-dollars, not {:?}", self.possible_use());

        let log = whole_log(server);
        let ids: HashSet<i64> = log.iter().map(|entry| int(&entry["id"])).collect();
        assert_eq!(ids.len(), log.len(), "a number occurs twice");
        let (first, last) = (ids.iter().min().expect("entries"), ids.iter().max().expect("entries"));
        assert_eq!((*first, usize::try_from(*last).expect("positive")), (1, ids.len()), "a gap");
        let events: HashSet<&str> = log.iter().map(|entry| text(&entry["eventId"])).collect();
        assert_eq!(events.len(), log.len(), "an event occurs twice");
        // What is hashed and signed is what is listed (security AU-02). Whoever lists writes ids without hyphens.
        let signed: Vec<String> = self
            .auditor
            .check(&server.acme())
            .iter()
            .map(|event| text(&event["id"]).replace('-', ""))
            .collect();
        // Others may have come since it was listed.
        let unlisted = signed.iter().take(log.len()).filter(|id| !events.contains(id.as_str())).count();
        assert_eq!(unlisted, 0, "of {} events so many are signed and not listed", log.len());
        let signed: HashSet<String> = signed.into_iter().collect();
        let unsigned = events.iter().filter(|id| !signed.contains(**id)).count();
        assert_eq!(unsigned, 0, "of {} events so many are listed and not signed", events.len());

        self.check_agents(server, &log);
        self.check_events(spender, &log, &events);
        check_tokens(server, spender, &self.revoked, false);
        check_tokens(server, spender, self.kept.iter().rev().take(200), true);
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
            agent.token_request(server).send().ok();
        }
    }

    fn check_events(&self, spender: &Agent, log: &[Value], events: &HashSet<&str>) {
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
        for id in &self.questions {
            assert!(events.contains(id.as_str()), "the event {id} is lost");
        }
        let revoked = by_actor("token.revoked");
        let acknowledged = u64::try_from(self.revoked.len()).expect("fits");
        assert!(
            (acknowledged..=self.attempted_revocations).contains(&revoked),
            "{revoked}: {}",
            self.summary()
        );
    }

    /// Charges with a key count once each, however often they were sent; others once if acknowledged, and at most
    /// once if not.
    pub(crate) fn possible_use(&self) -> std::ops::RangeInclusive<u64> {
        let keyed = u64::try_from(self.keys.len()).expect("fits");
        keyed + self.charges..=keyed + self.attempted_charges
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "agents {}/{}, charges with key {}, without {}/{}, tokens {}/{}, questions {}/{}, revocations {}/{}",
            self.agents.len(),
            self.attempted_agents.len(),
            self.keys.len(),
            self.charges,
            self.attempted_charges,
            self.tokens,
            self.attempted_tokens,
            self.questions.len(),
            self.attempted_questions,
            self.revoked.len(),
            self.attempted_revocations,
        )
    }
}

/// Each of `tokens` is active, or none is.
fn check_tokens<'a>(
    server: &Server,
    asker: &Agent,
    tokens: impl IntoIterator<Item = &'a String>,
    active: bool,
) {
    let mut connection = Connection::open(server.authority()).expect("the server listens");
    for token in tokens {
        let response: Response =
            connection.send(&asker.introspection(server, token)).expect("the server answers");
        assert_eq!(response.ok()["active"], active, "{response}");
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
