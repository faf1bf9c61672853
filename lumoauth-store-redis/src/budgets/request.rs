//! One charge, as the scripts take and answer it.

use lumoauth_core::{
    budget::{HeldLine, Line},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{Charge, Charged, Resolved, StoreError},
};
use redis::Value;

use super::{
    CHARGING,
    batch::EXACT,
    holds::{self, Ending, Held, Plan},
    slices::{Credit, Slice},
};
use crate::{error::Failure, keys, rate_limits::millis};

/// A larger amount without a maximum does not go through the pool: it is debited as it is.
const LARGEST_POOLED: u64 = 1 << 50;

/// How long an id is kept longer than asked for, so that a server whose clock is behind finds it.
const GRACE: std::time::Duration = std::time::Duration::from_secs(600);

/// A charge that can outlive its caller.
#[derive(Clone, Debug)]
pub(super) struct Request {
    org: OrgId,
    now: Timestamp,
    lines: Vec<Line>,
    id: Option<Id>,
    /// It is the end of a hold: `lines` are what was used beyond it.
    ending: Option<Ending>,
    /// The counters of the lines that were debited as they are; their amount is zero since.
    passed: Vec<Option<u64>>,
}

#[derive(Clone, Debug)]
pub(super) struct Id {
    pub(super) actor: AgentId,
    /// The actor and its text.
    pub(super) name: String,
    pub(super) request_hash: [u8; 32],
    pub(super) keep_until: Timestamp,
    pub(super) hold: Option<Held>,
}

impl Id {
    pub(super) fn is_parked(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.letter == 'p')
    }

    /// How many milliseconds Redis keeps it.
    pub(super) fn keep(&self, now: Timestamp) -> u64 {
        millis(self.keep_until.plus(GRACE).since(now))
    }
}

/// What a script answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done(Outcome),
    Short(Shortage),
    /// Another caller fetches slices for one of the accounts.
    Busy,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Charged(Charged),
    Resolved(Resolved),
}

impl Outcome {
    pub(super) fn charged(self) -> Result<Charged, Failure> {
        match self {
            Self::Charged(charged) => Ok(charged),
            Self::Resolved(_) => Err(Failure::Unreadable),
        }
    }

    pub(super) fn resolved(self) -> Result<Resolved, Failure> {
        match self {
            Self::Resolved(resolved) => Ok(resolved),
            Self::Charged(_) => Err(Failure::Unreadable),
        }
    }
}

/// Which lines need a slice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Whose memory the pools are.
    pub(super) memory: String,
    pub(super) lines: Vec<Short>,
}

/// A line that needs a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) line: usize,
    /// What is left in the pool.
    pub(super) left: u64,
    /// What the durable counter shows, if the pool knows the counter.
    pub(super) debited: Option<u64>,
    /// The last maximum that the pool has seen.
    pub(super) max: Option<u64>,
}

impl Request {
    pub(super) fn new(org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Self, StoreError> {
        let id = match &charge.id {
            None => None,
            Some(id) => {
                let hold = charge.hold.as_ref().map(|hold| Held::new(hold, charge.lines)).transpose();
                Some(Id {
                    actor: id.actor,
                    name: keys::name(id.actor, id.key),
                    request_hash: id.request_hash,
                    keep_until: id.keep_until,
                    hold: hold.map_err(|failure| failure.during(CHARGING))?,
                })
            }
        };
        Self::of(org, charge.lines.to_vec(), id, None, now)
    }

    /// The end of a hold of `held`.
    pub(super) fn ending(
        org: &OrgId,
        held: &[HeldLine],
        plan: Plan,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let lines = held.iter().zip(plan.more).map(|(line, more)| line.counting(more)).collect();
        Self::of(org, lines, None, Some(plan.ending), now)
    }

    fn of(
        org: &OrgId,
        lines: Vec<Line>,
        id: Option<Id>,
        ending: Option<Ending>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let same = |a: &Line, b: &Line| {
            (a.account, a.meter, a.window, a.window_start) == (b.account, b.meter, b.window, b.window_start)
        };
        let twice = |(n, line)| lines[..n].iter().any(|earlier| same(earlier, line));
        if lines.iter().enumerate().any(twice) {
            return Err(StoreError::other(CHARGING, "two lines of one charge are for one counter"));
        }
        let passed = vec![None; lines.len()];
        Ok(Self { org: org.clone(), now, lines, id, ending, passed })
    }

    pub(super) fn org(&self) -> &OrgId {
        &self.org
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether there is nothing to charge and nothing to remember.
    pub(super) fn is_nothing(&self) -> bool {
        self.lines.is_empty() && self.id.is_none() && self.ending.is_none()
    }

    pub(super) fn shard(&self) -> usize {
        self.lines.first().map_or(0, |line| super::shard(&self.org, line.account))
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(super) fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    pub(super) fn end_of_hold(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Reads the answer of the script.
    pub(super) fn read(&self, answer: Vec<Value>) -> Result<Answer, Failure> {
        let int = |value: Option<&Value>| match value {
            Some(Value::Int(int)) => Ok(*int),
            _ => Err(Failure::Unreadable),
        };
        let count = |value: Option<&Value>| u64::try_from(int(value)?).map_err(|_| Failure::Unreadable);
        let line = |value: Option<&Value>| {
            let line = usize::try_from(int(value)?).map_err(|_| Failure::Unreadable)?;
            if line < self.lines.len() { Ok(line) } else { Err(Failure::Unreadable) }
        };
        let text = |value: Option<&Value>| match value {
            Some(Value::BulkString(text)) => Ok(text.clone()),
            _ => Err(Failure::Unreadable),
        };
        let counters = |counters: &[Value]| {
            counters.iter().map(|used| count(Some(used))).collect::<Result<_, Failure>>()
        };
        let charged = |charged| Answer::Done(Outcome::Charged(charged));
        let resolved = |resolved| Answer::Done(Outcome::Resolved(resolved));
        Ok(match int(answer.first())? {
            0 if answer.len() == 1 + self.lines.len() => charged(Charged::Charged(counters(&answer[1..])?)),
            1 => charged(Charged::Exceeded { line: line(answer.get(1))?, used: count(answer.get(2))? }),
            2 => charged(Charged::Repeated),
            3 => charged(Charged::Conflict),
            6 => resolved(Resolved::Stays(holds::state(&text(answer.get(1))?)?)),
            7 => resolved(Resolved::Unknown),
            8 if answer.len() == 2 + self.lines.len() => {
                let late = holds::is_late(&text(answer.get(1))?);
                resolved(Resolved::Done { counters: counters(&answer[2..])?, late })
            }
            4 => {
                let memory = String::from_utf8(text(answer.get(1))?).map_err(|_| Failure::Unreadable)?;
                let lines = answer[2..]
                    .chunks(4)
                    .map(|short| {
                        Ok(Short {
                            line: line(short.first())?,
                            left: u64::try_from(int(short.get(1))?).unwrap_or_default(),
                            debited: u64::try_from(int(short.get(2))?).ok(),
                            max: u64::try_from(int(short.get(3))?).ok(),
                        })
                    })
                    .collect::<Result<_, Failure>>()?;
                Answer::Short(Shortage { memory, lines })
            }
            5 => Answer::Busy,
            _ => return Err(Failure::Unreadable),
        })
    }

    /// The slices to ask for. What does not go through the pool comes last and alone, when nothing else can refuse the
    /// charge any more.
    pub(super) fn wanted(&self, shortage: &Shortage) -> Vec<Slice> {
        let bypasses = |short: &&Short| {
            let line = &self.lines[short.line];
            let beyond = short.debited.is_some_and(|debited| debited > EXACT);
            line.limit.is_none() && (beyond || line.amount > LARGEST_POOLED)
        };
        let pooled: Vec<_> = shortage
            .lines
            .iter()
            .filter(|short| !bypasses(short))
            .map(|short| match &self.ending {
                None => Slice::of(&self.lines[short.line], short, LARGEST_POOLED),
                Some(_) => Slice::missing(&self.lines[short.line], short),
            })
            .collect();
        if !pooled.is_empty() {
            return pooled;
        }
        shortage.lines.iter().map(|short| Slice::whole(&self.lines[short.line], short.line)).collect()
    }

    /// The slices as lines for the durable store.
    pub(super) fn slices(&self, wanted: &[Slice]) -> Vec<Line> {
        let line = |slice: &Slice| {
            let mut line = self.lines[slice.line];
            line.limit = line.limit.map(|max| max.min(EXACT));
            line.amount = slice.units;
            line
        };
        wanted.iter().map(line).collect()
    }

    /// What to bring to the pools when the slices are debited. A line that does not go through its pool, or whose
    /// counter passed what a script can count, is done with.
    pub(super) fn credits(&mut self, debited: &[Slice], counters: &[u64]) -> Vec<Credit> {
        let mut credits = Vec::with_capacity(debited.len());
        for (slice, counter) in debited.iter().zip(counters) {
            let line = &mut self.lines[slice.line];
            let is_done = line.limit.is_none() && (line.amount > LARGEST_POOLED || *counter > EXACT);
            if is_done {
                self.passed[slice.line] = Some(*counter);
                line.amount = 0;
            }
            let units = if is_done { 0 } else { slice.units };
            credits.push(Credit { line: slice.line, units, debited: *counter });
        }
        credits
    }

    /// The outcome, with the counters that a script cannot count.
    pub(super) fn with_passed(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Charged(Charged::Charged(counters))
        | Outcome::Resolved(Resolved::Done { counters, .. }) = &mut outcome
        {
            for (counter, passed) in counters.iter_mut().zip(&self.passed) {
                if let Some(passed) = passed.filter(|passed| *passed > EXACT) {
                    *counter = passed;
                }
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use lumoauth_core::{
        budget::{Account, BudgetPolicy, Standing, Usage, account_lines},
        id::AgentId,
    };

    use super::*;

    fn request(lines: &[Line]) -> Result<Request, StoreError> {
        Request::new(&OrgId::parse("acme").unwrap(), &Charge::once(lines), Timestamp::default())
    }

    fn lines() -> Vec<Line> {
        let account = Account::agent(AgentId::generate(), 0);
        let usage = Usage { tokens: 1, calls: 1, micro_usd: 1 };
        account_lines(account, &BudgetPolicy::default(), &usage, Standing::MustFit, Timestamp::default())
    }

    #[test]
    fn two_lines_for_one_counter_are_refused() {
        let lines = lines();
        assert!(request(&lines).is_ok());
        assert!(request(&[lines[0], lines[1], lines[0]]).is_err());
    }

    #[test]
    fn an_answer_of_another_form_is_refused() {
        let request = request(&lines()).unwrap();
        let int = Value::Int;
        let id = || Value::BulkString(b"abc".to_vec());
        for answer in [
            vec![],
            vec![int(0)],
            vec![int(0), int(1), int(2), int(-3)],
            vec![int(1), int(3), int(0)],
            vec![int(1), int(0)],
            vec![int(4)],
            vec![int(4), id(), int(9), int(0), int(0), int(0)],
            vec![int(4), id(), int(0), int(0)],
            vec![int(6)],
            vec![int(6), id()],
            vec![int(8), id(), int(1)],
            vec![int(9)],
            vec![id()],
        ] {
            assert!(request.read(answer.clone()).is_err(), "{answer:?}");
        }
        let short = request.read(vec![int(4), id(), int(2), int(-1), int(-1), int(7)]).unwrap();
        let line = Short { line: 2, left: 0, debited: None, max: Some(7) };
        assert_eq!(short, Answer::Short(Shortage { memory: "abc".into(), lines: vec![line] }));
    }
}
