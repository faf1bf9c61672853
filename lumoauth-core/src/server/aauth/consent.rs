//! Bringing a person to the question that an agent asked, and their answer.
//!
//! 1. The question is found by the request token, which is in the address that the agent was told to bring the person to. It
//!    shows who asks and decides nothing; the person decides, signed in and on our page, or with a token of their own.
//! 2. It is answered once, by whichever of the two doors. Where a resource asks each person once, for whatever agents may want
//!    there, the answer is to all or nothing: what somebody left out would be given the next time, unasked.
//! 3. What a person agreed to before for the same agent and resource is not asked again, except where the resource wants the
//!    person to be there.

use std::sync::Arc;

use super::grants::{AAuthCodeBody, AskedBody, out_of_bounds};
use crate::{
    aauth::alive,
    aauth_resource::{AAuthResource, AuthLevel},
    audit::{Event, EventKind, Origin},
    authorize::{About, Address, AuthorizeError, RequestError, read, redirect},
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::{Consent, Place},
    organization::Organization,
    people::SignedIn,
    principal::{Principal, user_actor},
    secret::{Secret, SecretHash},
    server::{
        AuthorizationServer,
        authorize::{Answer, Authorization, QUESTION_LIFE, Question, registered_at},
        decide::{Asked, Choice, client_target},
    },
    store::{
        AAuthResourceKey, AgentKey, ConsentKey, StoreError, TicketPurpose, TicketUse, UseEvents, UserKey,
    },
    token::ConsentEpoch,
    user::User,
    wire::Params,
};

/// The longest request token that is looked at.
const MAX_TOKEN: usize = 128;
/// The longest `state`.
const MAX_STATE: usize = 2048;

/// A browser that comes for what an agent asked.
#[derive(Clone, Copy)]
pub(in crate::server) struct Bringing<'a> {
    pub(in crate::server) token: &'a str,
    pub(in crate::server) params: &'a Params,
    pub(in crate::server) signed_in: Option<&'a SignedIn>,
    pub(in crate::server) origin: &'a Origin,
    pub(in crate::server) now: Timestamp,
}

/// What an agent asked, while it waits for an answer.
pub(in crate::server) struct AskedByAgent {
    pub(in crate::server) body: AskedBody,
    hash: SecretHash,
    client: AuthenticatedClient,
    resource: Arc<AAuthResource>,
}

/// When a person said what is recorded.
#[derive(Clone, Copy)]
enum Answered {
    Now,
    Before,
}

impl AskedByAgent {
    fn place(&self) -> Place {
        Place::AAuth(self.resource.id.clone())
    }

    /// Whether `consent` answers it already.
    fn is_answered_by(&self, consent: &Consent) -> bool {
        let place = self.place();
        let agreed = match self.body.grant.level {
            AuthLevel::None | AuthLevel::User => false,
            // Once to this agent at this resource.
            AuthLevel::Authenticated => consent.active && consent.at.contains_key(&place),
            // Whoever is asked for nothing in particular was never asked for it before.
            AuthLevel::Authorized => {
                let scope = &self.body.grant.scope;
                !scope.is_empty() && consent.covers(Some(&place), scope)
            }
        };
        agreed && consent.holds_for(registered_at(&self.client))
    }
}

impl AuthorizationServer {
    /// What an agent asked under this request token, if nobody has answered and everything still holds.
    pub(in crate::server) async fn asked_by_agent(
        &self,
        organization: &Organization,
        token: &str,
        now: Timestamp,
    ) -> Result<AskedByAgent, AuthorizeError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthorizeError::RequestUri);
        }
        self.asked_by_hash(organization, SecretHash::of(token), now).await
    }

    /// The same by the hash of the request token.
    pub(in crate::server) async fn asked_by_hash(
        &self,
        organization: &Organization,
        hash: SecretHash,
        now: Timestamp,
    ) -> Result<AskedByAgent, AuthorizeError> {
        let (org, stores) = (&organization.id, self.stores());
        let found = stores.grants.find_ticket(org, TicketPurpose::AAuthRequest, &hash, now).await?;
        let found = found.ok_or(AuthorizeError::RequestUri)?;
        if found.used {
            return Err(AuthorizeError::AlreadyDecided);
        }
        let body: AskedBody = read(&found.ticket.body)?;
        if alive(stores, organization, &body.grant.lineage, &[]).await?.is_err() {
            return Err(AuthorizeError::RequestUri);
        }
        let (Some(agent), Some(resource)) = (body.grant.agent(), body.grant.resource()) else {
            return Err(AuthorizeError::RequestUri);
        };
        let agent =
            stores.agents.find(org, AgentKey::Id(agent)).await?.ok_or(AuthorizeError::UnknownClient)?;
        let resource = stores.aauth_resources.find(org, AAuthResourceKey::Id(resource)).await?;
        let resource = resource.ok_or(AuthorizeError::RequestUri)?;
        // Nobody is asked for what could not be had any more.
        let to_be_had = agent.aauth.as_deref().is_some_and(|identity| {
            identity.user_authorization
                && resource.default_auth_level <= body.grant.level
                && out_of_bounds(&body.grant.scope, &resource, identity).is_none()
        });
        if !to_be_had {
            return Err(AuthorizeError::RequestUri);
        }
        Ok(AskedByAgent { client: AuthenticatedClient::Agent(agent), resource, body, hash })
    }

    /// Whether a person can still be asked what an agent asked under this request token.
    ///
    /// # Errors
    /// [`AuthorizeError`] if not.
    pub async fn check_aauth_request(
        &self,
        organization: &Organization,
        request_token: &str,
    ) -> Result<(), AuthorizeError> {
        self.asked_by_agent(organization, request_token, self.now()).await.map(drop)
    }

    /// Serves the authorization endpoint for what an agent asked.
    pub(in crate::server) async fn authorize_aauth(
        &self,
        organization: &Organization,
        came: Bringing<'_>,
    ) -> Result<Authorization, AuthorizeError> {
        let Bringing { token, params, signed_in, origin, now } = came;
        let org = &organization.id;
        let asked = self.asked_by_agent(organization, token, now).await?;
        let address = address(params, &asked)?;
        let Some(there) = signed_in else { return Ok(Authorization::SignIn { request_uri: None }) };
        let user = self.stores().users.find(org, UserKey::Id(there.user)).await?;
        let Some(user) = user.filter(|user| user.is_active()) else {
            return Ok(self.refusal(organization, &address, &RequestError::AccessDenied));
        };
        let key = ConsentKey::Between(user.id, asked.client.client_id());
        let consent = self.stores().consents.find(org, key).await?;
        if let Some(consent) = consent.filter(|consent| asked.is_answered_by(consent)) {
            let scope = asked.body.grant.scope.clone();
            let by = Asked { organization, client: &asked.client, user: &user, origin, now };
            self.close_request(by, &asked, Some(&scope), Answered::Before).await?;
            let answer =
                self.give_aauth_code(organization, asked, &address, &user, &consent, scope, now).await?;
            return Ok(Authorization::Answer(answer));
        }
        let agent = asked.client.client_id().clone();
        let about = About::AAuth { asked: asked.hash, agent, address: address.clone() };
        let scope = asked.body.grant.scope.clone();
        let (challenge_id, csrf_token) =
            self.keep_question(org, about, scope.clone(), user.id, there, now).await?;
        let describe = |item: &Capability| {
            let text = asked.resource.scope_descriptions.get(item.as_str()).cloned();
            (item.to_string(), text.unwrap_or_else(|| item.to_string()))
        };
        Ok(Authorization::Ask(Box::new(Question {
            challenge_id,
            csrf_token,
            user,
            scopes: scope.as_slice().iter().map(describe).collect(),
            resource: Some(asked.resource.identifier.to_string()),
            resource_name: Some(asked.resource.name.clone()),
            client_url: named_by(&asked.client),
            client: asked.client,
            redirect_origin: redirect::origin(&address.redirect_uri),
            redirect_uri: address.redirect_uri,
            expires_in: QUESTION_LIFE,
        })))
    }

    /// Carries out what a person answered on the page: `chosen`, or nothing.
    pub(in crate::server) async fn answer_agent_asking(
        &self,
        by: Asked<'_>,
        hash: &SecretHash,
        address: &Address,
        chosen: Option<Scope>,
    ) -> Result<Answer, AuthorizeError> {
        let asked = self.asked_by_hash(by.organization, *hash, by.now).await?;
        self.decide_for_agent(by, asked, address, chosen).await
    }

    /// Takes the answer of a person who is there by a token of their own: for programs that show the question themselves.
    ///
    /// # Errors
    /// [`AuthorizeError::NotInPerson`] for everybody else, [`AuthorizeError::AlreadyDecided`] the second time.
    pub async fn decide_aauth_request(
        &self,
        organization: &Organization,
        principal: &Principal,
        request_token: &Secret,
        approve: bool,
        origin: &Origin,
    ) -> Result<Answer, AuthorizeError> {
        let now = self.now();
        let user = principal.person().ok_or(AuthorizeError::NotInPerson)?;
        let asked = self.asked_by_agent(organization, request_token.expose(), now).await?;
        let address =
            Address { redirect_uri: asked.body.redirect_uri.clone(), redirect_named: true, state: None };
        let chosen = approve.then(|| asked.body.grant.scope.clone());
        let client = asked.client.clone();
        let by = Asked { organization, client: &client, user, origin, now };
        self.decide_for_agent(by, asked, &address, chosen).await
    }

    async fn decide_for_agent(
        &self,
        by: Asked<'_>,
        asked: AskedByAgent,
        address: &Address,
        chosen: Option<Scope>,
    ) -> Result<Answer, AuthorizeError> {
        let Asked { organization, user, now, .. } = by;
        // The agent's addresses may have changed since the person was asked.
        if !address.is_of(&asked.client) {
            return Err(AuthorizeError::RedirectUri);
        }
        self.close_request(by, &asked, chosen.as_ref(), Answered::Now).await?;
        let Some(scope) = chosen else {
            return match self.refusal(organization, address, &RequestError::AccessDenied) {
                Authorization::Answer(answer) => Ok(answer),
                Authorization::SignIn { .. } | Authorization::Ask(_) => Err(AuthorizeError::UnknownChallenge),
            };
        };
        let place = asked.place();
        let choice = Choice { resource: Some(&place), asked: &asked.body.grant.scope, chosen: &scope };
        let consent = self.record_consent(by, choice).await?;
        Ok(self.give_aauth_code(organization, asked, address, user, &consent, scope, now).await?)
    }

    /// Closes the question: nobody answers it a second time.
    async fn close_request(
        &self,
        by: Asked<'_>,
        asked: &AskedByAgent,
        chosen: Option<&Scope>,
        answered: Answered,
    ) -> Result<(), AuthorizeError> {
        let Asked { organization, user, origin, now, .. } = by;
        let kind = EventKind::AAuthAuthorizationDecided;
        let event = Event::new(kind, user_actor(user), "agent's request answered", now)
            .on(client_target(&asked.client))
            .from_origin(origin)
            .with("aauth_resource_id", asked.resource.id.as_str())
            .with("decision", if chosen.is_some() { "approve" } else { "deny" });
        let event = match answered {
            Answered::Now => event,
            // They were not asked. It is what they said to the same question some other day.
            Answered::Before => event.with("remembered", true),
        };
        let event = match chosen {
            Some(scope) => event.with("scope", scope.to_string()),
            None => event.failed("access_denied"),
        };
        let on = UseEvents { used: &event, reused: &event };
        let purpose = TicketPurpose::AAuthRequest;
        match self.stores().grants.use_ticket(&organization.id, purpose, &asked.hash, None, now, on).await? {
            TicketUse::Used => Ok(()),
            TicketUse::Reused => Err(AuthorizeError::AlreadyDecided),
            TicketUse::Missing => Err(AuthorizeError::RequestUri),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a code stands on")]
    async fn give_aauth_code(
        &self,
        organization: &Organization,
        asked: AskedByAgent,
        address: &Address,
        user: &User,
        consent: &Consent,
        scope: Scope,
        now: Timestamp,
    ) -> Result<Answer, StoreError> {
        let org = &organization.id;
        let AskedBody { mut grant, redirect_uri, jkt, asked_with } = asked.body;
        grant.scope = scope;
        grant.lineage.user = Some((user.id, user.epoch));
        grant.lineage.consents = vec![ConsentEpoch { id: consent.id, epoch: consent.epoch }];
        let code = Secret::generate("aac_");
        let body = AAuthCodeBody { grant, redirect_uri, jkt, asked_with, request: asked.hash };
        self.stores().grants.put_ticket(org, &body.ticket(&code, org, now)?).await?;
        let redirect_to = address.answer(&self.issuer(org), &[("code", code.expose())]).into();
        Ok(Answer { redirect_to, code: Some(code) })
    }
}

/// The URL that names an agent.
fn named_by(client: &AuthenticatedClient) -> Option<String> {
    match client {
        AuthenticatedClient::Agent(agent) => agent.aauth_identifier().map(ToString::to_string),
        AuthenticatedClient::Client(_) => None,
    }
}

/// Where the answer goes: where the agent said, with the `state` that the browser brought.
fn address(params: &Params, asked: &AskedByAgent) -> Result<Address, AuthorizeError> {
    let redirect_uri = asked.body.redirect_uri.clone();
    if params.get("redirect_uri").is_some_and(|uri| uri != redirect_uri) {
        return Err(AuthorizeError::RedirectUri);
    }
    let state = params.get("state").map(ToOwned::to_owned);
    if state.as_ref().is_some_and(|state| state.len() > MAX_STATE) {
        return Err(AuthorizeError::InvalidRequest("state is too long."));
    }
    let address = Address { redirect_uri, redirect_named: true, state };
    // The agent's addresses may have changed since it asked.
    if address.is_of(&asked.client) { Ok(address) } else { Err(AuthorizeError::RedirectUri) }
}
