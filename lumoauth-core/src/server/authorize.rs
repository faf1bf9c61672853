//! The authorization endpoint: who asks, who is there, what was agreed to before, and else the question.

use std::{sync::Arc, time::Duration};

use super::{AuthorizationServer, TokenRequest, token::RequestClient};
use crate::{
    audit::Origin,
    authorize::{
        Address, AuthorizeError, Authorized, CodeBody, PushedBody, QuestionBody, Request, RequestError,
        decide_scope, describe, read, redirect, write,
    },
    capability::{Capability, Scope},
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    consent::Consent,
    grant::{Refusal, SignIn, TokenError, target},
    id::{ClientId, OrgId, TokenId},
    keys::KeyError,
    mcp::McpServer,
    organization::Organization,
    people::SignedIn,
    secret::{Secret, SecretHash},
    store::{AgentKey, ClientKey, ConsentKey, StoreError, Ticket, TicketPurpose, UserKey},
    token::{ConsentEpoch, family_handle},
    user::User,
    wire::Params,
};

/// How long a code works.
const CODE_LIFE: Duration = Duration::from_secs(300);
/// How long the second use of a code is recognised: longer than anything that came of its first use lives by itself.
const CODE_MEMORY: Duration = Duration::from_secs(31 * 86_400);
/// How long a question waits for its answer, in seconds.
const QUESTION_LIFE: u32 = 600;
/// How long a pushed request can be used, in seconds: long enough to sign in in between.
const PUSHED_LIFE: u32 = 600;
/// What a person agrees to when a client gets a refresh token (OpenID Connect Core section 11).
const OFFLINE: &str = "offline_access";
/// What the URIs of pushed requests begin with (RFC 9126 section 2.2).
const REQUEST_URI: &str = "urn:ietf:params:oauth:request_uri:";

/// What the browser gets.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "transports must render every answer")]
pub enum Authorization {
    /// It goes back to the client.
    Answer(Answer),
    /// The person must sign in, and come back with the same request; or with this `request_uri` in its place.
    SignIn {
        /// Stands for the request, if it asked for a new sign-in: only one after this instant counts.
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

/// A pushed request (RFC 9126 section 2.2).
#[derive(Debug, serde::Serialize)]
#[non_exhaustive]
pub struct PushedAuthorization {
    /// Stands for the request at the authorization endpoint.
    pub request_uri: String,
    /// For how long, in seconds.
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
        let named =
            params.get("client_id").ok_or(AuthorizeError::InvalidRequest("client_id is required."))?;
        let client = self.asking_client(organization, named).await?;
        let (request, asked_at) = match params.get("request_uri") {
            Some(uri) => {
                let pushed = self.pushed(organization, &client, uri, now).await?;
                (pushed.request, Some(pushed.at))
            }
            None => {
                let address = Address::parse(params, &client)?;
                match Request::parse(params, &client, address.clone()) {
                    Ok(request) => (request, None),
                    Err(error) => return Ok(self.refusal(organization, &address, &error)),
                }
            }
        };
        match self.answer(organization, &client, &request, asked_at, signed_in, origin, now).await {
            Ok(answer) => Ok(answer),
            Err(Stop::Client(error)) => Ok(self.refusal(organization, &request.address, &error)),
            Err(Stop::Person(error)) => Err(error),
        }
    }

    /// Takes a request before the browser comes with it (RFC 9126). The client authenticates as at the token endpoint; a
    /// public one names itself.
    ///
    /// # Errors
    /// [`TokenError`] if the client does not authenticate, or the request would be refused at the authorization endpoint.
    pub async fn push_authorization(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<PushedAuthorization, TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        match self.push(organization, request, &refusal, now).await {
            Ok(pushed) => Ok(pushed),
            Err(error) => {
                let message = "pushed authorization request refused";
                Err(self.refuse(organization, request.origin, message, refusal, error, now).await)
            }
        }
    }

    async fn push(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<PushedAuthorization, TokenError> {
        let authenticated = self.authenticate_client(organization, request, refusal, now).await?;
        let client = authenticated.either().ok_or(TokenError::InvalidClient(Method::Body))?;
        if !organization.is_active() {
            return Err(TokenError::InvalidClient(Method::Body));
        }
        if request.params.get("request_uri").is_some() {
            return Err(TokenError::InvalidRequest("request_uri cannot be pushed."));
        }
        let address = Address::parse(request.params, &client).map_err(|error| match error {
            AuthorizeError::InvalidRequest(text) => TokenError::InvalidRequest(text),
            _ => TokenError::InvalidRequest("redirect_uri is missing, malformed or not registered."),
        })?;
        let parsed = Request::parse(request.params, &client, address)?;
        let server = match self.resource(organization, &client, &parsed, request.origin, now).await {
            Ok(server) => server,
            Err(Stop::Client(error)) => return Err(error.into()),
            Err(Stop::Person(AuthorizeError::Store(error))) => return Err(error.into()),
            Err(Stop::Person(AuthorizeError::Key(error))) => return Err(error.into()),
            Err(Stop::Person(_)) => return Err(TokenError::InvalidTarget),
        };
        decide_scope(&client, parsed.scope.as_ref(), server.as_deref())?;
        let request_uri = self.keep_request(&organization.id, parsed, now).await?;
        Ok(PushedAuthorization { request_uri, expires_in: PUSHED_LIFE })
    }

    async fn keep_request(
        &self,
        org: &OrgId,
        request: Request,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let handle = Secret::generate("");
        let expires_at = now.plus(Duration::from_secs(PUSHED_LIFE.into()));
        let ticket = Ticket {
            purpose: TicketPurpose::PushedRequest,
            hash: handle.hash(),
            body: write(&PushedBody { request, at: now })?,
            expires_at,
            keep_until: expires_at,
            family: None,
        };
        self.stores().grants.put_ticket(org, &ticket).await?;
        Ok(format!("{REQUEST_URI}{}", handle.expose()))
    }

    async fn pushed(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        uri: &str,
        now: Timestamp,
    ) -> Result<PushedBody, AuthorizeError> {
        let handle = uri.strip_prefix(REQUEST_URI).filter(|it| it.len() <= 64);
        let hash = SecretHash::of(handle.ok_or(AuthorizeError::RequestUri)?);
        let grants = &self.stores().grants;
        let found = grants.find_ticket(&organization.id, TicketPurpose::PushedRequest, &hash, now).await?;
        let pushed: PushedBody = read(&found.ok_or(AuthorizeError::RequestUri)?.ticket.body)?;
        if pushed.request.client_id != *client.client_id() {
            return Err(AuthorizeError::RequestUri);
        }
        if pushed.request.address.is_of(client) { Ok(pushed) } else { Err(AuthorizeError::RedirectUri) }
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

    #[expect(clippy::too_many_arguments, reason = "what an answer depends on")]
    async fn answer(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        request: &Request,
        asked_at: Option<Timestamp>,
        signed_in: Option<&SignedIn>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Authorization, Stop> {
        let org = &organization.id;
        let server = self.resource(organization, client, request, origin, now).await?;
        let scope = decide_scope(client, request.scope.as_ref(), server.as_deref())?;
        let scope = if wants_refresh(client, request) { with_offline(&scope) } else { scope };
        let prompt = request.prompt;
        let Some(there) = signed_in.filter(|there| is_fresh(there, request, asked_at, now)) else {
            if prompt.none {
                return Err(RequestError::LoginRequired.into());
            }
            // A new sign-in only counts if it comes after the request, so the request must be kept.
            let request_uri = match (prompt.login, asked_at) {
                (true, None) => Some(self.keep_request(org, request.clone(), now).await?),
                _ => None,
            };
            return Ok(Authorization::SignIn { request_uri });
        };
        let user = self.stores().users.find(org, UserKey::Id(there.user)).await?;
        let user = user.filter(|user| user.is_active()).ok_or(RequestError::AccessDenied)?;
        let consents = &self.stores().consents;
        let consent = consents.find(org, ConsentKey::Between(user.id, client.client_id())).await?;
        let resource = server.as_ref().map(|server| &server.server_id);
        let agreed = consent.filter(|consent| {
            let counts = consent.holds_for(registered_at(client)) && consent.covers(resource, &scope);
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
        let (challenge_id, csrf_token) = (Secret::generate("ach_"), Secret::generate(""));
        let body = QuestionBody {
            request: request.clone(),
            scope: scope.clone(),
            resource: server.as_ref().map(|server| server.server_id.clone()),
            user: user.id,
            session: there.session,
            csrf: csrf_token.hash(),
            sign_in,
        };
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
        let describe_item = |item: &Capability| (item.to_string(), describe(item, server.as_deref()));
        let redirect_uri = request.address.redirect_uri.clone();
        Ok(Authorization::Ask(Box::new(Question {
            challenge_id,
            csrf_token,
            client: client.clone(),
            user,
            scopes: scope.as_slice().iter().map(describe_item).collect(),
            resource: server.as_ref().map(|server| server.resource_uri.as_str().to_owned()),
            resource_name: server.as_ref().map(|server| server.name.clone()),
            redirect_origin: redirect::origin(&redirect_uri),
            redirect_uri,
            expires_in: QUESTION_LIFE,
        })))
    }

    /// Makes a code. It grants nothing by itself, so nothing is recorded.
    pub(super) async fn give_code(
        &self,
        organization: &Organization,
        request: &Request,
        agreed: Agreed<'_>,
        consent: &Consent,
        now: Timestamp,
    ) -> Result<Answer, StoreError> {
        let org = &organization.id;
        let Agreed { client, user, scope, server, sign_in } = agreed;
        // Without that in what was agreed to, no refresh token. A token lists it if it was asked for by that name.
        let offline = scope.as_slice().iter().any(is_offline);
        let by_name = request.scope.as_ref().is_some_and(|asked| asked.as_slice().iter().any(is_offline));
        let scope = if by_name { scope } else { without_offline(&scope) };
        let body = CodeBody {
            redirect_uri: request.address.redirect_uri.clone(),
            redirect_named: request.address.redirect_named,
            code_challenge: request.code_challenge.clone(),
            nonce: request.nonce.clone(),
            offline,
            authorized: Authorized {
                client_id: client.client_id().clone(),
                agent: client.agent_id(),
                user: user.id,
                scope,
                resource: server.map(|server| server.server_id.clone()),
                sign_in,
                consent: ConsentEpoch { id: consent.id, epoch: consent.epoch },
                epochs: [organization.epoch, user.epoch, client.epoch()],
            },
        };
        let code = Secret::generate("ac_");
        let ticket = Ticket {
            purpose: TicketPurpose::AuthorizationCode,
            hash: code.hash(),
            body: write(&body)?,
            expires_at: now.plus(CODE_LIFE),
            keep_until: now.plus(CODE_MEMORY),
            family: Some(family_handle(org, &TokenId::generate().to_string())),
        };
        self.stores().grants.put_ticket(org, &ticket).await?;
        let redirect_to = request.address.answer(&self.issuer(org), &[("code", code.expose())]).into();
        Ok(Answer { redirect_to, code: Some(code) })
    }
}

/// Who agreed to what.
pub(super) struct Agreed<'a> {
    pub(super) client: &'a AuthenticatedClient,
    pub(super) user: &'a User,
    pub(super) scope: Scope,
    pub(super) server: Option<&'a McpServer>,
    pub(super) sign_in: SignIn,
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

fn is_offline(item: &Capability) -> bool {
    item.as_str() == OFFLINE
}

fn with_offline(scope: &Scope) -> Scope {
    Scope::new(scope.as_slice().iter().cloned().chain(Capability::parse(OFFLINE)))
}

fn without_offline(scope: &Scope) -> Scope {
    Scope::new(scope.as_slice().iter().filter(|item| !is_offline(item)).cloned())
}

/// When the client was registered. What people allowed an earlier one of the same id is not for it.
pub(super) fn registered_at(client: &AuthenticatedClient) -> Timestamp {
    match client {
        AuthenticatedClient::Agent(agent) => agent.created_at,
        AuthenticatedClient::Client(client) => client.created_at,
    }
}

/// Whether the sign-in is as new as the request wants it.
fn is_fresh(there: &SignedIn, request: &Request, asked_at: Option<Timestamp>, now: Timestamp) -> bool {
    let new = !request.prompt.login || asked_at.is_some_and(|asked_at| there.at > asked_at);
    let old = |age: u32| there.at.plus(Duration::from_secs(age.into())) < now;
    // `max_age=0` wants a new sign-in, which `prompt` stands for.
    new && !request.max_age.filter(|age| *age > 0 || request.prompt.none).is_some_and(old)
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
