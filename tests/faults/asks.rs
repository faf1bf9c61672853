//! Questions of agents to people, and what becomes of the answers when whoever keeps them is killed.

use std::{sync::mpsc, thread, time::Duration};

use lumoauth_tests::{
    Auditor, Connection, KeyPage, KeySite, Request, Response, Server, Stopwatch, text, unique,
};
use serde_json::{Value, json};

use crate::{answers::is_not_now, ledger::Agent};

/// How many of each kind are asked in one round.
const EACH: usize = 12;

/// Who answers at a time.
const DECIDERS: usize = 4;

/// What is asked, and what a person is going to say.
#[derive(Debug)]
struct Question {
    id: String,
    kind: Kind,
    yes: bool,
    fate: Fate,
}

#[derive(Debug)]
enum Kind {
    /// An approval; its name in the log.
    Approval(String),
    /// A permission in a task, and who wants to hear the answer.
    Permission(KeyPage<'static>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody answered it.
    Open,
    /// Somebody sent an answer and heard nothing, or that it cannot be taken now.
    Unknown,
    /// The answer was acknowledged.
    Told,
}

/// How many answers had which fate.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    pub(crate) told: usize,
    pub(crate) unknown_done: usize,
    pub(crate) unknown_pending: usize,
    pub(crate) open: usize,
}

/// What one agent asks, and the people who answer.
#[derive(Debug)]
pub(crate) struct Asks {
    agent: Agent,
    person: String,
    admin: String,
    questions: Vec<Question>,
}

impl Asks {
    /// Asks everything, through `server`, which knows our sites.
    pub(crate) fn ask(server: &Server) -> Self {
        let org = server.acme();
        let made = org.delegate(&["read:a"]);
        let agent = Agent {
            agent_id: made.agent_id.clone(),
            client_id: made.client_id.clone(),
            secret: made.secret.clone(),
            token: made.token(),
        };
        let person = org.person_with(json!({ "approver": { "enabled": true } }));
        let admin = org.person_with(json!({ "isAdmin": true })).in_person("openid jit:approve");
        let mut questions = Vec::new();
        for n in 0..EACH {
            let name = unique("task");
            let body =
                json!({ "task_id": name, "reason": "Pay", "impact": "high", "on_behalf_of": person.email });
            let made = org.post("/agents/me/approvals").bearer(&agent.token).json(body).send().expect(201);
            let id = text(&made.json()["approval_token"]).to_owned();
            questions.push(Question { id, kind: Kind::Approval(name), yes: n % 2 == 0, fate: Fate::Open });

            let page = KeySite::trusted().page();
            page.show(json!({}));
            let task = org.post("/jit/task").bearer(&agent.token).json(json!({})).send().expect(201).json();
            let body = json!({
                "task_id": task["task_id"], "callback_url": page.uri(),
                "authorization_details": { "type": "file_access", "actions": ["delete"], "identifier": "a" },
            });
            let made = org.post("/jit/request").bearer(&agent.token).json(body).send().expect(201).json();
            assert_eq!(made["status"], "pending", "{made}");
            let id = text(&made["request_id"]).to_owned();
            questions.push(Question { id, kind: Kind::Permission(page), yes: n % 2 == 1, fate: Fate::Open });
        }
        Self { agent, person: person.in_person("openid"), admin, questions }
    }

    /// Answers through `server`, and calls `kill` as soon as `acknowledged` answers were.
    pub(crate) fn answer(&mut self, server: &Server, acknowledged: usize, kill: impl FnOnce()) {
        let (person, admin) = (&*self.person, &*self.admin);
        let (told, heard) = mpsc::channel();
        let share = self.questions.len().div_ceil(DECIDERS);
        thread::scope(|scope| {
            for (n, questions) in self.questions.chunks_mut(share).enumerate() {
                let told = told.clone();
                // Half of them begin with the other kind.
                if n % 2 == 1 {
                    questions.reverse();
                }
                scope.spawn(move || {
                    let mut connection = Connection::open(server.authority()).expect("the server listens");
                    for question in questions {
                        question.fate = Fate::Unknown;
                        match connection.send(&question.answer(server, person, admin)) {
                            Ok(answer) if answer.status == 200 => {
                                question.fate = Fate::Told;
                                let _ = told.send(());
                            }
                            Ok(answer) => assert!(is_not_now(&answer), "{answer}"),
                            Err(_) => return,
                        }
                    }
                });
            }
            drop(told);
            for _ in 0..acknowledged {
                heard.recv_timeout(Duration::from_secs(30)).expect("answers are acknowledged");
            }
            kill();
        });
    }

    /// What was acknowledged holds, what was not answered is pending, anything else is one of the two, and the log says the
    /// same. What is pending can be answered still, and whoever wants to hear of an answer does.
    pub(crate) fn check(&self, server: &Server, auditor: &Auditor) -> Fates {
        let mut fates = Fates::default();
        let events = auditor.check(&server.acme());
        for question in &self.questions {
            let (state, said) = (self.state(server, question), question.said());
            let done = state == said;
            assert!(done || state == "pending", "{state}: {question:?}");
            match question.fate {
                Fate::Told => fates.told += 1,
                Fate::Unknown if done => fates.unknown_done += 1,
                Fate::Unknown => fates.unknown_pending += 1,
                Fate::Open => fates.open += 1,
            }
            assert!(question.fate != Fate::Told || done, "an answer is lost: {question:?}");
            assert!(question.fate != Fate::Open || !done, "nobody said so: {question:?}");
            assert_eq!(question.rows(&events), usize::from(done), "the log says otherwise: {question:?}");
            if let (Kind::Permission(page), false) = (&question.kind, done) {
                assert!(page.posted().is_empty(), "told what nobody said: {question:?}");
            }
            let again = question.answer(server, &self.person, &self.admin).send();
            let expected = match question.kind {
                _ if !done => 200,
                Kind::Approval(_) => 409,
                Kind::Permission(_) => 400,
            };
            assert_eq!(again.status, expected, "{again}: {question:?}");
            assert_eq!(self.state(server, question), said);
            if let Kind::Permission(_) = question.kind {
                let path = format!("/jit/request/{}/token", question.id);
                let token = server.acme().post(&path).bearer(&self.agent.token).send();
                assert_eq!(token.status, if question.yes { 200 } else { 403 }, "{token}: {question:?}");
            }
        }
        let events = auditor.check(&server.acme());
        for question in &self.questions {
            assert_eq!(question.rows(&events), 1, "{question:?}");
            if let Kind::Permission(page) = &question.kind {
                question.is_heard(page);
            }
        }
        fates
    }

    fn state(&self, server: &Server, question: &Question) -> String {
        let path = match question.kind {
            Kind::Approval(_) => format!("/agents/me/approvals/{}/status", question.id),
            Kind::Permission(_) => format!("/jit/request/{}/status", question.id),
        };
        let seen: Response = server.acme().get(&path).bearer(&self.agent.token).send();
        text(&seen.ok()["status"]).to_owned()
    }
}

impl Question {
    fn said(&self) -> &'static str {
        if self.yes { "approved" } else { "denied" }
    }

    fn answer(&self, server: &Server, person: &str, admin: &str) -> Request {
        let what = if self.yes { "approve" } else { "deny" };
        let (path, token) = match self.kind {
            Kind::Approval(_) => (format!("/approvals/{}/{what}", self.id), person),
            Kind::Permission(_) => (format!("/jit/{what}/{}", self.id), admin),
        };
        server.acme().post(&path).bearer(token).json(json!({}))
    }

    /// How many events say that it was answered; none says anything else than what was said.
    fn rows(&self, events: &[Value]) -> usize {
        let about = |event: &&Value| match &self.kind {
            Kind::Approval(name) => event["context"]["task_id"] == **name,
            Kind::Permission(_) => event["target"]["id"] == *self.id,
        };
        let kind = |event: &&Value| {
            let kind = text(&event["kind"]);
            kind.ends_with(".approved") || kind.ends_with(".denied")
        };
        let answers: Vec<_> = events.iter().filter(about).filter(kind).collect();
        let suffix = format!(".{}", self.said());
        assert!(answers.iter().all(|event| text(&event["kind"]).ends_with(&suffix)), "{answers:?}");
        answers.len()
    }

    /// It is heard once, or twice if whoever told it died before the receiver's word was written down.
    fn is_heard(&self, page: &KeyPage<'_>) {
        let watch = Stopwatch::start();
        while page.posted().is_empty() {
            assert!(watch.elapsed() < Duration::from_secs(30), "nobody is told: {self:?}");
            thread::sleep(Duration::from_millis(50));
        }
        let posted = page.posted();
        assert!(posted.len() <= 2, "{posted:?}");
        for post in posted {
            let body: Value = serde_json::from_str(&post.body).expect("JSON");
            assert_eq!((&body["request_id"], &body["status"]), (&json!(self.id), &json!(self.said())));
        }
    }
}

impl Fates {
    /// Adds those of another round.
    pub(crate) fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.unknown_done += other.unknown_done;
        self.unknown_pending += other.unknown_pending;
        self.open += other.open;
    }
}

impl std::fmt::Display for Fates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { told, unknown_done, unknown_pending, open } = self;
        write!(
            f,
            "{told} answers acknowledged, {unknown_done} not and there, {unknown_pending} not and not there, \
             {open} never given"
        )
    }
}
