//! Every table of the file and the encoding of every key, in one place.
//!
//! 1. Keys and values are bytes, and keys sort as bytes.
//! 2. The key of a row begins with its organization: the slug, then NUL. No slug contains a NUL and every byte of
//!    a slug is greater, so no organization is a prefix of another, and keys sort as the slugs do.
//! 3. Numbers are big-endian and of fixed width, so a range of numbers is a range of keys.
//! 4. Text of variable length comes last, or ends with NUL.
//! 5. A record is JSON. The value of an index row is the whole key of the record.
//!
//! [`Table::Expiries`], [`Table::ParkedHolds`], [`Table::DueCallbacks`] and [`Table::Outbox`] are walked across
//! organizations, so they begin with a time and with a number; nothing is ever looked up in them by a caller's key.

use std::ops::Range;

use lumoauth_core::{
    approval::Approval,
    budget::{Account, Line, Meter, Window},
    clock::Timestamp,
    id::{AAuthIdentifier, AgentId, EventId, Number, OrgId},
    keys::KeyPurpose,
    merkle::{Frontier, Node},
    policy::RecordId,
    secret::SecretHash,
    store::{Handle, LogHead, TicketPurpose},
};
use redb::TableDefinition;
use uuid::Uuid;

/// What redb sees of a key or a value.
pub(crate) type Bytes = &'static [u8];

/// What the file says it is, under [`FORMAT_KEY`].
pub(crate) const FORMAT: &[u8] = b"lumoauth embedded store";
/// The layout of this version, under [`SCHEMA_KEY`]. Raise it whenever an older version could misread a file.
pub(crate) const SCHEMA: u64 = 6;
/// The first layout whose logs are hash trees.
pub(crate) const HASHED_LOGS: u64 = 6;
pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const SCHEMA_KEY: &[u8] = b"schema";

macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One table of the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Table {
            $($(#[$doc])* $variant,)*
        }

        impl Table {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];
            pub(crate) const COUNT: usize = Self::ALL.len();

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

tables! {
    /// [`FORMAT_KEY`] and [`SCHEMA_KEY`].
    Meta = "meta",
    /// org → record.
    Organizations = "organizations",
    /// org, public id → record.
    AAuthResources = "aauth_resources",
    /// org, number → key of the record.
    AAuthResourceNumbers = "aauth_resource_numbers",
    /// org, identifier → key of the record; listings walk it.
    AAuthResourceIdentifiers = "aauth_resource_identifiers",
    /// org, id → record.
    Agents = "agents",
    /// org, slug → key of the record; listings walk it.
    AgentSlugs = "agent_slugs",
    /// org, client id → key of the record.
    AgentClientIds = "agent_client_ids",
    /// org, hash → key of the record.
    AgentApiKeys = "agent_api_keys",
    /// org, AAuth identifier → key of the record.
    AgentAAuthIdentifiers = "agent_aauth_identifiers",
    /// org, workload key, id → key of the record.
    AgentWorkloads = "agent_workloads",
    /// org, number → record.
    ApiKeys = "api_keys",
    /// org, hash → key of the record.
    ApiKeyHashes = "api_key_hashes",
    /// org, token → record.
    Approvals = "approvals",
    /// org, end, token → key of the record, until somebody decides; listings walk it.
    PendingApprovals = "pending_approvals",
    /// org, agent, person (or zeros), end, token → nothing: the same, by who asks whom.
    AskedApprovals = "asked_approvals",
    /// org, id → task.
    JitTasks = "jit_tasks",
    /// org, id → request of a task.
    JitRequests = "jit_requests",
    /// org, agent → what of it waits for people.
    JitLoads = "jit_loads",
    /// org, end, id → key of the request, until somebody answers or its task is closed; listings walk it.
    PendingJit = "pending_jit",
    /// time, key of the request → key of the request: when its callback is due.
    DueCallbacks = "due_callbacks",
    /// org, client id → record.
    Clients = "clients",
    /// org, number → key of the record.
    ClientNumbers = "client_numbers",
    /// org, id → record.
    Consents = "consents",
    /// org, person, client id → key of the record; listings walk it.
    ConsentPairs = "consent_pairs",
    /// org, id → record.
    Users = "users",
    /// org, number → key of the record.
    UserNumbers = "user_numbers",
    /// org, e-mail address → key of the record; listings walk it.
    UserEmails = "user_emails",
    /// org, public id → record.
    McpServers = "mcp_servers",
    /// org, number → key of the record.
    McpServerNumbers = "mcp_server_numbers",
    /// org, normalized identifier → key of the record.
    McpServerTargets = "mcp_server_targets",
    /// org → revision, the least revision whose removals are remembered.
    PolicyHeads = "policy_heads",
    /// org, kind, NUL, key → revision, until when to keep it (of a removal, whose body is empty), body.
    Policies = "policies",
    /// org, revision, kind, NUL, key → nothing.
    PolicyRevisions = "policy_revisions",
    /// org, kid → record.
    Keys = "keys",
    /// org, purpose, generation → key of the record; listings walk it.
    KeyGenerations = "key_generations",
    /// org, handle → until when it must be kept.
    Marks = "marks",
    /// org, purpose, hash → ticket.
    Tickets = "tickets",
    /// org, hash → refresh token, and what took its place.
    RefreshTokens = "refresh_tokens",
    /// org, account, meter, window, start of the window → what was used.
    Counters = "counters",
    /// org, agent, the agent's own id → until when it must be kept, hash of the request, hold.
    Charges = "charges",
    /// org, agent, end, the agent's own id → key of the charge: what is held until then, or parked (without an end).
    LiveHolds = "live_holds",
    /// end, key of the charge → key of the charge: what is parked until then.
    ParkedHolds = "parked_holds",
    /// time, table, key of the row → nothing: when a row may be purged.
    Expiries = "expiries",
    /// org, space, hash of the value → nothing.
    ReplayMarks = "replay_marks",
    /// org, number → leaf (32 bytes), event.
    AuditLog = "audit_log",
    /// org → how far the log has come: [`head_row`].
    AuditHeads = "audit_heads",
    /// org, number of the block, counted from zero → root of the hash tree over it.
    AuditBlocks = "audit_blocks",
    /// org, size → signed head.
    AuditCheckpoints = "audit_checkpoints",
    /// org, event id → number.
    AuditIds = "audit_ids",
    /// number of arrival → org, event.
    Outbox = "outbox",
    /// org, event id → number of arrival.
    OutboxIds = "outbox_ids",
}

impl Table {
    pub(crate) const fn definition(self) -> TableDefinition<'static, Bytes, Bytes> {
        TableDefinition::new(self.name())
    }
}

/// What every key of `org` begins with.
pub(crate) fn prefix(org: &OrgId) -> Vec<u8> {
    key(org, &[])
}

/// The key of `org` that ends in `parts`.
pub(crate) fn key(org: &OrgId, parts: &[&[u8]]) -> Vec<u8> {
    let slug = org.as_str().as_bytes();
    let mut key = Vec::with_capacity(slug.len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.extend_from_slice(slug);
    key.push(0);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// All keys of `org`.
pub(crate) fn all_of(org: &OrgId) -> Range<Vec<u8>> {
    all_with(org, &[])
}

/// All keys of `org` that begin with `parts`.
pub(crate) fn all_with(org: &OrgId, parts: &[&[u8]]) -> Range<Vec<u8>> {
    let start = key(org, parts);
    let mut end = start.clone();
    // There is a byte that can be raised: the NUL after the organization.
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    start..end
}

pub(crate) fn agent_key(org: &OrgId, id: AgentId) -> Vec<u8> {
    key(org, &[id.uuid().as_bytes()])
}

pub(crate) fn aauth_key(org: &OrgId, identifier: &AAuthIdentifier) -> Vec<u8> {
    key(org, &[identifier.as_str().as_bytes()])
}

pub(crate) fn number_key(org: &OrgId, number: Number) -> Vec<u8> {
    key(org, &[&number.value().to_be_bytes()])
}

pub(crate) fn seq_key(org: &OrgId, seq: u64) -> Vec<u8> {
    key(org, &[&seq.to_be_bytes()])
}

/// The organization whose [`prefix`] this is.
pub(crate) fn org_of(prefix: &[u8]) -> Option<OrgId> {
    OrgId::parse(str::from_utf8(prefix.strip_suffix(&[0])?).ok()?).ok()
}

/// The value of a row of [`Table::AuditHeads`]: size, dropped, signed, then the peaks of the tree.
pub(crate) fn head_row(head: &LogHead) -> Vec<u8> {
    let mut row = Vec::with_capacity(24 + 32 * 16);
    for number in [head.tree.size(), head.dropped, head.signed] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend(head.tree.to_bytes());
    row
}

/// What [`head_row`] wrote.
pub(crate) fn head_of(row: &[u8]) -> Option<LogHead> {
    let (numbers, peaks) = row.split_first_chunk::<24>()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let &[size, dropped, signed] = numbers else { return None };
    let [size, dropped, signed] = [size, dropped, signed].map(u64::from_be_bytes);
    Some(LogHead { tree: Frontier::from_bytes(size, peaks)?, dropped, signed })
}

/// The two parts of a value of [`Table::AuditLog`]: the leaf, and the event as it was hashed.
pub(crate) fn leaf_and_event(value: &[u8]) -> Option<(Node, &[u8])> {
    let (leaf, event) = value.split_first_chunk()?;
    Some((Node::from_bytes(*leaf), event))
}

/// The number at the end of a key of [`Table::AuditLog`] or [`Table::Outbox`].
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().copied().map(u64::from_be_bytes)
}

pub(crate) fn event_key(org: &OrgId, id: EventId) -> Vec<u8> {
    key(org, &[id.uuid().as_bytes()])
}

pub(crate) fn mark_key(org: &OrgId, handle: &Handle) -> Vec<u8> {
    key(org, &[handle.as_bytes()])
}

pub(crate) fn ticket_key(org: &OrgId, purpose: TicketPurpose, hash: &SecretHash) -> Vec<u8> {
    key(org, &[purpose.as_str().as_bytes(), &[0], hash.as_bytes()])
}

pub(crate) fn refresh_key(org: &OrgId, hash: &SecretHash) -> Vec<u8> {
    key(org, &[hash.as_bytes()])
}

pub(crate) fn replay_key(org: &OrgId, space: &str, value: &[u8; 32]) -> Vec<u8> {
    key(org, &[space.as_bytes(), &[0], value])
}

pub(crate) fn approval_key(org: &OrgId, token: &str) -> Vec<u8> {
    key(org, &[token.as_bytes()])
}

/// The key in [`Table::PendingApprovals`] of an approval that ends at `end`.
pub(crate) fn pending_key(org: &OrgId, end: Timestamp, token: &str) -> Vec<u8> {
    key(org, &[&end.unix_millis().to_be_bytes(), token.as_bytes()])
}

/// The keys in [`Table::PendingApprovals`] of what ends after `now`.
pub(crate) fn pending_approvals_from(org: &OrgId, now: Timestamp) -> Range<Vec<u8>> {
    let after = now.unix_millis().saturating_add(1).to_be_bytes();
    key(org, &[&after])..all_of(org).end
}

/// The keys in [`Table::PendingApprovals`] of what has ended at `now`.
pub(crate) fn pending_until(org: &OrgId, now: Timestamp) -> Range<Vec<u8>> {
    all_of(org).start..pending_approvals_from(org, now).start
}

/// The key in [`Table::AskedApprovals`] of an approval that is bounded.
pub(crate) fn asked_key(org: &OrgId, approval: &Approval) -> Vec<u8> {
    [asked_of(org, approval, approval.expires_at).as_slice(), approval.token.as_str().as_bytes()].concat()
}

/// The keys in [`Table::AskedApprovals`] of what its agent asks its person and ends after `now`.
pub(crate) fn asked_from(org: &OrgId, approval: &Approval, now: Timestamp) -> Range<Vec<u8>> {
    let after = Timestamp::from_unix_millis(now.unix_millis().saturating_add(1));
    let end = Timestamp::from_unix_millis(u64::MAX);
    asked_of(org, approval, after)..asked_of(org, approval, end)
}

fn asked_of(org: &OrgId, approval: &Approval, end: Timestamp) -> Vec<u8> {
    let person = approval.on_behalf_of.map_or([0; 16], |user| *user.uuid().as_bytes());
    key(org, &[approval.agent.uuid().as_bytes(), &person, &end.unix_millis().to_be_bytes()])
}

/// The key in [`Table::JitTasks`] and [`Table::JitRequests`].
pub(crate) fn jit_key(org: &OrgId, id: &str) -> Vec<u8> {
    key(org, &[id.as_bytes()])
}

/// The key in [`Table::DueCallbacks`] of the request with the key `request`.
pub(crate) fn due_key(due: Timestamp, request: &[u8]) -> Vec<u8> {
    [&due.unix_millis().to_be_bytes()[..], request].concat()
}

/// The keys in [`Table::DueCallbacks`] of what is due at `now`.
pub(crate) fn due_until(now: Timestamp) -> Range<Vec<u8>> {
    parked_until(now)
}

/// The organization of the request with the key `request`.
pub(crate) fn key_of_due(request: &[u8]) -> Option<OrgId> {
    let slug = request.iter().position(|byte| *byte == 0)?;
    OrgId::parse(str::from_utf8(&request[..slug]).ok()?).ok()
}

/// The key in [`Table::Policies`] of the record `id`.
pub(crate) fn policy_key(org: &OrgId, id: &RecordId) -> Vec<u8> {
    key(org, &[id.kind().as_str().as_bytes(), &[0], id.key().as_bytes()])
}

/// What [`policy_key`] was made of: what the keys of the organization begin with, and the rest.
pub(crate) fn policy_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let slug = key.iter().position(|byte| *byte == 0)?;
    key.split_at_checked(slug + 1)
}

/// The key in [`Table::PolicyRevisions`] of the record with the rest `id` of the organization with the prefix `org`.
pub(crate) fn policy_revision_key(org: &[u8], revision: u64, id: &[u8]) -> Vec<u8> {
    [org, &revision.to_be_bytes(), id].concat()
}

/// Revision and rest of a key of [`Table::PolicyRevisions`].
pub(crate) fn policy_revision_parts(key: &[u8]) -> Option<(u64, &[u8])> {
    let (_, rest) = policy_parts(key)?;
    let (revision, id) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*revision), id))
}

/// The keys in [`Table::PolicyRevisions`] of what was written after `revision`.
pub(crate) fn policy_revisions_after(org: &OrgId, revision: u64) -> Range<Vec<u8>> {
    key(org, &[&revision.saturating_add(1).to_be_bytes()])..all_of(org).end
}

pub(crate) fn generation_key(org: &OrgId, purpose: KeyPurpose, generation: u32) -> Vec<u8> {
    key(org, &[purpose.as_str().as_bytes(), &[0], &generation.to_be_bytes()])
}

pub(crate) fn charge_key(org: &OrgId, actor: AgentId, id: &str) -> Vec<u8> {
    key(org, &[actor.uuid().as_bytes(), id.as_bytes()])
}

/// What [`charge_key`] was made of.
pub(crate) fn charge_id(key: &[u8]) -> Option<(OrgId, AgentId, String)> {
    let (org, actor, id) = charge_parts(key)?;
    let org = OrgId::parse(str::from_utf8(org).ok()?).ok()?;
    Some((org, AgentId::from_uuid(Uuid::from_bytes(*actor)), str::from_utf8(id).ok()?.to_owned()))
}

fn charge_parts(key: &[u8]) -> Option<(&[u8], &[u8; 16], &[u8])> {
    let slug = key.iter().position(|byte| *byte == 0)?;
    let (actor, id) = key.get(slug + 1..)?.split_first_chunk()?;
    Some((&key[..slug], actor, id))
}

/// The key in [`Table::LiveHolds`] of what the charge with the key `charge` holds until `end`.
pub(crate) fn live_key(charge: &[u8], end: Timestamp) -> Option<Vec<u8>> {
    let (org, actor, id) = charge_parts(charge)?;
    Some([org, &[0], actor, &end.unix_millis().to_be_bytes(), id].concat())
}

/// The keys in [`Table::LiveHolds`] of what `actor` holds longer than until `now`.
pub(crate) fn live_from(org: &OrgId, actor: AgentId, now: Timestamp) -> Range<Vec<u8>> {
    let after = now.unix_millis().saturating_add(1).to_be_bytes();
    let Range { end, .. } = all_with(org, &[actor.uuid().as_bytes()]);
    key(org, &[actor.uuid().as_bytes(), &after])..end
}

/// The key in [`Table::ParkedHolds`] of what the charge with the key `charge` has parked until `end`.
pub(crate) fn parked_key(end: Timestamp, charge: &[u8]) -> Vec<u8> {
    [&end.unix_millis().to_be_bytes()[..], charge].concat()
}

/// The keys in [`Table::ParkedHolds`] of what was parked until `now` at most.
pub(crate) fn parked_until(now: Timestamp) -> Range<Vec<u8>> {
    Vec::new()..now.unix_millis().saturating_add(1).to_be_bytes().to_vec()
}

pub(crate) fn line_key(org: &OrgId, line: &Line) -> Vec<u8> {
    counter_key(org, line.account, line.meter, line.window, line.window_start)
}

pub(crate) fn counter_key(
    org: &OrgId,
    account: Account,
    meter: Meter,
    window: Window,
    start: Timestamp,
) -> Vec<u8> {
    // Written out, since these bytes are on disk and the order of the variants is not ours to keep.
    let meter = match meter {
        Meter::Tokens => 1,
        Meter::Calls => 2,
        Meter::MicroUsd => 3,
    };
    let window = match window {
        Window::Hour => 1,
        Window::Day => 2,
        Window::Month => 3,
    };
    key(
        org,
        &[
            account.owner.as_bytes(),
            &account.generation.to_be_bytes(),
            &[meter, window],
            &start.unix_millis().to_be_bytes(),
        ],
    )
}

/// The key in [`Table::Expiries`] of a row that may be purged after `at`. `None` for a table without expiry.
pub(crate) fn expiry_key(at: Timestamp, table: Table, row: &[u8]) -> Option<Vec<u8>> {
    let tag = EXPIRING.iter().find(|(_, expiring)| *expiring == table)?.0;
    Some([&at.unix_millis().to_be_bytes(), &[tag][..], row].concat())
}

/// The row that a key of [`Table::Expiries`] is about.
pub(crate) fn expiring_row(expiry: &[u8]) -> Option<(Table, &[u8])> {
    let (tag, row) = expiry.get(8..)?.split_first()?;
    let (_, table) = EXPIRING.iter().find(|(expiring, _)| expiring == tag)?;
    Some((*table, row))
}

/// The keys in [`Table::Expiries`] of all rows that may be purged at `now`.
pub(crate) fn expired(now: Timestamp) -> Range<Vec<u8>> {
    Vec::new()..now.unix_millis().to_be_bytes().to_vec()
}

const EXPIRING: [(u8, Table); 11] = [
    (1, Table::Marks),
    (2, Table::Counters),
    (3, Table::Charges),
    (4, Table::ReplayMarks),
    (5, Table::Tickets),
    (6, Table::RefreshTokens),
    (7, Table::Approvals),
    (8, Table::JitTasks),
    (9, Table::JitRequests),
    (10, Table::Policies),
    (11, Table::JitLoads),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn org(slug: &str) -> OrgId {
        OrgId::parse(slug).unwrap()
    }

    #[test]
    fn keys_of_one_organization_are_not_in_the_range_of_another() {
        for (one, other) in [("a", "a-b"), ("a", "ab"), ("a-b", "a"), ("acme", "acme0")] {
            let range = all_of(&org(one));
            assert!(range.contains(&key(&org(one), &[b"\xff\xff"])));
            assert!(!range.contains(&key(&org(other), &[b""])), "{one} {other}");
            assert!(!range.contains(&key(&org(other), &[b"\0x"])), "{one} {other}");
        }
    }

    #[test]
    fn keys_that_begin_with_something_are_a_range() {
        let org = org("a");
        let range = all_with(&org, &[b"b\xff\xff"]);
        for inside in [&b"b\xff\xff"[..], b"b\xff\xff\0", b"b\xff\xff\xff\xff"] {
            assert!(range.contains(&key(&org, &[inside])), "{inside:?}");
        }
        for outside in [&b"b\xff\xfe\xff"[..], b"b\xff", b"c", b"c\xff\xff"] {
            assert!(!range.contains(&key(&org, &[outside])), "{outside:?}");
        }
        assert!(!all_with(&org, &[&[u8::MAX; 16]]).contains(&prefix(&self::org("a-b"))));
    }

    #[test]
    fn keys_sort_as_slugs_and_numbers_do() {
        assert!(prefix(&org("a")) < prefix(&org("a-b")) && prefix(&org("a-b")) < prefix(&org("a0")));
        assert!(seq_key(&org("a"), 255) < seq_key(&org("a"), 256));
        assert_eq!(number_of(&seq_key(&org("a"), 256)), Some(256));
    }

    #[test]
    fn a_hold_is_found_by_its_end() {
        let (org, actor) = (org("a"), AgentId::generate());
        let charge = charge_key(&org, actor, "ä\0b");
        assert_eq!(charge_id(&charge), Some((org.clone(), actor, "ä\0b".to_owned())));
        let at = Timestamp::from_unix_millis;
        let live = live_key(&charge, at(9)).unwrap();
        assert!(live_from(&org, actor, at(8)).contains(&live));
        assert!(!live_from(&org, actor, at(9)).contains(&live));
        assert!(!live_from(&org, AgentId::generate(), at(0)).contains(&live));
        let parked = parked_key(at(9), &charge);
        assert!(parked_until(at(9)).contains(&parked));
        assert!(!parked_until(at(8)).contains(&parked));
    }

    #[test]
    fn an_expiry_names_its_row() {
        let at = Timestamp::from_unix_seconds(9);
        let expiry = expiry_key(at, Table::Charges, b"row").unwrap();
        assert_eq!(expiring_row(&expiry), Some((Table::Charges, &b"row"[..])));
        assert!(!expired(at).contains(&expiry));
        assert!(expired(Timestamp::from_unix_millis(9001)).contains(&expiry));
        assert_eq!(expiry_key(at, Table::Agents, b"row"), None);
    }
}
