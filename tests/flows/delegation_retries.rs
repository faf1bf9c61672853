//! A client that cannot know whether its exchange happened sends it again (security TE-31).
//!
//! An exchange is no charge with a key: each one that happens is paid, and gives a token of its own that ends with what it
//! comes from. So the client that repeats one has one token more than it knows of at most, and is charged for both.

use std::{io, thread, time::Duration};

use lumoauth_tests::{
    Agent, CALLBACK, Connection, Request, Response, Server, Stopwatch, Token, int, on_each_backend,
    services::{Direction, Proxy},
    text,
};
use serde_json::json;

on_each_backend!(
    exchange_whose_answer_is_lost_gives_one_token_more,
    exchange_that_is_cut_short_never_happened,
    exchange_whose_client_hangs_up_happens_once_or_not_at_all,
    token_request_whose_answer_is_lost_is_free,
);

/// The way of one request, always the same, to the server.
struct Line<'a> {
    agent: Agent<'a>,
    /// The token that the agent looks at itself with.
    own: String,
    subject: String,
    request: Request,
    proxy: Proxy,
    /// How many bytes the request has, and about how many its answer.
    sizes: [u64; 2],
}

impl<'a> Line<'a> {
    /// One over which a request has gone that nothing happened to. `calls` are what the agent may do in an hour.
    fn new(
        server: &'a Server,
        calls: u32,
        fields: impl Fn(&Agent<'_>, &str, &str) -> Vec<(String, String)>,
    ) -> Self {
        lumoauth_tests::avoid_hour_edge();
        let org = server.acme();
        let agent = org.create_agent(json!({
            "capabilities": ["read:a", "delegate:on_behalf"], "redirectUris": [CALLBACK],
            "budgetPolicy": { "max_api_calls_per_hour": calls },
        }));
        let (subject, own) = (org.person().allow(&agent, "read:a").access, agent.token());
        let fields = fields(&agent, &subject, &own);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let proxy = Proxy::start(server.authority().parse().expect("an address"));
        let target = format!("/orgs/{}/api/v1/oauth/token", org.slug());
        let request = Request::new(&proxy.address().to_string(), "POST", &target)
            .header("Host", server.authority())
            .form(&fields);
        let mut line = Self { agent, own, subject, request, proxy, sizes: [0; 2] };
        line.send().expect("an answer").ok();
        line.sizes = [Direction::ToService, Direction::ToClient].map(|way| line.proxy.passed(way));
        line
    }

    /// One for an exchange of a person's token.
    fn exchange(server: &'a Server, calls: u32) -> Self {
        Self::new(server, calls, |_, subject, own| {
            let access = "urn:ietf:params:oauth:token-type:access_token";
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token", subject),
                ("subject_token_type", access),
                ("actor_token", own),
                ("actor_token_type", access),
            ];
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
        })
    }

    /// Sends it on a connection of its own.
    fn send(&self) -> io::Result<Response> {
        Connection::open(&self.proxy.address().to_string())?.send(&self.request)
    }

    /// Sends it over a connection that is cut after so many bytes.
    #[track_caller]
    fn send_and_lose(&self, way: Direction, bytes: u64) {
        let before = self.proxy.cuts();
        self.proxy.cut_after(way, bytes);
        if let Ok(answer) = self.send() {
            panic!("{bytes} bytes {way:?} were enough: {answer}");
        }
        assert_eq!(self.proxy.cuts(), before + 1, "{bytes} bytes {way:?}");
    }

    /// How many calls the agent has been charged.
    fn charged(&self) -> i64 {
        int(&self.agent.userinfo(&self.own).ok()["budget_policy"]["api_calls_this_hour"])
    }

    /// How many exchanges the audit log has, each of which made a token.
    fn made(&self) -> i64 {
        let org = &self.agent.org;
        let rows = org.audit(&format!("actor={}&action=agent.action", self.agent.agent_id));
        let made = rows.iter().filter(|row| {
            let whole = org.admin("GET", &format!("/audit-logs/{}", row["id"])).send().ok();
            whole["data"]["status"] == "success" && whole["data"]["context"]["action"] == "token.exchange"
        });
        i64::try_from(made.count()).expect("fits")
    }
}

fn exchange_whose_answer_is_lost_gives_one_token_more(server: &Server) {
    let line = Line::exchange(server, 7);
    let [_, answer] = line.sizes;
    let mut got = Vec::new();
    for (round, bytes) in (0..).zip([1, answer / 2, answer - 20]) {
        assert_eq!((line.made(), line.charged()), (1 + 2 * round, 1 + 2 * round));
        line.send_and_lose(Direction::ToClient, bytes);
        // It happened, whether anybody knows or not.
        assert_eq!((line.made(), line.charged()), (2 + 2 * round, 2 + 2 * round));
        let body = line.send().expect("an answer").ok();
        got.push(Token::parse(text(&body["access_token"])));
    }
    assert_eq!((line.made(), line.charged()), (7, 7));
    // Repeating goes on at the same agent's expense, until there is nothing left.
    let over = line.send().expect("an answer");
    over.refused(429, "budget_exceeded");
    assert_eq!((line.made(), line.charged()), (7, 7));
    for token in &got {
        assert_eq!(token.claims["scope"], "read:a");
        assert!(line.agent.sees_alive(&token.text));
        assert_eq!(got.iter().filter(|other| other.claims["jti"] == token.claims["jti"]).count(), 1);
    }
    line.agent.revoke(&line.subject);
    assert!(got.iter().all(|token| !line.agent.sees_alive(&token.text)));
}

fn exchange_that_is_cut_short_never_happened(server: &Server) {
    let line = Line::exchange(server, 100);
    let [request, _] = line.sizes;
    for (round, bytes) in (1..).zip([1, request / 4, request / 2, request - 1]) {
        line.send_and_lose(Direction::ToService, bytes);
        assert_eq!((line.made(), line.charged()), (round, round));
        line.send().expect("an answer").ok();
        assert_eq!((line.made(), line.charged()), (round + 1, round + 1));
    }
}

fn exchange_whose_client_hangs_up_happens_once_or_not_at_all(server: &Server) {
    const ROUNDS: i64 = 8;
    let line = Line::exchange(server, 100);
    let [request, _] = line.sizes;
    let mut lost = 0;
    for round in 1..=ROUNDS {
        let before = line.proxy.passed(Direction::ToService);
        lost += thread::scope(|scope| {
            let sent = scope.spawn(|| line.send());
            // As soon as the server has it whole, it finds nobody to tell.
            let watch = Stopwatch::start();
            while line.proxy.passed(Direction::ToService) < before + request {
                assert!(watch.elapsed() < Duration::from_secs(60), "the request does not arrive");
                thread::yield_now();
            }
            line.proxy.cut_all();
            usize::from(sent.join().expect("no panic").is_err())
        });
        line.send().expect("an answer").ok();
        // In this order: what is made is paid before.
        let (made, charged) = (line.made(), line.charged());
        assert!((round + 1..=2 * round + 1).contains(&made), "{made} made after {round} rounds");
        assert!((made..=2 * round + 1).contains(&charged), "{charged} charged for {made}");
    }
    assert!(lost > 0, "no answer was lost");
}

fn token_request_whose_answer_is_lost_is_free(server: &Server) {
    let line = Line::new(server, 0, |agent, _, _| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &agent.client_id),
            ("client_secret", &agent.secret),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    });
    let signed_in =
        || line.agent.org.audit(&format!("actor={}&action=agent.authenticated", line.agent.agent_id)).len();
    let before = signed_in();
    line.send_and_lose(Direction::ToClient, line.sizes[1] / 2);
    assert_eq!(signed_in(), before + 1);
    let body = line.send().expect("an answer").ok();
    assert_eq!(signed_in(), before + 2);
    assert!(line.agent.sees_alive(text(&body["access_token"])));
    assert_eq!((line.charged(), line.made()), (0, 0));
}
