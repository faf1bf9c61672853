//! Charges as the script takes them: any number of one organization in one call.

use std::{collections::HashMap, fmt};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, Line, Meter, Window},
    clock::Timestamp,
    id::OrgId,
};
use serde::{Serialize, Serializer};

use super::{
    fetch::Turn,
    holds::{Ending, Held},
    request::{Id, Request},
};
use crate::{
    error::Failure,
    keys,
    script::{self, Call},
};

/// Up to here a script counts exactly: its numbers are doubles. No maximum is larger.
pub(super) const EXACT: u64 = BudgetPolicy::MAX_COUNT;

/// How a counter beyond [`EXACT`] is told to the script: even with a full pool it is beyond every maximum.
const BEYOND: u64 = 2 * EXACT;

/// One call of the script.
#[derive(Default)]
pub(super) struct Batch {
    keys: Vec<Vec<u8>>,
    /// The number in `keys` of each pool, from one. A pool that two charges spend from is read once.
    pools: HashMap<Account, usize>,
    charges: Vec<Entry>,
}

/// One charge. `charge.lua` says what the places mean.
#[derive(Serialize)]
struct Entry {
    now: u64,
    lines: Vec<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<(usize, Hex, String, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<(u64, Vec<usize>, String, Vec<Credit>)>,
}

/// One of the four places of a line.
#[derive(Serialize)]
#[serde(untagged)]
enum Place {
    Pool(usize),
    Name(Counter),
    Max(i64),
    Amount(u64),
}

/// One of the places of a hold, or of its end.
#[derive(Serialize)]
#[serde(untagged)]
enum Part {
    Key(usize),
    Text(String),
    Units(Vec<u64>),
}

type Credit = (usize, Counter, u64, u64, i64);

/// The name of a counter within its account.
#[derive(Clone, Copy)]
pub(super) struct Counter(pub(super) Meter, pub(super) Window, pub(super) Timestamp);

struct Hex([u8; 32]);

impl Batch {
    /// Adds a charge. With a turn its slices are brought first, and the turn is taken again if more are needed.
    pub(super) fn charge(&mut self, request: &Request, turn: Option<&Turn>) {
        let turn = turn.map(|turn| self.turn(request, turn));
        let mut lines = Vec::with_capacity(4 * request.lines().len());
        for line in request.lines() {
            lines.push(Place::Pool(self.pool(request, line.account)));
            lines.push(Place::Name(Counter::of(line)));
            lines.push(Place::Max(max(line.limit)));
            lines.push(Place::Amount(line.amount));
        }
        let id = request.id().map(|id| self.id(request.org(), id, request.now()));
        let hold = request.id().and_then(|id| Some(self.hold(request.org(), id, id.hold.as_ref()?)));
        let ending = request.end_of_hold().map(|ending| self.ending(request.org(), ending));
        self.charges.push(Entry { now: request.now().unix_millis(), lines, id, hold, ending, turn });
    }

    /// Only ends the turn.
    pub(super) fn release(&mut self, request: &Request, turn: &Turn) {
        let turn = Some(self.turn(request, turn));
        let now = request.now().unix_millis();
        self.charges.push(Entry { now, lines: Vec::new(), id: None, hold: None, ending: None, turn });
    }

    pub(super) fn call(self) -> Result<Call, Failure> {
        let charges = serde_json::to_vec(&self.charges).map_err(|_| Failure::Unreadable)?;
        Ok(script::CHARGE.call(self.keys, vec![charges]))
    }

    fn id(&mut self, org: &OrgId, id: &Id, now: Timestamp) -> (usize, Hex, String, u64) {
        let key = self.key(keys::record(org, &id.name));
        (key, Hex(id.request_hash), id.keep_until.unix_millis().to_string(), id.keep(now))
    }

    fn hold(&mut self, org: &OrgId, id: &Id, hold: &Held) -> Vec<Part> {
        let mut parts = vec![
            Part::Text(hold.letter.into()),
            Part::Text(hold.ends.unix_millis().to_string()),
            Part::Text(hold.state.clone()),
            Part::Text(hold.made.clone()),
            Part::Text(id.name.clone()),
            Part::Key(self.key(keys::holds(org, id.actor))),
        ];
        if id.is_parked() {
            parts.push(Part::Key(self.key(keys::parked(org))));
        }
        parts
    }

    fn ending(&mut self, org: &OrgId, ending: &Ending) -> Vec<Part> {
        let mut parts = vec![Part::Units(ending.back.clone())];
        if let Some(change) = &ending.record {
            let ends = change.ends.map_or(0, Timestamp::unix_millis);
            parts.extend([
                Part::Text(change.from.clone()),
                Part::Text(change.letter.into()),
                Part::Text(ends.to_string()),
                Part::Text(change.state.clone()),
                Part::Text(change.name.clone()),
                Part::Key(self.key(keys::record(org, &change.name))),
                Part::Key(self.key(keys::holds(org, change.actor))),
                Part::Key(self.key(keys::parked(org))),
            ]);
        }
        parts
    }

    fn key(&mut self, key: Vec<u8>) -> usize {
        self.keys.push(key);
        self.keys.len()
    }

    fn turn(&mut self, request: &Request, turn: &Turn) -> (u64, Vec<usize>, String, Vec<Credit>) {
        let mut pools: Vec<_> = request.lines().iter().map(|line| self.pool(request, line.account)).collect();
        pools.dedup();
        let slices = turn
            .credits
            .iter()
            .map(|credit| {
                let line = &request.lines()[credit.line];
                let debited = if credit.debited > EXACT { BEYOND } else { credit.debited };
                (self.pool(request, line.account), Counter::of(line), credit.units, debited, max(line.limit))
            })
            .collect();
        (turn.token, pools, turn.memory.clone(), slices)
    }

    fn pool(&mut self, request: &Request, account: Account) -> usize {
        *self.pools.entry(account).or_insert_with(|| {
            self.keys.push(keys::pool(request.org(), account));
            self.keys.len()
        })
    }
}

/// A maximum as the script takes it.
fn max(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |max| i64::try_from(max.min(EXACT)).unwrap_or(i64::MAX))
}

impl Counter {
    fn of(line: &Line) -> Self {
        Self(line.meter, line.window, line.window_start)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meter = match self.0 {
            Meter::Tokens => 't',
            Meter::Calls => 'c',
            Meter::MicroUsd => 'u',
        };
        let window = match self.1 {
            Window::Hour => 'h',
            Window::Day => 'd',
            Window::Month => 'm',
        };
        write!(f, "{meter}{window}{}", self.2.unix_millis())
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use lumoauth_core::{
        budget::{Account, BudgetPolicy, Standing, Usage, account_lines},
        id::{AgentId, OrgId},
        store::Charge,
    };

    use super::*;

    #[test]
    fn charges_to_one_account_share_a_pool() {
        let lines = || {
            let account = Account::agent(AgentId::generate(), 0);
            let usage = Usage { tokens: 1, calls: 2, micro_usd: 3 };
            account_lines(
                account,
                &BudgetPolicy::default(),
                &usage,
                Standing::MustFit,
                Timestamp::from_unix_millis(0),
            )
        };
        let (a, b) = (lines(), lines());
        let org = OrgId::parse("acme").unwrap();
        let mut batch = Batch::default();
        for lines in [[a[0], a[1]], [b[0], a[2]]] {
            let request = Request::new(&org, &Charge::once(&lines), Timestamp::from_unix_millis(7)).unwrap();
            batch.charge(&request, None);
        }
        assert_eq!(batch.keys.len(), 2);
        assert_eq!(
            serde_json::to_string(&batch.charges).unwrap(),
            r#"[{"now":7,"lines":[1,"td0",-1,1,1,"ch0",-1,2]},{"now":7,"lines":[2,"td0",-1,1,1,"um0",-1,3]}]"#
        );
    }
}
