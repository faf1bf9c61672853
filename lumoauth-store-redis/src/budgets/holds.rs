//! Holds, as the script stores and ends them.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use lumoauth_core::{
    budget::{HeldLine, Hold, HoldState, Resolution, Verdict, amounts},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{HoldId, NewHold, Overdue},
};

use super::Pools;
use crate::{connection::Connection, error::Failure, keys, rate_limits::LONGEST, script};

/// How long an organization stays listed after it parked something: longer than a charge may be under way.
const LISTED: u64 = 60_000;

/// How many organizations are asked for parked holds at once.
const AT_ONCE: usize = 16;

/// A hold that is made.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) letter: char,
    pub(super) ends: Timestamp,
    pub(super) state: String,
    /// The hold as it was made. `ends` and `state` beside it are the present ones.
    pub(super) made: String,
}

/// The end of a hold, or its change.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// What each line gives back to its pool.
    pub(super) back: Vec<u64>,
    /// The record that changes with it; none without an id.
    pub(super) record: Option<Change>,
}

/// What becomes of a record.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) actor: AgentId,
    pub(super) name: String,
    /// The letters of the states that it may be in.
    pub(super) from: String,
    pub(super) letter: char,
    pub(super) state: String,
    /// Another end than before.
    pub(super) ends: Option<Timestamp>,
}

/// The letter of a state: the script knows no more of it. It is a capital one when its time is over.
const fn letter(state: HoldState) -> char {
    match state {
        HoldState::Held => 'h',
        HoldState::Parked => 'p',
        HoldState::Settled(_) | HoldState::Released | HoldState::Denied | HoldState::Expired => 'e',
    }
}

impl Held {
    pub(super) fn new(new: &NewHold<'_>, lines: &[lumoauth_core::budget::Line]) -> Result<Self, Failure> {
        let hold = new.of(lines);
        let (state, made) = (json(&hold.state)?, json(&hold)?);
        Ok(Self { letter: letter(hold.state), ends: hold.ends, state, made })
    }
}

/// What [`Hold::resolve`] says of a resolution, whatever the hold's state will turn out to be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) ending: Ending,
    /// What each line counts in addition.
    pub(super) more: Vec<u64>,
}

/// The first state that does not allow it, if none does.
pub(super) fn plan(
    id: Option<HoldId<'_>>,
    lines: &[HeldLine],
    resolution: Resolution,
    now: Timestamp,
) -> Result<Result<Plan, HoldState>, Failure> {
    // An end that no resolution sets, and one that is over.
    let (later, over) = (Timestamp::from_unix_millis(u64::MAX), now);
    let states: &[_] = match id {
        None => &[(HoldState::Held, later)],
        Some(_) => &[
            (HoldState::Held, later),
            (HoldState::Held, over),
            (HoldState::Parked, later),
            (HoldState::Parked, over),
        ],
    };
    let mut from = String::new();
    let mut becomes = None;
    for (state, ends) in states {
        let mut hold = Hold::without_end(lines);
        (hold.state, hold.ends) = (*state, *ends);
        if let Verdict::Becomes { state: next, ends: next_end, amounts, .. } = hold.resolve(resolution, now) {
            let letter = letter(*state);
            from.push(if *ends == over { letter.to_ascii_uppercase() } else { letter });
            becomes = Some((next, (next_end != *ends).then_some(next_end), amounts));
        }
    }
    let Some((state, ends, after)) = becomes else { return Ok(Err(HoldState::Held)) };
    // What is parked counts as much as what is held.
    let before = amounts(lines, HoldState::Held);
    let both = || before.iter().zip(&after);
    let back = both().map(|(before, after)| before.saturating_sub(*after)).collect();
    let more = both().map(|(before, after)| after.saturating_sub(*before)).collect();
    let record = match id {
        None => None,
        Some(id) => Some(Change {
            actor: id.actor,
            name: keys::name(id.actor, id.key),
            from,
            letter: letter(state),
            state: json(&state)?,
            ends,
        }),
    };
    Ok(Ok(Plan { ending: Ending { back, record }, more }))
}

/// Whether a letter is that of a hold whose lease had ended.
pub(super) fn is_late(letter: &[u8]) -> bool {
    letter == b"H"
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|_| Failure::Unreadable)
}

/// The state that the script tells.
pub(super) fn state(text: &[u8]) -> Result<HoldState, Failure> {
    serde_json::from_slice(text).map_err(|_| Failure::Unreadable)
}

/// Reads a record, unless it is forgotten at `now`.
fn read(record: &[u8], now: Timestamp) -> Result<Option<Hold>, Failure> {
    if record.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let text = std::str::from_utf8(record).ok()?.get(64..)?;
        // Until when it is known, whose memory it is, the letter, the end.
        let mut parts = text.splitn(5, ':');
        let keep_until = Timestamp::from_unix_millis(parts.next()?.parse().ok()?);
        let ends = Timestamp::from_unix_millis(parts.nth(2)?.parse().ok()?);
        let (state, made) = parts.next()?.split_once('\n')?;
        let mut hold: Hold = serde_json::from_str(made).ok()?;
        (hold.state, hold.ends) = (serde_json::from_str(state).ok()?, ends);
        Some((hold, keep_until))
    };
    let (hold, keep_until) = parse().ok_or(Failure::Unreadable)?;
    Ok((now < keep_until || hold.state == HoldState::Parked).then_some(hold))
}

impl Pools {
    pub(super) async fn hold(
        &self,
        org: &OrgId,
        id: HoldId<'_>,
        now: Timestamp,
    ) -> Result<Option<Hold>, Failure> {
        let key = keys::record(org, &keys::name(id.actor, id.key));
        let records: Vec<Vec<u8>> =
            self.connection.call(&script::RECORDS.call(vec![key], Vec::new())).await?;
        read(records.first().ok_or(Failure::Unreadable)?, now)
    }

    pub(super) async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, Failure> {
        let after = format!("({}", now.unix_millis());
        let index = keys::holds(org, actor);
        let (named, _) = named(&self.connection, index, (&after, "+inf"), max, org, now).await?;
        Ok(named.into_iter().map(|(_, hold)| hold).filter(|hold| hold.is_live(now)).collect())
    }

    pub(super) async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, Failure> {
        let all = script::NAMED.call(vec![keys::PARKING.to_vec()], ranged("-inf", "+inf", u32::MAX));
        let (listed, _): (Vec<String>, u64) = self.connection.call(&all).await?;
        let orgs: Vec<_> = listed.iter().filter_map(|org| OrgId::parse(org).ok()).collect();
        let until = now.unix_millis().to_string();
        let until = &until;
        let parked = stream::iter(orgs)
            .map(async |org: OrgId| {
                let range = ("-inf", until.as_str());
                let found = named(&self.connection, keys::parked(&org), range, max, &org, now).await?;
                Ok::<_, Failure>((org, found))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let mut overdue = Vec::new();
        let mut done = Vec::new();
        for (org, (holds, names)) in parked {
            if names == 0 {
                done.push(org.as_str().as_bytes().to_vec());
            }
            overdue.extend(holds.into_iter().filter_map(|(name, hold)| {
                let (actor, key) = name.split_once(':')?;
                let actor = AgentId::parse(actor).ok()?;
                let is_parked = hold.state == HoldState::Parked;
                is_parked.then(|| Overdue { org: org.clone(), actor, key: key.to_owned(), hold })
            }));
        }
        if !done.is_empty() {
            done.insert(0, LISTED.to_string().into_bytes());
            let _: i64 =
                self.connection.call(&script::UNLIST.call(vec![keys::PARKING.to_vec()], done)).await?;
        }
        overdue.sort_by_key(|overdue| overdue.hold.ends);
        overdue.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(overdue)
    }

    /// Notes, before a hold is parked, that its organization has some: another slot cannot be written in the same step.
    /// The list may name too many, and misses none while Redis keeps it.
    pub(super) async fn list(&self, org: &OrgId) -> Result<(), Failure> {
        let args = vec![org.as_str().as_bytes().to_vec(), LONGEST.to_string().into_bytes()];
        let _: i64 = self.connection.call(&script::LIST.call(vec![keys::PARKING.to_vec()], args)).await?;
        Ok(())
    }
}

/// The holds that an index names within a range of scores, and how many it names in all.
async fn named(
    connection: &Connection,
    index: Vec<u8>,
    (from, to): (&str, &str),
    max: u32,
    org: &OrgId,
    now: Timestamp,
) -> Result<(Vec<(String, Hold)>, u64), Failure> {
    let call = script::NAMED.call(vec![index.clone()], ranged(from, to, max));
    let (names, all): (Vec<String>, u64) = connection.call(&call).await?;
    if names.is_empty() {
        return Ok((Vec::new(), all));
    }
    let mut records: Vec<_> = names.iter().map(|name| keys::record(org, name)).collect();
    records.push(index);
    let args = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let records: Vec<Vec<u8>> = connection.call(&script::RECORDS.call(records, args)).await?;
    let mut holds = Vec::with_capacity(names.len());
    for (name, record) in names.into_iter().zip(records) {
        holds.extend(read(&record, now)?.map(|hold| (name, hold)));
    }
    Ok((holds, all))
}

fn ranged(from: &str, to: &str, max: u32) -> Vec<Vec<u8>> {
    [from, to, &max.to_string()].map(|text| text.as_bytes().to_vec()).to_vec()
}
