//! What a person answered: once, from the page and in the session that asked.

use std::sync::Arc;

use super::{
    ApiError, AuthorizationServer,
    authorize::{Answer, Authorization, Stop, registered_at},
    codes::Agreed,
    retrying,
};
use crate::{
    aauth_resource::AuthLevel,
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    authorize::{About, AuthorizeError, QuestionBody, Request, RequestError, decide_scope, read},
    capability::Scope,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::{Consent, Place},
    grant::SignIn,
    id::{McpServerId, OrgId},
    mcp::McpServer,
    organization::Organization,
    people::SignedIn,
    principal::user_actor,
    secret::{Secret, SecretHash},
    store::{ConsentKey, Insert, StoreError, TicketPurpose, TicketUse, Update, UseEvents, UserKey},
    user::User,
};

/// A person's answer to a question.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "transports build it")]
pub struct DecisionRequest {
    /// Which question.
    pub challenge_id: String,
    /// The proof that came with it.
    pub csrf_token: Secret,
    /// Whether the person agrees.
    pub approve: bool,
    /// If only to a part: the items.
    pub scopes: Option<Vec<String>>,
}

impl AuthorizationServer {
    /// Takes a person's answer. `signed_in` is who sits at the browser.
    ///
    /// The question is closed first, then the consent is written, then the code is made: a crash in between leaves a true
    /// consent and no code. What was asked for and not chosen is not allowed any more, if it was. A refusal is recorded, and
    /// leaves what was allowed before as it is: to take that back, there are
    /// [`withdraw_consent`](Self::withdraw_consent) and its routes.
    ///
    /// # Errors
    /// [`AuthorizeError`] if it was not this person's to answer, in this session, or was answered before.
    pub async fn decide(
        &self,
        organization: &Organization,
        decision: &DecisionRequest,
        signed_in: Option<&SignedIn>,
        origin: &Origin,
    ) -> Result<Answer, AuthorizeError> {
        let now = self.now();
        let org = &organization.id;
        if !decision.challenge_id.starts_with("ach_") || decision.challenge_id.len() > 64 {
            return Err(AuthorizeError::UnknownChallenge);
        }
        let hash = SecretHash::of(&decision.challenge_id);
        let purpose = TicketPurpose::ConsentChallenge;
        let found = self.stores().grants.find_ticket(org, purpose, &hash, now).await?;
        let found = found.ok_or(AuthorizeError::UnknownChallenge)?;
        let question: QuestionBody = read(&found.ticket.body)?;
        let same = signed_in
            .is_some_and(|there| there.session.equals(&question.session) && there.user == question.user);
        if !same || !question.csrf.matches(&decision.csrf_token) {
            let reason = if same { "csrf_token" } else { "other_session" };
            self.record_foreign_answer(org, &question, signed_in, reason, origin, now).await?;
            return Err(AuthorizeError::OtherSession);
        }
        if found.used {
            return Err(AuthorizeError::AlreadyDecided);
        }
        let scope = agreed_scope(&question.scope, decision)?;
        let client = self.asking_client(organization, question.about.client_id().as_str()).await?;
        if !question.about.address().is_of(&client) {
            return Err(AuthorizeError::RedirectUri);
        }
        let user = self.stores().users.find(org, UserKey::Id(question.user)).await?;
        let user = user.filter(|user| user.is_active()).ok_or(AuthorizeError::OtherSession)?;

        if let About::AAuth { asked, .. } = &question.about {
            // Another door may have answered it. Then this answer decides nothing, and must not be recorded as if it did.
            let asked = self.asked_by_hash(organization, *asked, now).await?;
            if decision.approve
                && scope != question.scope
                && asked.body.grant.level == AuthLevel::Authenticated
            {
                return Err(AuthorizeError::InvalidRequest(
                    "This resource is allowed all of it, or nothing.",
                ));
            }
        }
        let event = Event::new(EventKind::AuthorizationDecided, user_actor(&user), "request answered", now)
            .on(client_target(&client))
            .from_origin(origin)
            .with("decision", if decision.approve { "approve" } else { "deny" })
            .with("scope", scope.to_string());
        let event = if decision.approve { event } else { event.failed("access_denied") };
        let on = UseEvents { used: &event, reused: &event };
        match self.stores().grants.use_ticket(org, purpose, &hash, None, now, on).await? {
            TicketUse::Used => {}
            TicketUse::Reused => return Err(AuthorizeError::AlreadyDecided),
            TicketUse::Missing => return Err(AuthorizeError::UnknownChallenge),
        }
        let asked = Asked { organization, client: &client, user: &user, origin, now };
        let result = match &question.about {
            About::AAuth { asked: hash, address, .. } => {
                let chosen = decision.approve.then_some(scope);
                return self.answer_agent_asking(asked, hash, address, chosen).await;
            }
            About::Request { request, resource } if decision.approve => {
                self.agree(asked, &question, request, resource.as_ref(), scope).await
            }
            About::Request { .. } => Err(RequestError::AccessDenied.into()),
        };
        match result {
            Ok(answer) => Ok(answer),
            Err(Stop::Person(error)) => Err(error),
            Err(Stop::Client(error)) => match self.refusal(organization, question.about.address(), &error) {
                Authorization::Answer(answer) => Ok(answer),
                Authorization::SignIn { .. } | Authorization::Ask(_) => Err(AuthorizeError::UnknownChallenge),
            },
        }
    }

    /// Records that an answer came from somebody else than the person who was asked, or not from the page that asked.
    async fn record_foreign_answer(
        &self,
        org: &OrgId,
        question: &QuestionBody,
        signed_in: Option<&SignedIn>,
        reason: &'static str,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let actor = match signed_in {
            Some(there) => Actor::new(ActorKind::User, there.user.to_string()),
            None => Actor::new(ActorKind::Unknown, "anonymous"),
        };
        let event = Event::new(EventKind::AuthorizationRefused, actor, "answer not taken", now)
            .on(Target::new("client", question.about.client_id().as_str()))
            .from_origin(origin)
            .failed(reason)
            .with("asked", question.user.to_string());
        self.record_failure(org, event, now).await.map(drop)
    }

    async fn agree(
        &self,
        asked: Asked<'_>,
        question: &QuestionBody,
        request: &Request,
        resource: Option<&McpServerId>,
        scope: Scope,
    ) -> Result<Answer, Stop> {
        let Asked { organization, client, user, origin, now } = asked;
        // What the client may be given may have changed while the person was thinking.
        let server: Option<Arc<McpServer>> =
            self.resource(organization, client, request, origin, now).await?;
        if server.as_ref().map(|server| &server.server_id) != resource {
            return Err(RequestError::InvalidTarget.into());
        }
        decide_scope(client, Some(&scope), server.as_deref())?;
        let place = resource.cloned().map(Place::Mcp);
        let choice = Choice { resource: place.as_ref(), asked: &question.scope, chosen: &scope };
        let consent = self.record_consent(asked, choice).await?;
        let sign_in = SignIn { at: question.sign_in.at, amr: question.sign_in.amr.clone() };
        let agreed = Agreed { client, user, scope, server: server.as_deref(), sign_in };
        Ok(self.give_code(organization, request, agreed, &consent, now).await?)
    }

    /// Makes what the person allows the client what they chose.
    pub(super) async fn record_consent(
        &self,
        asked: Asked<'_>,
        choice: Choice<'_>,
    ) -> Result<Consent, AuthorizeError> {
        let Asked { organization, client, user, origin, now } = asked;
        let (org, consents) = (&organization.id, &self.stores().consents);
        // Another server's clock, by which the client was registered, may be a little ahead of this one.
        let agreed_at = now.max(registered_at(client));
        let event = |consent: &Consent| {
            let event = Event::new(EventKind::ConsentGranted, user_actor(user), "consent given", now)
                .on(client_target(client))
                .from_origin(origin)
                .with("consent", consent.id.to_string())
                .with("scope", choice.chosen.to_string());
            let event = match choice.resource {
                Some(Place::Mcp(id)) => event.with("mcp_server_id", id.as_str()),
                Some(Place::AAuth(id)) => event.with("aauth_resource_id", id.as_str()),
                None => event,
            };
            let rest = choice.not_chosen();
            if rest.is_empty() { event } else { event.with("not_chosen", rest.to_string()) }
        };
        let recorded = retrying(|| async {
            let key = ConsentKey::Between(user.id, client.client_id());
            let Some(current) = consents.find(org, key).await? else {
                let client_id = client.client_id().clone();
                let mut consent = Consent::new(user.id, client_id, Scope::default(), agreed_at);
                choice.apply(&mut consent);
                return Ok(match consents.insert(org, &consent, &event(&consent)).await? {
                    Insert::Inserted => Some(consent),
                    Insert::Taken(_) => None,
                });
            };
            let mut next = (*current).clone();
            if current.created_at < registered_at(client) {
                // It was for an earlier client of the same id: whatever stands on it is dead.
                let _ = next.withdraw();
                next.created_at = agreed_at;
            }
            choice.apply(&mut next);
            if next == *current {
                return Ok(Some(next));
            }
            next.updated_at = now;
            Ok(match consents.update(org, &next, &event(&next)).await? {
                Update::Updated => Some(next),
                Update::Stale | Update::Missing | Update::Taken(_) => None,
            })
        });
        recorded.await.map_err(|error| match error {
            ApiError::Store(error) => AuthorizeError::Store(error),
            _ => AuthorizeError::Busy,
        })
    }
}

#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) organization: &'a Organization,
    pub(super) client: &'a AuthenticatedClient,
    pub(super) user: &'a User,
    pub(super) origin: &'a Origin,
    pub(super) now: Timestamp,
}

/// What a person chose of what they were asked for.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) resource: Option<&'a Place>,
    pub(super) asked: &'a Scope,
    pub(super) chosen: &'a Scope,
}

impl Choice<'_> {
    fn not_chosen(&self) -> Scope {
        let rest = self.asked.as_slice().iter().filter(|item| !self.chosen.as_slice().contains(item));
        Scope::new(rest.cloned())
    }

    fn apply(&self, consent: &mut Consent) {
        consent.grant(self.resource, self.chosen);
        consent.forget(self.resource, &self.not_chosen());
    }
}

/// What the person agreed to of what was asked.
fn agreed_scope(asked: &Scope, decision: &DecisionRequest) -> Result<Scope, AuthorizeError> {
    let Some(chosen) = decision.scopes.as_ref().filter(|_| decision.approve) else {
        return Ok(asked.clone());
    };
    let items = || asked.as_slice().iter().filter(|item| chosen.iter().any(|name| name == item.as_str()));
    let unknown = chosen.iter().any(|name| !asked.as_slice().iter().any(|item| item.as_str() == name));
    if unknown || chosen.is_empty() {
        return Err(AuthorizeError::InvalidRequest("scopes must be some of those that were asked for."));
    }
    Ok(Scope::new(items().cloned()))
}

/// A client as what an event is about.
pub(super) fn client_target(client: &AuthenticatedClient) -> Target {
    match client {
        AuthenticatedClient::Agent(agent) => {
            Target::new("agent", agent.id.to_string()).named(agent.name.clone())
        }
        AuthenticatedClient::Client(client) => {
            Target::new("client", client.client_id.as_str()).named(&*client.name)
        }
    }
}
