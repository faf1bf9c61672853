//! Clients that write as fast as they can, and note what they were told.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lumoauth_tests::{Connection, Request, Response, Server, text, unique};
use serde_json::{Value, json};

use crate::{
    answers::is_not_now,
    ledger::{Agent, Ledger},
};

/// What may happen to the server while the writers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It is killed: a connection breaks, and then the writer stops. Any other failure is one.
    ServerDies,
    /// What it stands on fails: it answers "not now", and always answers.
    StoreFails,
    /// Nothing: every request succeeds.
    Nothing,
}

/// What several writers share.
#[derive(Debug, Default)]
pub(crate) struct Books {
    ledger: Mutex<Ledger>,
    stopped: AtomicBool,
    steps: AtomicU64,
}

impl Books {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_ledger(self) -> Ledger {
        self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writers of a round may write until what is returned is dropped, also in a panic.
    #[must_use]
    pub(crate) fn open(&self) -> Round<'_> {
        self.stopped.store(false, Ordering::Relaxed);
        Round(self)
    }

    /// How many writes were acknowledged since the last time that this was asked.
    pub(crate) fn take_steps(&self) -> u64 {
        self.steps.swap(0, Ordering::Relaxed)
    }
}

/// While it is there, writers write.
#[derive(Debug)]
pub(crate) struct Round<'a>(&'a Books);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// One client of one server.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) server: &'a Server,
    pub(crate) books: &'a Books,
    pub(crate) spender: &'a Agent,
    pub(crate) expect: Expect,
}

/// What became of a request.
enum Fate {
    Answered(Response),
    Unknown,
    Died,
}

impl Writer<'_> {
    /// Writes until the round ends or the server dies. Writers with different numbers begin with different kinds of
    /// writes.
    pub(crate) fn write(&self, number: u64) {
        let Ok(mut connection) = Connection::open(self.server.authority()) else {
            assert_eq!(self.expect, Expect::ServerDies, "the server does not listen: {}", self.server.log());
            return;
        };
        let mut tokens = Vec::new();
        for kind in number.. {
            let alive = match kind % 6 {
                0 => self.create(&mut connection),
                1 => self.charge_with_key(&mut connection),
                2 => self.charge_without_key(&mut connection),
                3 => self.authenticate(&mut connection, &mut tokens),
                4 => self.ask(&mut connection),
                // Every other token is revoked.
                _ if kind / 6 % 2 == 0 => self.revoke(&mut connection, tokens.pop()),
                _ => true,
            };
            if !alive || self.books.stopped.load(Ordering::Relaxed) {
                break;
            }
        }
        self.books.ledger().kept.extend(tokens);
    }

    fn send(&self, connection: &mut Connection, request: &Request, wanted: u16) -> Fate {
        match (connection.send(request), self.expect) {
            (Ok(response), _) if response.status == wanted => {
                self.books.steps.fetch_add(1, Ordering::Relaxed);
                Fate::Answered(response)
            }
            (Ok(response), Expect::StoreFails) => {
                assert!(is_not_now(&response), "{response}");
                // As `Retry-After` asks, but less patient, so that the first moment after the fault is hit as well.
                thread::sleep(Duration::from_millis(100));
                Fate::Unknown
            }
            (Err(_), Expect::ServerDies) => Fate::Died,
            (Ok(response), _) => panic!("{response}\n{}", self.server.log()),
            (Err(error), _) => panic!("no answer: {error}\n{}", self.server.log()),
        }
    }

    fn create(&self, connection: &mut Connection) -> bool {
        let name = unique("Survivor");
        self.books.ledger().attempted_agents.push(name.clone());
        let body = json!({ "name": name, "capabilities": ["read:a"] });
        let fate = self.send(connection, &self.server.acme().admin("POST", "/agents").json(body), 201);
        fate.note(|response| {
            let data: Value = response.json()["data"].clone();
            let part = |member: &str| text(&data[member]).to_owned();
            self.books.ledger().agents.push(Agent {
                agent_id: part("agentId"),
                client_id: part("clientId"),
                secret: part("clientSecret"),
                token: String::new(),
            });
        })
    }

    fn charge_with_key(&self, connection: &mut Connection) -> bool {
        let key = unique("charge");
        self.books.ledger().keys.push(key.clone());
        let fate = self.send(connection, &self.spender.charge(self.server, Some(&key)), 200);
        if !matches!(fate, Fate::Answered(_)) {
            self.books.ledger().unknown_keys.push(key);
        }
        fate.note(|_| ())
    }

    fn charge_without_key(&self, connection: &mut Connection) -> bool {
        self.books.ledger().attempted_charges += 1;
        let fate = self.send(connection, &self.spender.charge(self.server, None), 200);
        fate.note(|_| self.books.ledger().charges += 1)
    }

    fn authenticate(&self, connection: &mut Connection, tokens: &mut Vec<String>) -> bool {
        self.books.ledger().attempted_tokens += 1;
        let fate = self.send(connection, &self.spender.token_request(self.server), 200);
        fate.note(|response| {
            tokens.push(text(&response.json()["access_token"]).to_owned());
            self.books.ledger().tokens += 1;
        })
    }

    fn ask(&self, connection: &mut Connection) -> bool {
        self.books.ledger().attempted_questions += 1;
        let fate = self.send(connection, &self.spender.question(self.server), 200);
        fate.note(|response| {
            let id = text(&response.json()["audit_id"]).to_owned();
            self.books.ledger().questions.push(id);
        })
    }

    fn revoke(&self, connection: &mut Connection, token: Option<String>) -> bool {
        let Some(token) = token else { return true };
        self.books.ledger().attempted_revocations += 1;
        let fate = self.send(connection, &self.spender.revocation(self.server, &token), 200);
        fate.note(|_| self.books.ledger().revoked.push(token))
    }
}

impl Fate {
    /// Notes the answer, if there is one. Gives whether the server lives.
    fn note(self, note: impl FnOnce(Response)) -> bool {
        match self {
            Self::Answered(response) => {
                note(response);
                true
            }
            Self::Unknown => true,
            Self::Died => false,
        }
    }
}
