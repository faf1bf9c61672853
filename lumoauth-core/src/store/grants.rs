//! The role that keeps what was granted, until it is used, and what was taken back.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{audit::Event, clock::Timestamp, id::OrgId, secret::SecretHash};

/// What a revocation marks and a token carries: one kind byte and eleven bytes of a SHA-256.
///
/// Collisions fail closed: a foreign mark can only kill a token, never revive one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle([u8; 12]);

impl Handle {
    /// The handle with these bytes.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The bytes, as a store keys by them.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Revoked {
    /// It is marked now, with its event.
    Revoked,
    /// It was marked before; no event is written.
    AlreadyRevoked,
}

/// What a ticket is for. One of another purpose is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TicketPurpose {
    /// An authorization code (RFC 6749 section 4.1.2).
    AuthorizationCode,
    /// A pushed authorization request (RFC 9126).
    PushedRequest,
    /// A question to a person that waits for an answer.
    ConsentChallenge,
    /// A question that an AAuth agent was told to bring a person to; the agent's request token.
    AAuthRequest,
    /// An authorization code of AAuth.
    AAuthCode,
    /// A refresh token of AAuth. It is not rotated: it is found as often as it is presented, and never used.
    AAuthRefresh,
}

impl TicketPurpose {
    /// Every purpose.
    pub const ALL: [Self; 6] = [
        Self::AuthorizationCode,
        Self::PushedRequest,
        Self::ConsentChallenge,
        Self::AAuthRequest,
        Self::AAuthCode,
        Self::AAuthRefresh,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::PushedRequest => "pushed_request",
            Self::ConsentChallenge => "consent_challenge",
            Self::AAuthRequest => "aauth_request",
            Self::AAuthCode => "aauth_code",
            Self::AAuthRefresh => "aauth_refresh",
        }
    }
}

/// Something that is handed out and comes back once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends read it and make it")]
pub struct Ticket {
    /// What it is for.
    pub purpose: TicketPurpose,
    /// The hash of what was handed out.
    pub hash: SecretHash,
    /// What it stands for; for the protocol only.
    pub body: String,
    /// It cannot be used from this instant on.
    pub expires_at: Timestamp,
    /// Until when a second use must be recognised, once it was used; not before `expires_at`.
    pub keep_until: Timestamp,
    /// What dies when it is used a second time.
    pub family: Option<Handle>,
}

impl Ticket {
    /// Until when its family is marked if it is used a second time at `now`: the mark lasts as long after that as a use is
    /// remembered after the ticket's end. What was given to the family shortly before lives no longer.
    pub fn dead_until(&self, now: Timestamp) -> Timestamp {
        self.keep_until.max(now.plus(self.keep_until.since(self.expires_at)))
    }
}

/// A ticket that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends make it")]
pub struct FoundTicket {
    /// It.
    pub ticket: Ticket,
    /// Whether it was used already.
    pub used: bool,
}

/// What became of the use of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum TicketUse {
    /// It is used now, with its event; the refresh token that was given with the call is there.
    Used,
    /// It was used before; nothing was added. If it has a family, that is marked now, with the event of the reuse if it was
    /// not marked before.
    Reused,
    /// There is none, or its time is over. Nothing changed.
    Missing,
}

/// One refresh token of a family. Only the newest of a family works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends read it and make it")]
pub struct RefreshToken {
    /// The hash of what was handed out.
    pub hash: SecretHash,
    /// What it and everything that came of it stands on.
    pub family: Handle,
    /// What was granted; for the protocol only.
    pub body: String,
    /// It cannot be used from this instant on.
    pub expires_at: Timestamp,
}

/// A refresh token that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends make it")]
pub struct FoundRefresh {
    /// It.
    pub token: RefreshToken,
    /// Whether a successor has taken its place.
    pub rotated: bool,
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Rotation {
    /// The successor has taken its place, with the event of the rotation.
    Rotated,
    /// It was rotated a moment ago, by the same client, and the successor was not used: a lost race or a retry. Nothing
    /// changed.
    Raced,
    /// It was rotated before. The family is marked now, with the event of the reuse if it was not marked before.
    Reused,
    /// There is none, or its time is over. Nothing changed.
    Missing,
}

/// How long after a rotation its repetition is taken for a lost race.
pub const ROTATION_GRACE: Duration = Duration::from_secs(10);

/// The events of an outcome, of which the one that happened is written.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct UseEvents<'a> {
    /// It was used for the first time.
    pub used: &'a Event,
    /// It was used again.
    pub reused: &'a Event,
}

/// Keeps tickets, refresh tokens and revocation marks. Recorded.
#[async_trait]
pub trait GrantStore: fmt::Debug + Send + Sync + 'static {
    /// Marks `handle` as revoked and writes `on`, in one step.
    ///
    /// The mark holds at least until `keep_until`, also the later one of a repetition; a purge may drop it after that. Of
    /// any number of concurrent calls with one handle, exactly one is [`Revoked::Revoked`]. Checked by
    /// `conformance::grants::revoked_once` and `marks_are_kept`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must not report success.
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError>;

    /// Whether any of `handles` is marked. A mark is seen by every call that starts after the revocation
    /// returned. Checked by `conformance::grants::any_of_many` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must treat the token as dead.
    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError>;

    /// Keeps a new ticket. Its hash is of a random value that nobody else has; a second ticket of this purpose and hash
    /// is refused with [`StoreErrorKind::Other`](super::StoreErrorKind). A ticket by itself grants nothing, so there is
    /// no event. Checked by `conformance::grants::tickets_round_trip`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer, or there is such a ticket.
    async fn put_ticket(&self, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError>;

    /// The ticket, used or not, if its time is not over at `now` (for a used one: `keep_until`). Checked by
    /// `conformance::grants::tickets_round_trip`, `tickets_end` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundTicket>, StoreError>;

    /// Uses the ticket, adds `refresh` if there is one, and writes the event of the outcome, in one step.
    ///
    /// Of any number of concurrent calls exactly one is [`TicketUse::Used`], and only its refresh token is added. A later
    /// one, until `keep_until`, marks the ticket's family until [`Ticket::dead_until`] in the same step. A ticket that was
    /// never used is [`TicketUse::Missing`] from `expires_at` on, and a purge may drop it then. Checked by
    /// `conformance::grants::one_use_wins`, `reuse_marks_the_family`, `tickets_end` and
    /// `conformance::upkeep::purge_keeps_tickets`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer, or there is a refresh token with this hash already.
    async fn use_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        refresh: Option<&RefreshToken>,
        now: Timestamp,
        on: UseEvents<'_>,
    ) -> Result<TicketUse, StoreError>;

    /// The refresh token, rotated or not, if its time is not over at `now`. Whether its family is revoked is for the
    /// caller to ask. Checked by `conformance::grants::refresh_tokens_round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find_refresh(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundRefresh>, StoreError>;

    /// Puts `next` (of the same family) in the place of the refresh token, and writes the event of the outcome, in one
    /// step.
    ///
    /// Of any number of concurrent calls exactly one is [`Rotation::Rotated`], and only its successor is added. A call on
    /// a token that was rotated before is [`Rotation::Raced`] if `proven` (the client has proven that it is the one that
    /// the token was issued to), less than [`ROTATION_GRACE`] has passed since that rotation, and the successor was not
    /// rotated; else it is [`Rotation::Reused`] and marks the family until `next.expires_at`, in the same step. Checked by
    /// `conformance::grants::one_rotation_wins`, `lost_races_are_forgiven`, `reuse_kills_the_family` and
    /// `refresh_tokens_end`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer, or there is a refresh token with the hash of `next` already.
    async fn rotate(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        next: &RefreshToken,
        proven: bool,
        now: Timestamp,
        on: UseEvents<'_>,
    ) -> Result<Rotation, StoreError>;
}
