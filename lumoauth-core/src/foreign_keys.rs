//! The public keys of others, where they publish them: fetched through the [`Fetch`] port and kept for a while.
//!
//! 1. Keys are used for five minutes and then read again, so a key that its owner removed is refused within that time.
//! 2. A `kid` that is not known makes one early read, and when that has ended none for 30 seconds per source: a new key is
//!    found at once, and invented ids cost little. A read that everybody who waited for it gave up is none: whoever asks and
//!    hangs up must not take it from all others. So each such request costs the source a connection, one at a time.
//! 3. Any number of requests that want one source at one time make one read and all wait for it.
//! 4. While a source cannot be read, or what it answers is no key set, its last keys are used for up to an hour and then
//!    none; it is tried every 30 seconds. Each source stands for itself.
//! 5. What was read or failed before the clock was set back is forgotten, but for the few seconds that a read may take.
//! 6. The number of sources is bounded; the one that was not used for longest goes.
//!
//! Nothing here decides whom to believe: a source is an address that an administrator of an organization registered,
//! never one that a token brought along.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use moka::{policy::EvictionPolicy, sync::Cache};
use serde_json::{Map, Value};
use url::Url;

use crate::{
    clock::Timestamp,
    fetch::{Fetch, FetchError, FetchRequest},
    json,
    jwks::{JwkSet, PublicKeys},
};

/// How long keys are used before they are read again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long keys are used while their source cannot be read.
const STALE: Duration = Duration::from_secs(60 * 60);
/// How long a source that could not be read is left alone, and the least time between two early reads.
const PAUSE: Duration = Duration::from_secs(30);
/// How long all of a read may take.
const READ_TIME: Duration = Duration::from_secs(5);
/// How many sources are kept.
const SOURCES: u64 = 1000;

/// Where the keys of somebody are.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "whoever registers keys chooses one of these")]
pub enum KeySource<'a> {
    /// Registered here.
    Inline(&'a JwkSet),
    /// Published at this address.
    JwksUri(&'a str),
    /// Published by this issuer, as its metadata say (OpenID Connect Discovery section 4). The `issuer` in them must be
    /// this text exactly, and the address of the keys one with `https` or at the issuer's own origin.
    Issuer(&'a str),
}

/// There are no keys to be had. What the source answered is in none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignKeyError {
    /// The address is none, or the host does not let us go there.
    #[error("keys may not be fetched from this address")]
    NotAllowed,
    /// No answer, or not in time.
    #[error("the source of the keys does not answer")]
    Unreachable,
    /// The answer is not what it should be.
    #[error("the source of the keys answers no usable {0}")]
    Unusable(&'static str),
}

/// The keys of others, kept for a while. Cheap to share; one per server.
pub struct ForeignKeys {
    fetch: Arc<dyn Fetch>,
    sources: Cache<Address, Arc<Source>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Address {
    JwksUri(Box<str>),
    Issuer(Box<str>),
}

impl ForeignKeys {
    /// None yet; they will come through `fetch`.
    pub fn new(fetch: Arc<dyn Fetch>) -> Self {
        // Least recently used, and not least often: a new source must always find a place, or it is read every time.
        let sources = Cache::builder().max_capacity(SOURCES).eviction_policy(EvictionPolicy::lru()).build();
        Self { fetch, sources }
    }

    /// The keys of `source`. Those that `kid` names are among them if the source has them, as far as a read that is
    /// allowed now can tell.
    ///
    /// # Errors
    /// [`ForeignKeyError`] if there are none that may be used.
    pub async fn keys(
        &self,
        source: KeySource<'_>,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<PublicKeys>, ForeignKeyError> {
        let address = match source {
            KeySource::Inline(set) => return Ok(Arc::new(PublicKeys::of(set))),
            KeySource::JwksUri(uri) => Address::JwksUri(uri.into()),
            KeySource::Issuer(issuer) => Address::Issuer(issuer.into()),
        };
        let source = self.sources.get_with_by_ref(&address, Arc::default);
        if let Some(read) = source.read(&self.fetch, &address, kid, now) {
            read.await;
        }
        source.lock().answer(now)
    }
}

impl fmt::Debug for ForeignKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignKeys").field("fetch", &self.fetch).finish_non_exhaustive()
    }
}

/// One source.
#[derive(Default)]
struct Source(Mutex<State>);

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// The last read, if it failed.
    failed: Option<(ForeignKeyError, Timestamp)>,
    /// When the last read began that an unknown `kid` made. One that nobody waited for to its end does not count, or whoever
    /// asks and hangs up would take it from all others.
    forced_at: Option<Timestamp>,
    /// The read that is under way. Those who wait for it hold it; when all have gone, so has it.
    reading: Option<WeakShared<Reading>>,
}

struct Known {
    keys: Arc<PublicKeys>,
    /// When the read began: what the source shows may change an instant later.
    since: Timestamp,
}

type Reading = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Source {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The read to wait for, if there must be one: the one that is under way, or a new one.
    fn read(
        self: &Arc<Self>,
        fetch: &Arc<dyn Fetch>,
        address: &Address,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Option<Shared<Reading>> {
        let mut state = self.lock();
        let reason = state.reason_to_read(kid, now)?;
        if let Some(reading) = state.reading.as_ref().and_then(WeakShared::upgrade) {
            return Some(reading);
        }
        let (source, fetch, address) = (self.clone(), fetch.clone(), address.clone());
        let reading: Reading = Box::pin(async move {
            let outcome = address.read(&*fetch).await;
            source.lock().finish(reason, outcome, now);
        });
        let reading = reading.shared();
        state.reading = reading.downgrade();
        Some(reading)
    }
}

enum Reason {
    Age,
    UnknownKid,
}

/// Whether `at` is less than `limit` before `now`. What comes after `now` is from before the clock was set back: nobody knows
/// how long ago that was. A little after it is a request that runs at the same time and read the clock later.
fn is_within(at: Timestamp, limit: Duration, now: Timestamp) -> bool {
    now.since(at) < limit && at.since(now) <= READ_TIME
}

impl State {
    fn reason_to_read(&self, kid: Option<&str>, now: Timestamp) -> Option<Reason> {
        if self.failed.is_some_and(|(_, at)| is_within(at, PAUSE, now)) {
            return None;
        }
        let Some(known) = self.known.as_ref().filter(|known| is_within(known.since, FRESH, now)) else {
            return Some(Reason::Age);
        };
        let unknown = kid.is_some_and(|kid| !known.keys.contains(kid));
        let rested = self.forced_at.is_none_or(|at| !is_within(at, PAUSE, now));
        (unknown && rested).then_some(Reason::UnknownKid)
    }

    fn finish(
        &mut self,
        reason: Reason,
        outcome: Result<Arc<PublicKeys>, ForeignKeyError>,
        began: Timestamp,
    ) {
        self.reading = None;
        if let Reason::UnknownKid = reason {
            self.forced_at = Some(began);
        }
        match outcome {
            Ok(keys) => {
                self.known = Some(Known { keys, since: began });
                self.failed = None;
            }
            Err(error) => self.failed = Some((error, began)),
        }
    }

    fn answer(&self, now: Timestamp) -> Result<Arc<PublicKeys>, ForeignKeyError> {
        match (&self.known, self.failed) {
            (Some(known), _) if is_within(known.since, STALE, now) => Ok(known.keys.clone()),
            (_, Some((error, _))) => Err(error),
            // Nothing was read and nothing failed: the read itself was lost.
            (_, None) => Err(ForeignKeyError::Unreachable),
        }
    }
}

impl Address {
    async fn read(&self, fetch: &dyn Fetch) -> Result<Arc<PublicKeys>, ForeignKeyError> {
        let outcome = match self {
            Self::JwksUri(uri) => match parse_url(uri) {
                Some(uri) => key_set(fetch, uri, READ_TIME).await,
                None => Err(ForeignKeyError::NotAllowed),
            },
            Self::Issuer(issuer) => match key_address(fetch, issuer, READ_TIME / 2).await {
                Ok(uri) => key_set(fetch, uri, READ_TIME / 2).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &outcome {
            let (Self::JwksUri(address) | Self::Issuer(address)) = self;
            // A query may hold what nobody should read in a log.
            let address = address.split('?').next().unwrap_or_default();
            tracing::warn!(%error, %address, "keys cannot be read");
        }
        outcome
    }
}

/// The usable keys at `uri`.
async fn key_set(fetch: &dyn Fetch, uri: Url, timeout: Duration) -> Result<Arc<PublicKeys>, ForeignKeyError> {
    let body = get(fetch, uri, timeout).await?;
    let unusable = ForeignKeyError::Unusable("key set");
    let set = JwkSet::parse(&body).map_err(|error| {
        tracing::debug!(%error, "key set refused");
        unusable
    })?;
    let keys = PublicKeys::of(&set);
    // A set without keys says that all were removed; one with none that can be used is a mistake at the source.
    if keys.is_empty() && !set.keys.is_empty() {
        return Err(unusable);
    }
    Ok(Arc::new(keys))
}

/// The `jwks_uri` in the metadata of `issuer`.
async fn key_address(fetch: &dyn Fetch, issuer: &str, timeout: Duration) -> Result<Url, ForeignKeyError> {
    let own = parse_url(issuer).filter(|url| url.query().is_none()).ok_or(ForeignKeyError::NotAllowed)?;
    let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let body = get(fetch, parse_url(&address).ok_or(ForeignKeyError::NotAllowed)?, timeout).await?;
    let unusable = ForeignKeyError::Unusable("metadata");
    let metadata: Map<String, Value> = json::parse(&body).map_err(|_| unusable)?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(unusable);
    }
    text("jwks_uri")
        .and_then(parse_url)
        .filter(|uri| uri.scheme() == "https" || uri.origin() == own.origin())
        .ok_or(unusable)
}

async fn get(fetch: &dyn Fetch, url: Url, timeout: Duration) -> Result<Vec<u8>, ForeignKeyError> {
    let request = FetchRequest { max_bytes: JwkSet::MAX_BYTES, timeout, ..FetchRequest::get(url) };
    let body = fetch.fetch(request).await.map_err(|error| {
        tracing::debug!(%error, "fetching keys");
        match error {
            FetchError::NotAllowed => ForeignKeyError::NotAllowed,
            FetchError::Unreachable(_) => ForeignKeyError::Unreachable,
            FetchError::Unusable(_) => ForeignKeyError::Unusable("document"),
        }
    })?;
    // The port promises it; memory is at stake, so it is looked at again.
    if body.len() > JwkSet::MAX_BYTES { Err(ForeignKeyError::Unusable("document")) } else { Ok(body) }
}

/// An absolute address with a host and without user information or fragment. Whether plain `http` will do is for the
/// port to say.
fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "https" | "http") && url.has_host() && plain).then_some(url)
}

#[cfg(test)]
mod tests;
