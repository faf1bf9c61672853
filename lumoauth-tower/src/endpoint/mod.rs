//! The endpoints: each parses a request, calls the core, and renders the result.

pub(crate) mod aauth;
pub(crate) mod abac;
pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod attest;
pub(crate) mod audit;
pub(crate) mod audit_tree;
pub(crate) mod authorize;
pub(crate) mod authz;
pub(crate) mod budget;
pub(crate) mod directory;
pub(crate) mod jit;
pub(crate) mod mcp;
pub(crate) mod me;
pub(crate) mod metadata;
pub(crate) mod oauth;
pub(crate) mod roles;
pub(crate) mod zanzibar;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, header, request::Parts};
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, ActorKind, Origin},
    client_auth,
    id::OrgId,
    organization::Organization,
    people::UserAuthenticator,
    principal::Principal,
    secret::SecretHash,
    server::{ApiError, AuthorizationServer, Caller, RequestFacts},
    store::Page,
    token::DpopRequest,
    wire::{IfMatch, InvalidParams, Params, WireError, view},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    authenticate::dpop,
    body,
    path::locate,
    rate_limit::RateLimits,
    reply::{Reply, log_outage},
};

/// What serves a route.
pub(crate) type Handler = fn(Call) -> BoxFuture<'static, Result<Reply, WireError>>;

/// A request on its way through an endpoint.
pub(crate) struct Call {
    pub(crate) server: AuthorizationServer,
    /// Who recognises people, if anybody does.
    pub(crate) people: Option<Arc<dyn UserAuthenticator>>,
    /// For what only an endpoint can count.
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) organization: Arc<Organization>,
    /// Who calls; always there on routes that authenticate.
    pub(crate) principal: Option<Principal>,
    /// The variable segments of the path.
    pub(crate) params: Vec<String>,
    pub(crate) origin: Origin,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
}

impl Call {
    fn org(&self) -> &OrgId {
        &self.organization.id
    }

    /// The first variable segment of the path.
    fn name(&self) -> &str {
        self.params.first().map(String::as_str).unwrap_or_default()
    }

    /// The second one.
    fn second(&self) -> &str {
        self.params.get(1).map(String::as_str).unwrap_or_default()
    }

    /// The third one.
    fn third(&self) -> &str {
        self.params.get(2).map(String::as_str).unwrap_or_default()
    }

    /// The request as the server saw it.
    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: self.parts.method.as_str(), path: self.parts.uri.path() }
    }

    fn principal(&self) -> Result<&Principal, WireError> {
        self.principal.as_ref().ok_or_else(WireError::invalid_token)
    }

    /// The calling agent.
    fn agent(&self) -> Result<&Arc<Agent>, WireError> {
        self.principal()?.agent().ok_or_else(|| WireError::forbidden("This route is for agents."))
    }

    /// Who calls, for what changes no version of a record: whoever names one is told that nobody looks at it.
    fn caller(&self) -> Result<Caller, WireError> {
        if self.parts.headers.contains_key(header::IF_MATCH) {
            return Err(WireError::invalid_request("If-Match is not heeded here: no version is known."));
        }
        Ok(self.any_caller())
    }

    fn any_caller(&self) -> Caller {
        let unknown = || Actor::new(ActorKind::Unknown, "anonymous");
        let actor = self.principal.as_ref().map_or_else(unknown, Principal::actor);
        Caller::new(actor, self.origin.clone())
    }

    /// The same, who may only replace the versions of `If-Match`. Several headers are one (RFC 9110 section 5.3).
    fn editor(&self) -> Result<Caller, WireError> {
        let values: Vec<_> =
            self.parts.headers.get_all(header::IF_MATCH).iter().map(HeaderValue::as_bytes).collect();
        if values.is_empty() {
            return Ok(self.any_caller());
        }
        let versions = IfMatch::parse(&values.join(&b", "[..]));
        let versions = versions.map_err(|error| WireError::invalid_request(format!("{error}.")))?;
        Ok(self.any_caller().only_over(Some(versions)))
    }

    /// What DPoP proofs are about.
    fn dpop(&self) -> DpopRequest<'_> {
        dpop(&self.parts)
    }

    /// The path prefix as the caller wrote it: links in answers use the same form.
    fn prefix(&self) -> &str {
        locate(self.parts.uri.path()).map_or("", |location| location.prefix)
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        body::parse_json(&self.parts.headers, &self.body)
    }

    fn form(&self) -> Result<Params, InvalidParams> {
        body::parse_params(&self.parts.headers, &self.body)
    }

    /// The client id that the request claims, for counting; nothing is proven by it.
    pub(crate) fn claimed_client(&self) -> String {
        let Ok(params) = self.form() else { return String::new() };
        match client_auth::presented(self.parts.headers.get(header::AUTHORIZATION), &params) {
            Ok(Some(presented)) => presented.client_id,
            // A request without client authentication is counted by what it presents instead.
            Ok(None) => ["subject_token", "assertion", "attestation_token"]
                .iter()
                .find_map(|name| params.get(name))
                .map(digest)
                .unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    fn query(&self) -> Query {
        let text = self.parts.uri.query().unwrap_or_default();
        Query(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The same with the members of a JSON object in the body, if there is one: who posts a search may write it there. The
    /// query comes first.
    fn posted_query(&self) -> Result<Query, WireError> {
        let mut query = self.query();
        if self.body.is_empty() {
            return Ok(query);
        }
        for (name, value) in self.json::<Map<String, Value>>()? {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(WireError::invalid_request(format!("`{name}` must be a plain value.")));
                }
            };
            query.0.entry(name).or_insert(text);
        }
        Ok(query)
    }
}

/// A short name for a token that must not be written down, or for what is too long to count under.
fn digest(token: &str) -> String {
    SecretHash::of(token).as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The query of a list.
struct Query(HashMap<String, String>);

impl Query {
    const DEFAULT_LIMIT: u32 = 25;
    const MAX_LIMIT: u32 = 100;
    /// Characters of a value that are looked at; longer than any id, and short enough to search for.
    const MAX_VALUE: usize = 256;

    /// The first of these parameters that is there and not empty, cut to what is looked at.
    fn get(&self, names: &[&str]) -> Option<&str> {
        self.whole(names)
            .map(|value| value.char_indices().nth(Self::MAX_VALUE).map_or(value, |(end, _)| &value[..end]))
    }

    /// The same as it was written: half of a name is another name.
    fn whole(&self, names: &[&str]) -> Option<&str> {
        let mut values = names.iter().filter_map(|name| self.0.get(*name));
        values.find(|value| !value.is_empty()).map(String::as_str)
    }

    /// Page and limit, from 1; the limit is cut to 100.
    fn page(&self) -> Result<Paging, WireError> {
        let number = |name: &str, default: u32| match self.get(&[name]) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| *n >= 1)
                .ok_or_else(|| WireError::invalid_request(format!("{name} must be a number from 1."))),
        };
        let page = number("page", 1)?;
        let limit = number("limit", Self::DEFAULT_LIMIT)?.min(Self::MAX_LIMIT);
        Ok(Paging { page, limit })
    }
}

/// Which page of a list.
#[derive(Clone, Copy)]
struct Paging {
    page: u32,
    limit: u32,
}

impl Paging {
    fn store_page(self) -> Page {
        Page { offset: u64::from(self.page - 1) * u64::from(self.limit), limit: self.limit }
    }

    fn render(self, resource_type: &str, items: Vec<Value>, total: u64) -> Value {
        view::list(resource_type, items, total, u64::from(self.page), self.limit)
    }

    /// The same of a list that is all there.
    fn whole(self, resource_type: &str, items: Vec<Value>) -> Value {
        let total = items.len() as u64;
        self.render(resource_type, self.slice(items).collect(), total)
    }

    /// The page of a list that is all there.
    fn slice<T>(self, items: Vec<T>) -> impl Iterator<Item = T> {
        let page = self.store_page();
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        items.into_iter().skip(skip).take(self.limit as usize)
    }
}

/// The error of the core as the client sees it; what is our fault is logged with its cause.
fn refuse(error: ApiError) -> WireError {
    log_outage(&error, error.is_outage(), error.to_wire())
}
