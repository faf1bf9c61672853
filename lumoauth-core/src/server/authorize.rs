//! The authorization endpoint: who asks, who is there, what was agreed to before, and else the question.

use std::{sync::Arc, time::Duration};

use super::{
    AuthorizationServer,
    aauth::Bringing,
    codes::{Agreed, with_offline},
    decide::client_target,
    token::RequestClient,
};
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, Origin, cleaned},
    authorize::{
        About, Address, AuthorizeError, QuestionBody, Request, RequestError, decide_scope, describe,
        redirect, write,
    },
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::Place,
    grant::{Refusal, SignIn, TokenError, target},
    id::{ClientId, OrgId, UserId},
    keys::KeyError,
    mcp::McpServer,
    organization::Organization,
    people::SignedIn,
    secret::Secret,
    store::{AgentKey, ClientKey, ConsentKey, StoreError, Ticket, TicketPurpose, UserKey},
    user::User,
    wire::Params,
};

/// How long a question waits for its answer, in seconds.
pub(super) const QUESTION_LIFE: u32 = 600;

/// The parameter that stands for what an AAuth agent asked for.
const AAUTH_REQUEST: &str = "aauth_request";

/// What the browser gets.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "transports must render every answer")]
pub enum Authorization {
    /// It goes back to the client.
    Answer(Answer),
    /// The person must sign in, and come back with the same request; or with this `request_uri` in its place.
    SignIn {
        /// Stands for the request, if it wants a newer sign-in than there is and came as it is: only one after this
        /// instant counts. A request that came by a `request_uri` comes back by the same one.
        request_uri: Option<String>,
    },
    /// The person is asked.
    Ask(Box<Question>),
}

/// Where the browser goes, with a code or an error.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The client's address with the answer in its query, which may be a code.
    pub redirect_to: Secret,
    /// The code, if there is one.
    pub code: Option<Secret>,
}

/// What a person is asked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Question {
    /// Names the question.
    pub challenge_id: Secret,
    /// Proves that the answer came from the page that asked.
    pub csrf_token: Secret,
    /// Who wants it.
    pub client: AuthenticatedClient,
    /// The URL that names it, if it asks as an AAuth agent.
    pub client_url: Option<String>,
    /// Of whom.
    pub user: Arc<User>,
    /// What, each item with a sentence.
    pub scopes: Vec<(String, String)>,
    /// The resource that the access is for; `None` is this server.
    pub resource: Option<String>,
    /// The display name of that resource.
    pub resource_name: Option<String>,
    /// Where the browser goes next.
    pub redirect_uri: String,
    /// The origin of that place, as a content security policy names it.
    pub redirect_origin: Option<String>,
    /// How long the question waits, in seconds.
    pub expires_in: u32,
}

/// Why there is no answer yet: something for the client, or for the person.
pub(super) enum Stop {
    Client(RequestError),
    Person(AuthorizeError),
}

impl From<RequestError> for Stop {
    fn from(error: RequestError) -> Self {
        Self::Client(error)
    }
}

impl From<AuthorizeError> for Stop {
    fn from(error: AuthorizeError) -> Self {
        Self::Person(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Person(error.into())
    }
}

impl From<KeyError> for Stop {
    fn from(error: KeyError) -> Self {
        Self::Person(error.into())
    }
}

/// A request, and how it came.
struct Came<'a> {
    request: Request,
    /// What stood for it, if it was kept.
    uri: Option<&'a str>,
    /// When the person was sent to sign in for it, if that has happened.
    sent_at: Option<Timestamp>,
}

impl Came<'_> {
    /// Whether the sign-in is as new as the request wants it. One that was made for it always is: nobody is sent to sign in
    /// twice for one request, however slow they are.
    fn is_fresh(&self, there: &SignedIn, now: Timestamp) -> bool {
        let made_for_it = self.sent_at.is_some_and(|sent_at| there.at > sent_at);
        let Request { prompt, max_age, .. } = &self.request;
        let old = max_age.is_some_and(|age| there.at.plus(Duration::from_secs(age.into())) < now);
        made_for_it || (!prompt.login && !old)
    }
}

impl AuthorizationServer {
    /// Serves the authorization endpoint (RFC 6749 section 3.1). `signed_in` is who sits at the browser.
    ///
    /// A question is bound to the browser session, the person and the request. Nobody is asked for what they agreed to
    /// before, for the same resource; a refresh token is part of that, as `offline_access`. Without `scope`, everything is
    /// asked for that the client may be given, except administration and delegation.
    ///
    /// # Errors
    /// [`AuthorizeError`] if the browser must not be sent anywhere. Errors that the client may learn are
    /// [`Authorization::Answer`].
    pub async fn authorize(
        &self,
        organization: &Organization,
        params: &Params,
        signed_in: Option<&SignedIn>,
        origin: &Origin,
    ) -> Result<Authorization, AuthorizeError> {
        let now = self.now();
        if let Some(token) = params.get(AAUTH_REQUEST) {
            let came = Bringing { token, params, signed_in, origin, now };
            return self.authorize_aauth(organization, came).await;
        }
        let client = self.asking_client(organization, named_client(params)?).await?;
        let came = match params.get("request_uri") {
            Some(uri) => self.kept_request(organization, &client, uri, now).await.map(|kept| Came {
                request: kept.request,
                uri: Some(uri),
                sent_at: kept.sent_at,
            }),
            None => match Address::parse(params, &client) {
                Ok(address) => match Request::parse(params, &client, address.clone()) {
                    Ok(request) => Ok(Came { request, uri: None, sent_at: None }),
                    Err(error) => return Ok(self.refusal(organization, &address, &error)),
                },
                Err(error) => Err(error),
            },
        };
        let came = match came {
            Ok(came) => came,
            Err(AuthorizeError::RedirectUri) => {
                self.record_bad_address(organization, &client, params, origin, now).await?;
                return Err(AuthorizeError::RedirectUri);
            }
            Err(error) => return Err(error),
        };
        match self.answer(organization, &client, &came, signed_in, origin, now).await {
            Ok(answer) => Ok(answer),
            Err(Stop::Client(error)) => Ok(self.refusal(organization, &came.request.address, &error)),
            Err(Stop::Person(error)) => Err(error),
        }
    }

    /// Where the answer to a request leads, as a content security policy names it: `https://client.example`, or the scheme
    /// of a native app. `None` if it leads nowhere.
    ///
    /// For the page to sign in. Browsers hold `form-action` against every redirect that follows a form, and whoever has
    /// agreed before is sent on to the client without seeing another page.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be found out now.
    pub async fn answer_origin(
        &self,
        organization: &Organization,
        params: &Params,
    ) -> Result<Option<String>, StoreError> {
        let found = async {
            if let Some(token) = params.get(AAUTH_REQUEST) {
                let asked = self.asked_by_agent(organization, token, self.now()).await?;
                return Ok(redirect::origin(&asked.body.redirect_uri));
            }
            let client = self.asking_client(organization, named_client(params)?).await?;
            let address = match params.get("request_uri") {
                Some(uri) => self.kept_request(organization, &client, uri, self.now()).await?.request.address,
                None => Address::parse(params, &client)?,
            };
            Ok(redirect::origin(&address.redirect_uri))
        };
        match found.await {
            Ok(origin) => Ok(origin),
            Err(AuthorizeError::Store(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Records that a request of `client` named an address that is not the client's: a mistake, or somebody who wants its
    /// codes. Of the address only the origin is written down, and nothing if the peer has failed too often.
    async fn record_bad_address(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        params: &Params,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let nobody = Actor::new(ActorKind::Unknown, "anonymous");
        let event = Event::new(EventKind::AuthorizationRefused, nobody, "address not registered", now)
            .on(client_target(client))
            .from_origin(origin)
            .failed("redirect_uri");
        let event = match params.get("redirect_uri").and_then(redirect::origin) {
            Some(place) => event.with("redirect_origin", cleaned(&place)),
            None => event,
        };
        self.record_failure(&organization.id, event, now).await.map(drop)
    }

    /// The active client or agent with this client id.
    pub(super) async fn asking_client(
        &self,
        organization: &Organization,
        id: &str,
    ) -> Result<AuthenticatedClient, AuthorizeError> {
        let id = ClientId::parse(id).map_err(|_| AuthorizeError::UnknownClient)?;
        let org = &organization.id;
        let found = if !organization.is_active() {
            None
        } else if id.is_app() {
            let client = self.stores().clients.find(org, ClientKey::ClientId(&id)).await?;
            client.filter(|client| client.active).map(AuthenticatedClient::Client)
        } else {
            let agent = self.stores().agents.find(org, AgentKey::ClientId(&id)).await?;
            agent.filter(|agent| agent.is_active()).map(AuthenticatedClient::Agent)
        };
        found.ok_or(AuthorizeError::UnknownClient)
    }

    pub(super) fn refusal(
        &self,
        organization: &Organization,
        address: &Address,
        error: &RequestError,
    ) -> Authorization {
        let text = error.to_string();
        let params = [("error", error.code()), ("error_description", text.as_str())];
        let redirect_to = address.answer(&self.issuer(&organization.id), &params).into();
        Authorization::Answer(Answer { redirect_to, code: None })
    }

    /// The registered MCP server that a request names; `None` is this server itself.
    pub(super) async fn resource(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        request: &Request,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Option<Arc<McpServer>>, Stop> {
        let issuer = self.issuer(&organization.id);
        let Some(named) = request.resource.as_deref().filter(|named| *named != issuer) else {
            return Ok(None);
        };
        let refusal = Refusal::default();
        let context =
            self.grant_context(organization, &issuer, &RequestClient::NOBODY, origin, &refusal, now);
        match target::resolve(&context, client, named).await {
            Ok(server) => Ok(Some(server)),
            Err(TokenError::Store(error)) => Err(error.into()),
            Err(TokenError::Key(error)) => Err(error.into()),
            Err(_) => Err(RequestError::InvalidTarget.into()),
        }
    }

    async fn answer(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        came: &Came<'_>,
        signed_in: Option<&SignedIn>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Authorization, Stop> {
        let (org, request) = (&organization.id, &came.request);
        let server = self.resource(organization, client, request, origin, now).await?;
        let scope = decide_scope(client, request.scope.as_ref(), server.as_deref())?;
        let scope = if wants_refresh(client, request) { with_offline(&scope) } else { scope };
        let prompt = request.prompt;
        let Some(there) = signed_in.filter(|there| came.is_fresh(there, now)) else {
            if prompt.none {
                return Err(RequestError::LoginRequired.into());
            }
            let anew = prompt.login || signed_in.is_some();
            let request_uri = match came.sent_at {
                None if anew => self.send_to_sign_in(org, request, came.uri, now).await?,
                _ => None,
            };
            return Ok(Authorization::SignIn { request_uri });
        };
        let user = self.stores().users.find(org, UserKey::Id(there.user)).await?;
        let user = user.filter(|user| user.is_active()).ok_or(RequestError::AccessDenied)?;
        let consents = &self.stores().consents;
        let consent = consents.find(org, ConsentKey::Between(user.id, client.client_id())).await?;
        let place = server.as_ref().map(|server| Place::Mcp(server.server_id.clone()));
        let agreed = consent.filter(|consent| {
            let counts = consent.holds_for(registered_at(client)) && consent.covers(place.as_ref(), &scope);
            counts && !must_ask(client, request)
        });
        let sign_in = SignIn { at: there.at, amr: there.amr.clone() };
        if let Some(consent) = agreed {
            let agreed = Agreed { client, user: &user, scope, server: server.as_deref(), sign_in };
            let answer = self.give_code(organization, request, agreed, &consent, now).await?;
            return Ok(Authorization::Answer(answer));
        }
        if prompt.none {
            return Err(RequestError::ConsentRequired.into());
        }
        let about = About::Request {
            request: Box::new(request.clone()),
            resource: server.as_ref().map(|server| server.server_id.clone()),
        };
        let (challenge_id, csrf_token) =
            self.keep_question(org, about, scope.clone(), user.id, there, now).await?;
        let describe_item = |item: &Capability| (item.to_string(), describe(item, server.as_deref()));
        let redirect_uri = request.address.redirect_uri.clone();
        Ok(Authorization::Ask(Box::new(Question {
            challenge_id,
            csrf_token,
            client: client.clone(),
            client_url: None,
            user,
            scopes: scope.as_slice().iter().map(describe_item).collect(),
            resource: server.as_ref().map(|server| server.resource_uri.as_str().to_owned()),
            resource_name: server.as_ref().map(|server| server.name.clone()),
            redirect_origin: redirect::origin(&redirect_uri),
            redirect_uri,
            expires_in: QUESTION_LIFE,
        })))
    }

    /// Keeps a question to the person who is there: its name, and the proof that an answer comes from the page that asks.
    pub(super) async fn keep_question(
        &self,
        org: &OrgId,
        about: About,
        scope: Scope,
        user: UserId,
        there: &SignedIn,
        now: Timestamp,
    ) -> Result<(Secret, Secret), StoreError> {
        let (challenge_id, csrf_token) = (Secret::generate("ach_"), Secret::generate(""));
        let sign_in = SignIn { at: there.at, amr: there.amr.clone() };
        let body =
            QuestionBody { about, scope, user, session: there.session, csrf: csrf_token.hash(), sign_in };
        let expires_at = now.plus(Duration::from_secs(QUESTION_LIFE.into()));
        let ticket = Ticket {
            purpose: TicketPurpose::ConsentChallenge,
            hash: challenge_id.hash(),
            body: write(&body)?,
            expires_at,
            keep_until: expires_at,
            family: None,
        };
        self.stores().grants.put_ticket(org, &ticket).await?;
        Ok((challenge_id, csrf_token))
    }
}

fn named_client(params: &Params) -> Result<&str, AuthorizeError> {
    params.get("client_id").ok_or(AuthorizeError::InvalidRequest("client_id is required."))
}

/// Whether the client gets a refresh token, if the person agrees: it asks for one, or is registered for them.
fn wants_refresh(client: &AuthenticatedClient, request: &Request) -> bool {
    request.offline
        || match client {
            AuthenticatedClient::Agent(_) => false,
            AuthenticatedClient::Client(client) => {
                client.grant_types.iter().any(|name| name == "refresh_token")
            }
        }
}

/// When the client was registered. What people allowed an earlier one of the same id is not for it.
pub(super) fn registered_at(client: &AuthenticatedClient) -> Timestamp {
    match client {
        AuthenticatedClient::Agent(agent) => agent.created_at,
        AuthenticatedClient::Client(client) => client.created_at,
    }
}

/// Whether the person is asked, whatever was agreed to before: because the client wants that, or because anybody on the
/// device could be the client (RFC 8252 section 8.6).
fn must_ask(client: &AuthenticatedClient, request: &Request) -> bool {
    let unproven = match client {
        AuthenticatedClient::Agent(_) => false,
        AuthenticatedClient::Client(client) => {
            !client.confidential && !request.address.redirect_uri.starts_with("https://")
        }
    };
    request.prompt.consent || unproven
}
