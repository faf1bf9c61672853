//! Checking a file, line by line, in memory that grows only with the heads that come before their entries.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{DropClaims, FORMAT, HeadClaims, Line, time};
use crate::{
    id::OrgId,
    jwks::PublicKey,
    merkle::{Frontier, Node, entry_leaf},
};

/// For how long an event waits for its number at most, in milliseconds. They are numbered within seconds; this is for stores
/// that could not be reached, and clocks that differ.
const LONGEST_WAIT: u64 = 86_400_000;

/// Why a file is not the log that was signed, and between which entries that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Finding {
    /// The first entry that may be bad.
    pub first: u64,
    /// The last one. The same as the first, if the very entry is known.
    pub last: u64,
    /// What is wrong.
    pub problem: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, problem } = self;
        if first == last {
            write!(f, "entry {first}: {problem}")
        } else {
            write!(f, "an entry between {first} and {last}: {problem}")
        }
    }
}

/// What a whole file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Whose log it is.
    pub org: OrgId,
    /// How many entries it has.
    pub entries: u64,
    /// The root of the tree over them.
    pub root: Node,
    /// How many entries have lost their bodies to retention: of them only the hash is known.
    pub dropped: u64,
    /// With how many of its sizes a signed head agrees.
    pub heads: u64,
    /// Whether the keys came from the file itself. Then nothing is said about who signed: whoever can change the file can
    /// sign it with a key of their own.
    pub own_keys: bool,
}

/// Checks a file. It stops at the first finding.
///
/// What it finds: an entry that was changed, added, removed or moved; a hash, a number, a time or an id that was; a head
/// that was changed or contradicts the entries; entries that no head is about, and heads about entries that are not there;
/// bodies that are missing without a signed reason, or with one that a head contradicts: what the head is not about was
/// numbered after it was signed, and an event does not wait a day for its number. An entry that was changed together with
/// its hash is found by the next head, so it is named only up to the entries since the head before.
///
/// What a file alone cannot show:
///
/// 1. That entries were changed, removed or put there **together with every head about them**. Whoever has the database and
///    takes away the heads from some entry on can write the rest anew, and the server signs what it finds: it compares with
///    the newest head that is left, and with what it signed itself since it started. A head that was kept elsewhere shows
///    it ([`Verifier::expect`]), for all entries that it is about.
/// 2. That what an event says is true. Whoever has the database can put an event among those that wait for a number, where
///    it is numbered, hashed and signed like any other, and can change or take away one that waits there.
/// 3. Anything but number and hash of an entry whose body retention has taken: nobody can say any more whether id and time
///    are what was hashed.
#[derive(Debug)]
pub struct Verifier {
    org: Option<OrgId>,
    /// The line that says what the file is was there.
    introduced: bool,
    keys: Vec<PublicKey>,
    own_keys: bool,
    tree: Frontier,
    /// Up to which entry a head agreed.
    agreed: u64,
    heads: u64,
    /// Roots of heads about entries that are still to come, and when they were signed.
    awaited: BTreeMap<u64, (Node, u64)>,
    /// When the newest of the heads that agreed was signed.
    signed_at: u64,
    /// How many entries have no body.
    dropped: u64,
    /// When the newest head was signed that is about fewer entries than those: the last of them was numbered after it.
    dropped_after: u64,
    /// Up to which entry the log itself says that bodies were dropped.
    explained: u64,
    /// A signed reason says that entries were old which were not.
    contradicted: bool,
}

impl Verifier {
    /// What it says of a file that does not begin as one.
    const NAMELESS: &str = "the file does not say whose log it is";

    /// A verifier that trusts these keys, or without any those that the file brings along.
    pub fn new(keys: Option<Vec<PublicKey>>) -> Self {
        Self {
            org: None,
            introduced: false,
            own_keys: keys.is_none(),
            keys: keys.unwrap_or_default(),
            tree: Frontier::default(),
            agreed: 0,
            heads: 0,
            awaited: BTreeMap::new(),
            signed_at: 0,
            dropped: 0,
            dropped_after: 0,
            explained: 0,
            contradicted: false,
        }
    }

    /// Expects the file to agree with a head that was kept elsewhere. To be called before the first entry, and, where the
    /// file brings the keys, after them.
    ///
    /// # Errors
    /// [`Finding`] if it is no head of this log, or signed by nobody who is trusted.
    pub fn expect(&mut self, jws: &str) -> Result<(), Finding> {
        let claims = self.head_claims(jws)?;
        self.await_head(&claims)
    }

    /// Whether the keys are there that a head can be checked with.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Checks the next line of the file, without its line break.
    ///
    /// # Errors
    /// [`Finding`], and then the rest says nothing more.
    pub fn line(&mut self, text: &[u8]) -> Result<(), Finding> {
        match Line::parse(text) {
            None => Err(self.at_next("the line is damaged, or of no known kind")),
            Some(Line::Log { format, org }) => {
                if format != FORMAT {
                    return Err(self.at_next("the file is of another format"));
                }
                if self.org.get_or_insert_with(|| org.clone()) != &org {
                    return Err(self.at_next("the log of another organization begins here"));
                }
                self.introduced = true;
                Ok(())
            }
            Some(Line::Key { jwk }) => self.key(&jwk),
            Some(Line::Entry { seq, event_id, at, body, leaf }) => {
                let Some(org) = self.org.as_ref().filter(|_| self.introduced) else {
                    return Err(self.at_next(Self::NAMELESS));
                };
                let next = self.tree.size().saturating_add(1);
                if seq != next {
                    return Err(self.at_next("missing, or not in its place"));
                }
                match body {
                    Some(body) => {
                        if entry_leaf(org, seq, event_id, time(at), body.as_bytes()) != leaf {
                            return Err(self.at_next("its content does not have its hash"));
                        }
                        if let Some(reason) = reason_in(&body, org, seq, &self.keys) {
                            self.explain(&reason);
                        }
                    }
                    None if self.dropped + 1 == seq => {
                        self.dropped = seq;
                        self.dropped_after = self.signed_at;
                    }
                    None => {
                        return Err(
                            self.at_next("its content is missing, while that of an older one is there")
                        );
                    }
                }
                self.tree.push(leaf);
                match self.awaited.remove(&seq) {
                    Some((root, at)) => self.agree(root, at),
                    None => Ok(()),
                }
            }
            Some(Line::Head { jws }) => {
                let claims = self.head_claims(&jws)?;
                match claims.size.cmp(&self.tree.size()) {
                    Ordering::Less => Err(Finding {
                        first: claims.size.saturating_add(1),
                        last: self.tree.size(),
                        problem: "before it, a signed head is not in its place",
                    }),
                    Ordering::Equal => self.agree(claims.root, claims.at),
                    Ordering::Greater => self.await_head(&claims),
                }
            }
        }
    }

    /// What the file is, after its last line.
    ///
    /// # Errors
    /// [`Finding`] if it has no end, or something was never explained.
    pub fn finish(self) -> Result<Report, Finding> {
        let size = self.tree.size();
        let Some(org) = self.org.clone().filter(|_| self.introduced) else {
            return Err(self.at_next(Self::NAMELESS));
        };
        if let Some((last, _)) = self.awaited.last_key_value() {
            let problem = "missing: the end of the log was cut off, a signed head is about more entries";
            return Err(Finding { first: size + 1, last: *last, problem });
        }
        if self.heads == 0 {
            return Err(self.at_next("nothing in it is signed"));
        }
        if self.agreed < size {
            let problem = "no signed head is about it: it was added, or heads were removed";
            return Err(Finding { first: self.agreed + 1, last: size, problem });
        }
        if self.explained < self.dropped {
            let problem = if self.contradicted {
                "its content is missing, and a signed head contradicts the reason: it was too young for that"
            } else {
                "its content is missing, and no signed reason in the log says why"
            };
            return Err(Finding { first: self.explained + 1, last: self.dropped, problem });
        }
        Ok(Report {
            org,
            entries: size,
            root: self.tree.root(),
            dropped: self.dropped,
            heads: self.heads,
            own_keys: self.own_keys,
        })
    }

    fn key(&mut self, jwk: &serde_json::Value) -> Result<(), Finding> {
        if !self.own_keys {
            return Ok(());
        }
        let Some(key) = PublicKey::from_jwk(jwk).filter(|key| key.kid().is_some()) else {
            return Err(self.at_next("a key before it cannot be used"));
        };
        match self.keys.iter().find(|known| known.kid() == key.kid()) {
            Some(known) if known.thumbprint() == key.thumbprint() => {}
            Some(_) => return Err(self.at_next("two keys before it have one name")),
            None => self.keys.push(key),
        }
        Ok(())
    }

    fn head_claims(&self, jws: &str) -> Result<HeadClaims, Finding> {
        let claims = HeadClaims::verified(jws, &self.keys).map_err(|problem| self.since_agreed(problem))?;
        if self.org.as_ref().is_some_and(|org| *org != claims.org) {
            return Err(self.since_agreed("the head is about another organization"));
        }
        Ok(claims)
    }

    fn await_head(&mut self, claims: &HeadClaims) -> Result<(), Finding> {
        self.org.get_or_insert_with(|| claims.org.clone());
        if claims.size == 0 || claims.size <= self.tree.size() {
            return Err(self.at_next("the head comes after the entries that it is about"));
        }
        match self.awaited.insert(claims.size, (claims.root, claims.at)) {
            Some((other, _)) if other != claims.root => {
                let problem = "two signed heads contradict each other";
                Err(Finding { first: self.agreed + 1, last: claims.size, problem })
            }
            _ => Ok(()),
        }
    }

    fn agree(&mut self, root: Node, at: u64) -> Result<(), Finding> {
        if root != self.tree.root() {
            return Err(self.since_agreed("changed together with its hash: a signed head says otherwise"));
        }
        // The same head may be there any number of times.
        if self.agreed < self.tree.size() {
            self.agreed = self.tree.size();
            self.heads += 1;
        }
        self.signed_at = self.signed_at.max(at);
        Ok(())
    }

    /// Takes in a signed reason of retention. All entries without a body came before it.
    fn explain(&mut self, reason: &DropClaims) {
        if reason.up_to >= self.dropped && reason.before.saturating_add(LONGEST_WAIT) <= self.dropped_after {
            self.contradicted = true;
        } else {
            self.explained = self.explained.max(reason.up_to);
        }
    }

    /// A finding about the next entry.
    fn at_next(&self, problem: &'static str) -> Finding {
        let next = self.tree.size().saturating_add(1);
        Finding { first: next, last: next, problem }
    }

    /// A finding about the entries since the last head that agreed.
    fn since_agreed(&self, problem: &'static str) -> Finding {
        let first = self.agreed.saturating_add(1);
        Finding { first, last: self.tree.size().max(first), problem }
    }
}

/// The reason of retention, if that is what the entry `seq` says, and one of `keys` signed it.
fn reason_in(body: &str, org: &OrgId, seq: u64, keys: &[PublicKey]) -> Option<DropClaims> {
    #[derive(Deserialize)]
    struct Dropped {
        kind: String,
        context: Context,
    }
    #[derive(Deserialize)]
    struct Context {
        signed: String,
    }
    if !body.contains("audit.bodies_dropped") {
        return None;
    }
    let event: Dropped = serde_json::from_str(body).ok()?;
    let claims = DropClaims::verified(&event.context.signed, keys)?;
    let fits = event.kind == "audit.bodies_dropped" && claims.org == *org && claims.up_to < seq;
    fits.then_some(claims)
}
