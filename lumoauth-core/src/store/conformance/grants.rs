//! Cases of [`GrantStore`].

use std::time::Duration;

use super::{RACERS, count, now, race, some_event, some_org};
use crate::{
    clock::Timestamp,
    id::OrgId,
    random::random_bytes,
    secret::Secret,
    store::{
        FoundTicket, GrantStore, Handle, ROTATION_GRACE, RefreshToken, Revoked, Rotation, StoreError,
        StoreErrorKind, Ticket, TicketPurpose, TicketUse, UseEvents,
    },
};

fn some_handle() -> Handle {
    Handle::from_bytes(random_bytes())
}

async fn revoke(store: &dyn GrantStore, org: &OrgId, handle: Handle, keep_until: Timestamp) -> Revoked {
    store.revoke(org, handle, keep_until, &some_event()).await.unwrap()
}

fn later() -> Timestamp {
    now().plus(Duration::from_secs(3600))
}

const MOMENT: Duration = Duration::from_millis(1);

/// A code that can be used for a minute, and whose second use is recognised for an hour.
pub(super) fn some_ticket(family: Option<Handle>) -> Ticket {
    Ticket {
        purpose: TicketPurpose::AuthorizationCode,
        hash: Secret::generate("").hash(),
        body: "{}".to_owned(),
        expires_at: now().plus(Duration::from_secs(60)),
        keep_until: later(),
        family,
    }
}

pub(super) fn some_refresh(family: Handle) -> RefreshToken {
    RefreshToken { hash: Secret::generate("").hash(), family, body: "{}".to_owned(), expires_at: later() }
}

/// Another one of the family of `token`.
pub(super) fn next_of(token: &RefreshToken) -> RefreshToken {
    some_refresh(token.family)
}

/// Whether the client has proven that it is the one the token was issued to.
const PROVEN: bool = true;
const UNPROVEN: bool = false;

/// Uses `ticket` at `at`.
pub(super) async fn use_ticket(
    store: &dyn GrantStore,
    org: &OrgId,
    ticket: &Ticket,
    refresh: Option<&RefreshToken>,
    at: Timestamp,
) -> Result<TicketUse, StoreError> {
    let on = UseEvents { used: &some_event(), reused: &some_event() };
    store.use_ticket(org, ticket.purpose, &ticket.hash, refresh, at, on).await
}

/// Rotates `token` into `next` at `at`.
pub(super) async fn rotate(
    store: &dyn GrantStore,
    org: &OrgId,
    token: &RefreshToken,
    next: &RefreshToken,
    proven: bool,
    at: Timestamp,
) -> Result<Rotation, StoreError> {
    let on = UseEvents { used: &some_event(), reused: &some_event() };
    store.rotate(org, &token.hash, next, proven, at, on).await
}

/// Puts `token` into the store, as it comes there: with the use of a code.
pub(super) async fn granted(store: &dyn GrantStore, org: &OrgId, token: &RefreshToken) {
    let code = some_ticket(Some(token.family));
    store.put_ticket(org, &code).await.unwrap();
    assert_eq!(use_ticket(store, org, &code, Some(token), now()).await.unwrap(), TicketUse::Used);
}

async fn ticket_at(
    store: &dyn GrantStore,
    org: &OrgId,
    ticket: &Ticket,
    at: Timestamp,
) -> Option<FoundTicket> {
    store.find_ticket(org, ticket.purpose, &ticket.hash, at).await.unwrap()
}

async fn refresh_at(
    store: &dyn GrantStore,
    org: &OrgId,
    token: &RefreshToken,
    at: Timestamp,
) -> Option<RefreshToken> {
    store.find_refresh(org, &token.hash, at).await.unwrap().map(|found| found.token)
}

async fn is_rotated(store: &dyn GrantStore, org: &OrgId, token: &RefreshToken) -> bool {
    store.find_refresh(org, &token.hash, now()).await.unwrap().is_some_and(|found| found.rotated)
}

async fn is_dead(store: &dyn GrantStore, org: &OrgId, family: Handle) -> bool {
    store.any_revoked(org, &[family]).await.unwrap()
}

/// Bodies that a backend might change: they are for the protocol only.
fn any_text() -> [String; 6] {
    [
        String::new(),
        "\"quotes\" 'n' \\ %_ \n\r\t\u{1}".to_owned(),
        "Ünïcode \u{1f916} \u{fffd} \u{feff}e\u{301}".to_owned(),
        // Not to be parsed and written anew.
        r#"{"b": 1.0, "a": [1e2, null], "a": 0.10}"#.to_owned(),
        "x".repeat(16 * 1024),
        "\u{1f916}".repeat(4 * 1024),
    ]
}

/// "Of any number of concurrent calls with one handle, exactly one is `Revoked`."
pub async fn revoked_once(store: &dyn GrantStore) {
    let (org, handle) = (some_org(), some_handle());
    let outcomes = race(RACERS, |_| revoke(store, &org, handle, later())).await;

    assert_eq!(count(&outcomes, &Revoked::Revoked), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Revoked::AlreadyRevoked), RACERS - 1, "{outcomes:?}");
    assert!(store.any_revoked(&org, &[handle]).await.unwrap());
}

/// "The mark holds at least until `keep_until`." Marking again neither ends nor shortens it.
pub async fn marks_are_kept(store: &dyn GrantStore) {
    let (org, handle) = (some_org(), some_handle());
    assert_eq!(revoke(store, &org, handle, later()).await, Revoked::Revoked);
    for keep_until in [now(), later(), Timestamp::default()] {
        assert_eq!(revoke(store, &org, handle, keep_until).await, Revoked::AlreadyRevoked);
        assert!(store.any_revoked(&org, &[handle]).await.unwrap());
    }
}

/// "Whether any of `handles` is marked."
pub async fn any_of_many(store: &dyn GrantStore) {
    let org = some_org();
    // Every byte of a handle counts, also a zero and also the last.
    let mut near = [some_handle(); 4];
    for (n, handle) in (0..).zip(&mut near) {
        let mut bytes = *handle.as_bytes();
        (bytes[0], bytes[11]) = (0, n);
        *handle = Handle::from_bytes(bytes);
    }
    let [marked, rest @ ..] = near;
    assert!(!store.any_revoked(&org, &near).await.unwrap());
    assert_eq!(revoke(store, &org, marked, later()).await, Revoked::Revoked);

    let many: Vec<_> = (0..100).map(|_| some_handle()).chain(rest).collect();
    assert!(!store.any_revoked(&org, &[]).await.unwrap());
    assert!(!store.any_revoked(&org, &many).await.unwrap());
    assert!(store.any_revoked(&org, &[marked]).await.unwrap());
    assert!(store.any_revoked(&org, &[marked, marked]).await.unwrap());
    for place in [0, 50, many.len()] {
        let mut handles = many.clone();
        handles.insert(place, marked);
        assert!(store.any_revoked(&org, &handles).await.unwrap(), "{place}");
    }
}

/// "Keeps a new ticket", for this purpose only, with any text. "A second ticket of this purpose and hash is refused with
/// `StoreErrorKind::Other`." "The ticket, used or not."
pub async fn tickets_round_trip(store: &dyn GrantStore) {
    let org = some_org();
    let mut tickets = Vec::new();
    for (n, body) in (0..).zip(any_text()) {
        // One hash for all purposes: they are tickets of their own.
        let hash = Secret::generate("").hash();
        for purpose in TicketPurpose::ALL {
            let family = (n > 0).then(|| Handle::from_bytes([n - 1; 12]));
            let expires_at = now().plus(MOMENT * (u32::from(n) + 1));
            tickets.push(Ticket { purpose, hash, body: body.clone(), expires_at, ..some_ticket(family) });
        }
    }
    for (ticket, others) in tickets.iter().zip(1..) {
        assert_eq!(ticket_at(store, &org, ticket, now()).await, None, "{others}");
        assert_eq!(use_ticket(store, &org, ticket, None, now()).await.unwrap(), TicketUse::Missing);
        store.put_ticket(&org, ticket).await.unwrap();
    }

    for ticket in &tickets {
        let second = Ticket { body: "other".to_owned(), family: None, ..ticket.clone() };
        for used in [false, true] {
            let found = FoundTicket { ticket: ticket.clone(), used };
            for _ in 0..2 {
                assert_eq!(ticket_at(store, &org, ticket, now()).await, Some(found.clone()));
            }
            let refused = store.put_ticket(&org, &second).await.unwrap_err();
            assert_eq!(refused.kind(), StoreErrorKind::Other);
            assert_eq!(ticket_at(store, &org, ticket, now()).await, Some(found));
            if !used {
                assert_eq!(use_ticket(store, &org, ticket, None, now()).await.unwrap(), TicketUse::Used);
            }
        }
    }
}

/// "If its time is not over at `now` (for a used one: `keep_until`)." "A ticket that was never used is `Missing` from
/// `expires_at` on." And then "nothing changed".
pub async fn tickets_end(store: &dyn GrantStore) {
    let (org, family) = (some_org(), some_handle());
    let (ticket, unused) = (some_ticket(Some(family)), some_ticket(Some(family)));
    let refresh = some_refresh(family);
    for ticket in [&ticket, &unused] {
        store.put_ticket(&org, ticket).await.unwrap();
    }
    let found = |ticket: &Ticket, used| Some(FoundTicket { ticket: ticket.clone(), used });
    let (expiry, end) = (ticket.expires_at, ticket.keep_until);

    for at in [expiry, expiry.plus(MOMENT), end, end.plus(MOMENT)] {
        assert_eq!(ticket_at(store, &org, &ticket, at).await, None, "{at:?}");
        let outcome = use_ticket(store, &org, &ticket, Some(&refresh), at).await.unwrap();
        assert_eq!(outcome, TicketUse::Missing, "{at:?}");
    }
    assert_eq!(refresh_at(store, &org, &refresh, now()).await, None);
    let in_time = expiry.minus(MOMENT);
    assert_eq!(ticket_at(store, &org, &ticket, in_time).await, found(&ticket, false));
    let outcome = use_ticket(store, &org, &ticket, Some(&refresh), in_time).await.unwrap();
    assert_eq!(outcome, TicketUse::Used);

    for at in [expiry, end.minus(MOMENT)] {
        assert_eq!(ticket_at(store, &org, &ticket, at).await, found(&ticket, true), "{at:?}");
    }
    for at in [end, end.plus(MOMENT)] {
        assert_eq!(ticket_at(store, &org, &ticket, at).await, None, "{at:?}");
        assert_eq!(use_ticket(store, &org, &ticket, None, at).await.unwrap(), TicketUse::Missing);
    }
    assert!(!is_dead(store, &org, family).await);
    let outcome = use_ticket(store, &org, &ticket, None, end.minus(MOMENT)).await.unwrap();
    assert_eq!(outcome, TicketUse::Reused);
    assert!(is_dead(store, &org, family).await);
    assert_eq!(ticket_at(store, &org, &unused, in_time).await, found(&unused, false));
}

/// "Of any number of concurrent calls exactly one is `Used`, and only its refresh token is added." And if there is a
/// refresh token with its hash already, nothing happened.
pub async fn one_use_wins(store: &dyn GrantStore) {
    let (org, family) = (some_org(), some_handle());
    let ticket = some_ticket(Some(family));
    store.put_ticket(&org, &ticket).await.unwrap();
    let tokens: Vec<_> = (0..RACERS).map(|_| some_refresh(family)).collect();
    let outcomes =
        race(RACERS, async |n| use_ticket(store, &org, &ticket, Some(&tokens[n]), now()).await.unwrap())
            .await;

    assert_eq!(count(&outcomes, &TicketUse::Used), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &TicketUse::Reused), RACERS - 1, "{outcomes:?}");
    for (token, outcome) in tokens.iter().zip(&outcomes) {
        let found = refresh_at(store, &org, token, now()).await;
        assert_eq!(found.as_ref(), (*outcome == TicketUse::Used).then_some(token), "{outcome:?}");
    }

    let winner = outcomes.iter().position(|outcome| *outcome == TicketUse::Used).unwrap();
    let ticket = some_ticket(None);
    store.put_ticket(&org, &ticket).await.unwrap();
    let taken = RefreshToken { body: "other".to_owned(), ..tokens[winner].clone() };
    use_ticket(store, &org, &ticket, Some(&taken), now()).await.unwrap_err();
    assert_eq!(refresh_at(store, &org, &taken, now()).await.as_ref(), Some(&tokens[winner]));
    assert!(ticket_at(store, &org, &ticket, now()).await.is_some_and(|found| !found.used));
    assert_eq!(use_ticket(store, &org, &ticket, None, now()).await.unwrap(), TicketUse::Used);
}

/// "A later one \[..\] marks the ticket's family \[..\] in the same step", and "nothing was added".
pub async fn reuse_marks_the_family(store: &dyn GrantStore) {
    let (org, family, bystander) = (some_org(), some_handle(), some_handle());
    let (ticket, sibling) = (some_ticket(Some(family)), some_ticket(Some(family)));
    let (alone, other) = (some_ticket(None), some_ticket(Some(bystander)));
    for ticket in [&ticket, &sibling, &alone, &other] {
        store.put_ticket(&org, ticket).await.unwrap();
        let found = ticket_at(store, &org, ticket, now()).await.unwrap();
        assert!(!found.used);
    }
    for ticket in [&ticket, &alone, &other] {
        assert_eq!(use_ticket(store, &org, ticket, None, now()).await.unwrap(), TicketUse::Used);
    }
    assert!(!store.any_revoked(&org, &[family, bystander]).await.unwrap());

    let refresh = some_refresh(family);
    for _ in 0..2 {
        let outcome = use_ticket(store, &org, &ticket, Some(&refresh), now()).await.unwrap();
        assert_eq!(outcome, TicketUse::Reused);
        assert!(is_dead(store, &org, family).await);
        assert_eq!(refresh_at(store, &org, &refresh, now()).await, None);
    }
    // "If it has a family": one without it is told apart all the same.
    assert_eq!(use_ticket(store, &org, &alone, None, now()).await.unwrap(), TicketUse::Reused);
    assert!(!is_dead(store, &org, bystander).await);
    // That its family is dead says nothing about whether a ticket was used.
    assert_eq!(use_ticket(store, &org, &sibling, None, now()).await.unwrap(), TicketUse::Used);

    let raced = some_ticket(Some(some_handle()));
    store.put_ticket(&org, &raced).await.unwrap();
    race(RACERS, async |_| use_ticket(store, &org, &raced, None, now()).await.unwrap()).await;
    assert!(is_dead(store, &org, raced.family.unwrap()).await);
}

/// "The refresh token, rotated or not." "Whether its family is revoked is for the caller to ask."
pub async fn refresh_tokens_round_trip(store: &dyn GrantStore) {
    let org = some_org();
    for (n, body) in (0..).zip(any_text()) {
        let family = Handle::from_bytes([n; 12]);
        let expires_at = now().plus(ROTATION_GRACE + MOMENT * u32::from(n));
        let first = RefreshToken { body: body.clone(), expires_at, ..some_refresh(family) };
        let second = RefreshToken { body: format!("{body}2"), ..next_of(&first) };
        assert_eq!(refresh_at(store, &org, &first, now()).await, None);
        let outcome = rotate(store, &org, &first, &second, PROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Missing);
        granted(store, &org, &first).await;

        assert_eq!(refresh_at(store, &org, &first, now()).await, Some(first.clone()));
        assert_eq!(refresh_at(store, &org, &second, now()).await, None);
        assert!(!is_rotated(store, &org, &first).await);
        let outcome = rotate(store, &org, &first, &second, UNPROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Rotated);
        assert!(is_rotated(store, &org, &first).await && !is_rotated(store, &org, &second).await);
        assert_eq!(revoke(store, &org, family, later()).await, Revoked::Revoked);
        for token in [&first, &second] {
            assert_eq!(refresh_at(store, &org, token, now()).await.as_ref(), Some(token));
        }
    }
}

/// "Of any number of concurrent calls exactly one is `Rotated`, and only its successor is added." And if there is a
/// refresh token with the hash of the successor already, nothing happened.
pub async fn one_rotation_wins(store: &dyn GrantStore) {
    let org = some_org();
    for (proven, loser, dead) in [(PROVEN, Rotation::Raced, false), (UNPROVEN, Rotation::Reused, true)] {
        let token = some_refresh(some_handle());
        granted(store, &org, &token).await;
        let next: Vec<_> = (0..RACERS).map(|_| next_of(&token)).collect();
        let outcomes =
            race(RACERS, async |n| rotate(store, &org, &token, &next[n], proven, now()).await.unwrap()).await;

        assert_eq!(count(&outcomes, &Rotation::Rotated), 1, "{outcomes:?}");
        assert_eq!(count(&outcomes, &loser), RACERS - 1, "{outcomes:?}");
        for (next, outcome) in next.iter().zip(&outcomes) {
            let found = refresh_at(store, &org, next, now()).await;
            assert_eq!(found.as_ref(), (*outcome == Rotation::Rotated).then_some(next), "{outcome:?}");
        }
        assert_eq!(is_dead(store, &org, token.family).await, dead);
    }

    let (token, known) = (some_refresh(some_handle()), some_refresh(some_handle()));
    granted(store, &org, &token).await;
    granted(store, &org, &known).await;
    for taken in [&known, &token] {
        let next = RefreshToken { hash: taken.hash, ..next_of(&token) };
        rotate(store, &org, &token, &next, PROVEN, now()).await.unwrap_err();
        assert_eq!(refresh_at(store, &org, taken, now()).await.as_ref(), Some(taken));
    }
    let outcome = rotate(store, &org, &token, &next_of(&token), PROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
}

/// "`Raced` if `proven` \[..\], less than `ROTATION_GRACE` has passed since that rotation, and the successor was not
/// rotated; else it is `Reused`." `Raced`: "nothing changed."
pub async fn lost_races_are_forgiven(store: &dyn GrantStore) {
    let org = some_org();
    let (last_moment, too_late) = (now().plus(ROTATION_GRACE - MOMENT), now().plus(ROTATION_GRACE));
    // At once, and a moment before it is too late; and that does not make the time longer.
    let token = some_refresh(some_handle());
    granted(store, &org, &token).await;
    let successor = next_of(&token);
    let outcome = rotate(store, &org, &token, &successor, UNPROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
    for at in [now(), last_moment, last_moment] {
        let lost = next_of(&token);
        assert_eq!(rotate(store, &org, &token, &lost, PROVEN, at).await.unwrap(), Rotation::Raced, "{at:?}");
        assert_eq!(refresh_at(store, &org, &lost, at).await, None);
        assert_eq!(refresh_at(store, &org, &token, at).await.as_ref(), Some(&token));
        assert_eq!(refresh_at(store, &org, &successor, at).await.as_ref(), Some(&successor));
        assert!(!is_dead(store, &org, token.family).await);
    }
    let outcome = rotate(store, &org, &token, &next_of(&token), PROVEN, too_late).await.unwrap();
    assert_eq!(outcome, Rotation::Reused);
    assert!(is_dead(store, &org, token.family).await);

    // What is not forgiven: no proof, and a successor that was used, by whoever lost the race or by whoever won it.
    for (used, proven) in [(false, UNPROVEN), (true, PROVEN), (true, UNPROVEN)] {
        let token = some_refresh(some_handle());
        granted(store, &org, &token).await;
        let successor = next_of(&token);
        let outcome = rotate(store, &org, &token, &successor, PROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Rotated);
        if used {
            let outcome = rotate(store, &org, &successor, &next_of(&token), PROVEN, now()).await.unwrap();
            assert_eq!(outcome, Rotation::Rotated);
        }
        let lost = next_of(&token);
        let outcome = rotate(store, &org, &token, &lost, proven, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Reused, "{used} {proven}");
        assert_eq!(refresh_at(store, &org, &lost, now()).await, None);
        assert!(is_dead(store, &org, token.family).await);
    }
}

/// "Else it is `Reused` and marks the family \[..\], in the same step." It does nothing else, and to no other family.
pub async fn reuse_kills_the_family(store: &dyn GrantStore) {
    let org = some_org();
    let (first, bystander) = (some_refresh(some_handle()), some_refresh(some_handle()));
    granted(store, &org, &bystander).await;
    granted(store, &org, &first).await;
    let (second, third) = (next_of(&first), next_of(&first));
    for (token, next) in [(&first, &second), (&second, &third)] {
        let outcome = rotate(store, &org, token, next, PROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Rotated);
    }
    assert!(!is_dead(store, &org, first.family).await);

    let stolen = next_of(&first);
    for token in [&first, &second, &first] {
        let outcome = rotate(store, &org, token, &stolen, UNPROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Reused);
        assert!(is_dead(store, &org, first.family).await);
        assert_eq!(refresh_at(store, &org, &stolen, now()).await, None);
    }
    assert!(!is_dead(store, &org, bystander.family).await);
    for token in [&first, &second, &third] {
        assert_eq!(refresh_at(store, &org, token, now()).await.as_ref(), Some(token));
    }
    // The newest was not rotated: that its family is dead is for the caller to ask.
    let outcome = rotate(store, &org, &third, &next_of(&third), PROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
}

/// `Missing`: "There is none, or its time is over. Nothing changed."
pub async fn refresh_tokens_end(store: &dyn GrantStore) {
    let org = some_org();
    let token = some_refresh(some_handle());
    let expiry = token.expires_at;
    granted(store, &org, &token).await;
    let next = RefreshToken { expires_at: expiry.plus(MOMENT * 2), ..next_of(&token) };
    for at in [expiry, expiry.plus(MOMENT)] {
        assert_eq!(refresh_at(store, &org, &token, at).await, None, "{at:?}");
        let outcome = rotate(store, &org, &token, &next, PROVEN, at).await.unwrap();
        assert_eq!(outcome, Rotation::Missing, "{at:?}");
    }
    assert_eq!(refresh_at(store, &org, &next, now()).await, None);

    let in_time = expiry.minus(MOMENT);
    assert_eq!(refresh_at(store, &org, &token, in_time).await.as_ref(), Some(&token));
    let outcome = rotate(store, &org, &token, &next, PROVEN, in_time).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
    // Its successor has a time of its own.
    assert_eq!(refresh_at(store, &org, &next, expiry.plus(MOMENT)).await.as_ref(), Some(&next));
    assert_eq!(refresh_at(store, &org, &next, next.expires_at).await, None);

    // A reuse is recognised as long as the token is there.
    let stolen = next_of(&token);
    let outcome = rotate(store, &org, &token, &stolen, UNPROVEN, expiry).await.unwrap();
    assert_eq!(outcome, Rotation::Missing);
    assert!(!is_dead(store, &org, token.family).await);
    let outcome = rotate(store, &org, &token, &stolen, UNPROVEN, in_time).await.unwrap();
    assert_eq!(outcome, Rotation::Reused);
    assert!(is_dead(store, &org, token.family).await);
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn GrantStore) {
    let (ours, theirs, handle) = (some_org(), some_org(), some_handle());
    assert_eq!(revoke(store, &ours, handle, later()).await, Revoked::Revoked);

    assert!(!store.any_revoked(&theirs, &[handle]).await.unwrap());
    assert_eq!(revoke(store, &theirs, handle, later()).await, Revoked::Revoked);

    // One ticket, one refresh token and one family, in both.
    let refresh = some_refresh(some_handle());
    let ticket = some_ticket(Some(refresh.family));
    store.put_ticket(&ours, &ticket).await.unwrap();
    assert_eq!(ticket_at(store, &theirs, &ticket, now()).await, None);
    let outcome = use_ticket(store, &theirs, &ticket, Some(&refresh), now()).await.unwrap();
    assert_eq!(outcome, TicketUse::Missing);
    store.put_ticket(&theirs, &ticket).await.unwrap();
    for org in [&theirs, &ours] {
        let found = ticket_at(store, org, &ticket, now()).await.unwrap();
        assert!(!found.used);
        assert_eq!(refresh_at(store, org, &refresh, now()).await, None);
        let outcome = use_ticket(store, org, &ticket, Some(&refresh), now()).await.unwrap();
        assert_eq!(outcome, TicketUse::Used);
    }
    assert_eq!(use_ticket(store, &theirs, &ticket, None, now()).await.unwrap(), TicketUse::Reused);
    assert!(is_dead(store, &theirs, refresh.family).await);
    assert!(!is_dead(store, &ours, refresh.family).await);

    let next = next_of(&refresh);
    for org in [&theirs, &ours] {
        assert_eq!(refresh_at(store, org, &next, now()).await, None);
        let outcome = rotate(store, org, &refresh, &next, UNPROVEN, now()).await.unwrap();
        assert_eq!(outcome, Rotation::Rotated);
    }
    let only_ours = next_of(&next);
    let outcome = rotate(store, &ours, &next, &only_ours, UNPROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
    assert_eq!(refresh_at(store, &theirs, &only_ours, now()).await, None);
    let outcome = rotate(store, &theirs, &only_ours, &next_of(&next), UNPROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Missing);
    // Whose successor was rotated in another organization has one that was not.
    let outcome = rotate(store, &theirs, &refresh, &next_of(&next), PROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Raced);
    assert!(!is_dead(store, &ours, refresh.family).await);
    let outcome = rotate(store, &ours, &refresh, &next_of(&next), PROVEN, now()).await.unwrap();
    assert_eq!(outcome, Rotation::Reused);
}
