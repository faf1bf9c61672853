//! What an agent has for the resources it calls, by their origin.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::lock;
use http::StatusCode;
use lumoauth_core::{
    aauth::client::{AuthToken, Wanted},
    capability::Scope,
    clock::Timestamp,
    id::AAuthIdentifier,
    secret::Secret,
};
use url::Origin;

use super::{AAuthClientError, PendingConsent};

/// How many origins are remembered. The one that was not called for the longest time is forgotten first.
const MAX_PLACES: usize = 256;
/// How many tokens, refresh tokens and questions are kept for one origin.
const MAX_EACH: usize = 8;

/// A token that a call went out with, and the answer.
pub(super) type RefusedToken = (Arc<AuthToken>, StatusCode);

/// Every resource that was called.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: HashMap<Origin, (Arc<Place>, u64)>,
    calls: u64,
}

/// One origin.
#[derive(Debug, Default)]
pub(super) struct Place {
    tokens: Mutex<Tokens>,
    /// Who has it obtains tokens.
    gate: lock::Mutex<Gate>,
    rounds: AtomicU64,
}

#[derive(Debug, Default)]
struct Tokens {
    /// The one that was used last stands last.
    good: Vec<Arc<AuthToken>>,
    /// What gives the next ones, each with the token that it came with.
    refresh: Vec<(Arc<AuthToken>, Secret)>,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Why the last round ended without a token, and for what it was.
    failed: Option<(AAuthIdentifier, Scope, AAuthClientError)>,
    questions: Vec<PendingConsent>,
}

impl Places {
    pub(super) fn at(&self, origin: &Origin) -> Arc<Place> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.calls += 1;
        let call = known.calls;
        if let Some((place, last)) = known.places.get_mut(origin) {
            *last = call;
            return place.clone();
        }
        if known.places.len() >= MAX_PLACES {
            let oldest = known.places.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
                known.places.remove(&oldest);
            }
        }
        known.places.entry(origin.clone()).or_insert_with(|| (Arc::default(), call)).0.clone()
    }
}

impl Place {
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token to try first.
    pub(super) fn pick(&self, hint: Option<&Scope>, now: Timestamp) -> Option<Arc<AuthToken>> {
        let fits = |token: &&Arc<AuthToken>| token.is_good(now) && hint.is_none_or(|hint| token.covers(hint));
        self.tokens().good.iter().rev().find(fits).cloned()
    }

    /// A token for what is wanted that is none of `refused`.
    pub(super) fn another(
        &self,
        wanted: &Wanted,
        refused: &[RefusedToken],
        now: Timestamp,
    ) -> Option<Arc<AuthToken>> {
        let good = &mut self.tokens().good;
        let found = good.iter().rposition(|token| {
            token.is_good(now)
                && token.resource == wanted.resource
                && token.covers(&wanted.scope)
                && !refused.iter().any(|(refused, _)| Arc::ptr_eq(refused, token))
        })?;
        let token = good.remove(found);
        good.push(token.clone());
        Some(token)
    }

    /// Forgets tokens for `resource` that it does not take as such. Those for another resource, which was not asked, stay, and
    /// so do those that were good for too little.
    pub(super) fn forget_refused(&self, refused: &[RefusedToken], resource: &AAuthIdentifier) {
        let is_dead = |token: &Arc<AuthToken>| {
            let was_refused = |(refused, status): &RefusedToken| {
                Arc::ptr_eq(refused, token) && *status == StatusCode::UNAUTHORIZED
            };
            token.resource == *resource && refused.iter().any(was_refused)
        };
        self.tokens().good.retain(|token| !is_dead(token));
    }

    /// Keeps a new token in place of those that it makes superfluous.
    pub(super) fn keep(&self, mut token: AuthToken, now: Timestamp) -> Arc<AuthToken> {
        let refresh_token = token.refresh_token.take();
        let token = Arc::new(token);
        let Tokens { good, refresh } = &mut *self.tokens();
        let replaced = |old: &AuthToken| old.resource == token.resource && token.covers(&old.scope);
        good.retain(|old| old.is_good(now) && !replaced(old));
        push(good, token.clone());
        if let Some(text) = refresh_token {
            refresh.retain(|(old, _)| !replaced(old));
            push(refresh, (token.clone(), text));
        }
        token
    }

    /// What gives a token for what is wanted.
    pub(super) fn refresh_token(&self, wanted: &Wanted) -> Option<Secret> {
        let tokens = self.tokens();
        let fits = |token: &AuthToken| token.resource == wanted.resource && token.covers(&wanted.scope);
        tokens.refresh.iter().find(|(token, _)| fits(token)).map(|(_, text)| text.clone())
    }

    pub(super) fn forget_refresh_token(&self, text: &Secret) {
        let hash = text.hash();
        self.tokens().refresh.retain(|(_, known)| !hash.matches(known));
    }

    /// How often somebody came back with a token or without.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    pub(super) fn end_round(&self) {
        self.rounds.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) async fn lock(&self) -> lock::MutexGuard<'_, Gate> {
        self.gate.lock().await
    }
}

impl Gate {
    /// Why the last round ended, if it was for this and ended without a token.
    pub(super) fn failed(&self, wanted: &Wanted) -> Option<AAuthClientError> {
        let (resource, scope, error) = self.failed.as_ref()?;
        (*resource == wanted.resource && *scope == wanted.scope).then(|| error.clone())
    }

    pub(super) fn fail(&mut self, wanted: &Wanted, error: Option<&AAuthClientError>) {
        self.failed = error.map(|error| (wanted.resource.clone(), wanted.scope.clone(), error.clone()));
    }

    /// The question that was asked for this already.
    pub(super) fn asked(&self, wanted: &Wanted, now: Timestamp) -> Option<PendingConsent> {
        let is_it = |question: &&PendingConsent| {
            let needed = &question.needed;
            needed.resource == wanted.resource && needed.scope == wanted.scope && now < needed.expires_at
        };
        self.questions.iter().find(is_it).cloned()
    }

    pub(super) fn ask(&mut self, question: PendingConsent) -> PendingConsent {
        let (resource, scope) = (&question.needed.resource, &question.needed.scope);
        self.questions.retain(|old| old.needed.resource != *resource || old.needed.scope != *scope);
        push(&mut self.questions, question.clone());
        question
    }

    pub(super) fn settle(&mut self, question: &PendingConsent) {
        self.questions.retain(|old| !old.is(question));
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() >= MAX_EACH {
        list.remove(0);
    }
    list.push(item);
}
