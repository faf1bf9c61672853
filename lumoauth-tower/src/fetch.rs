//! Outgoing HTTP that cannot be turned against the network it runs in.
//!
//! Addresses that administrators of organizations register, and those that issuers name in their metadata, are fetched
//! from inside of the host's network. So:
//!
//! 1. `https` only, no user information, no redirects, no proxy, no cookies, no decompression.
//! 2. A name is looked up once, by [`PublicOnly`], and the connection goes to what it found: between the check of an
//!    address and its use there is nothing that could be changed. Addresses that are not public are left out; so are
//!    address literals in the URL.
//! 3. The time limit is for all of it, from the look-up to the last byte; a body is cut off at the limit while it is read.
//! 4. Only a plain 200 is a success.
//!
//! Origins that the host allows by name are exempt from the first half of 1 and from 2. By `https` whoever answers always
//! has a certificate of the name, from an authority that the system trusts.
//!
//! To read keys somewhere is not to write there: JSON is posted to addresses that agents and people chose, with their text in
//! it. So origins are allowed for that by themselves.

mod public_address;

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    net::SocketAddr,
};

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use lumoauth_core::{
    fetch::{Fetch, FetchError, FetchRequest},
    secret::Secret,
};
use reqwest::{
    Client, ClientBuilder, Response,
    dns::{Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

use public_address::is_public;

/// The [`Fetch`] port over the internet: public addresses by `https`, and what the host allows by name. It needs a tokio
/// runtime.
///
/// ```no_run
/// use lumoauth_tower::GuardedFetch;
///
/// // Inside of a cluster, the issuer of its workloads is at a private address.
/// let fetch = GuardedFetch::new()?.allow_origin("https://kubernetes.default.svc")?;
/// # Ok::<_, lumoauth_tower::GuardedFetchError>(())
/// ```
#[derive(Clone)]
pub struct GuardedFetch {
    /// For everybody.
    guarded: Client,
    /// For the allowed origins.
    open: Client,
    allowed: HashSet<String>,
    /// Those that JSON may be posted to.
    posted: HashSet<String>,
    /// Where hosts of allowed origins are that are not looked up.
    addresses: HashMap<String, SocketAddr>,
}

/// There can be no such [`GuardedFetch`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardedFetchError {
    /// TLS cannot be set up.
    #[error("no http client")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// Not an origin: scheme, host and port if it is not the scheme's own, and nothing else.
    #[error("`{0}` is not an origin")]
    Origin(String),
    /// The origin has no name that could lead elsewhere, or a port that the address does not have.
    #[error("`{0}` cannot be at that address")]
    Address(String),
}

impl GuardedFetch {
    /// Reaches public addresses by `https`, and nothing else.
    ///
    /// # Errors
    /// [`GuardedFetchError::Client`] if TLS cannot be set up.
    pub fn new() -> Result<Self, GuardedFetchError> {
        Ok(Self {
            guarded: client(plain_builder().https_only(true).dns_resolver(PublicOnly))?,
            open: client(plain_builder())?,
            allowed: HashSet::new(),
            posted: HashSet::new(),
            addresses: HashMap::new(),
        })
    }

    /// The same, and `origin` may be reached wherever it is, also by plain `http`: for issuers inside of a cluster, and
    /// for tests. It is compared exactly, like `https://kubernetes.default.svc` or `http://127.0.0.1:8080`. JSON is not posted
    /// there: see [`GuardedFetch::allow_posts_to`].
    ///
    /// # Errors
    /// [`GuardedFetchError::Origin`] if it is not an origin.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, GuardedFetchError> {
        self.allowed.insert(checked_origin(origin)?);
        Ok(self)
    }

    /// The same, and JSON may be posted to `origin` wherever it is: callbacks of agents and webhooks of people, whose path and
    /// content others choose.
    ///
    /// # Errors
    /// [`GuardedFetchError::Origin`] if it is not an origin.
    pub fn allow_posts_to(mut self, origin: &str) -> Result<Self, GuardedFetchError> {
        self.posted.insert(checked_origin(origin)?);
        Ok(self)
    }

    /// The same, and its host is at `address`, whatever name servers say: for what has a public name and is reached inside
    /// of the network, like the Security Token Service of AWS through an endpoint in a VPC. Who answers there needs a
    /// certificate of the name all the same. An origin without a port is reached at that of `address`; one with a port must
    /// have the same. A host has one address, the last that was given.
    ///
    /// # Errors
    /// [`GuardedFetchError::Origin`] if it is not an origin, [`GuardedFetchError::Address`] if it cannot be at `address`,
    /// [`GuardedFetchError::Client`] if TLS cannot be set up.
    pub fn allow_origin_at(self, origin: &str, address: SocketAddr) -> Result<Self, GuardedFetchError> {
        let mut fetch = self.allow_origin(origin)?;
        let url = Url::parse(origin).map_err(|_| GuardedFetchError::Origin(origin.to_owned()))?;
        let same_port = url.port().is_none_or(|port| port == address.port());
        let (Some(host), true) = (url.domain(), same_port) else {
            return Err(GuardedFetchError::Address(origin.to_owned()));
        };
        fetch.addresses.insert(host.to_owned(), address);
        let known = fetch.addresses.iter();
        fetch.open = client(known.fold(plain_builder(), |all, (host, at)| all.resolve(host, *at)))?;
        Ok(fetch)
    }

    /// The client that may do what `request` says, if one may.
    fn client_for(&self, request: &FetchRequest) -> Option<&Client> {
        let allowed = if request.json.is_some() { &self.posted } else { &self.allowed };
        self.client_to(&request.url, allowed)
    }

    fn client_to(&self, url: &Url, allowed: &HashSet<String>) -> Option<&Client> {
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        if allowed.contains(&url.origin().ascii_serialization()) {
            return Some(&self.open);
        }
        let public = match url.host()? {
            // Where names lead is decided when they are looked up, but for the one that leads to this machine. Addresses
            // never are.
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                name != "localhost" && !name.ends_with(".localhost")
            }
            Host::Ipv4(address) => is_public(address.into()),
            Host::Ipv6(address) => is_public(address.into()),
        };
        (url.scheme() == "https" && public).then_some(&self.guarded)
    }
}

impl fmt::Debug for GuardedFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GuardedFetch");
        shown.field("allowed", &self.allowed).field("posted", &self.posted).finish_non_exhaustive()
    }
}

#[async_trait]
impl Fetch for GuardedFetch {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        let client = self.client_for(&request).ok_or(FetchError::NotAllowed)?;
        let post = |kind: &'static str, body: &Secret| {
            let post = client.post(request.url.clone()).header(header::CONTENT_TYPE, kind);
            post.body(body.expose().to_owned())
        };
        let sent = match (&request.form, &request.json) {
            (Some(form), _) => post("application/x-www-form-urlencoded", form),
            (None, Some(json)) => post("application/json", json),
            (None, None) => client.get(request.url.clone()),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in request.headers {
            headers.insert(name, value);
        }
        let exchange = exchange(sent.headers(headers), request.max_bytes);
        match tokio::time::timeout(request.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(FetchError::Unreachable(Box::new(elapsed))),
        }
    }

    fn may_post_to(&self, url: &Url) -> bool {
        self.client_to(url, &self.posted).is_some()
    }
}

fn checked_origin(text: &str) -> Result<String, GuardedFetchError> {
    let is_origin = Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    });
    if is_origin { Ok(text.to_owned()) } else { Err(GuardedFetchError::Origin(text.to_owned())) }
}

async fn exchange(request: reqwest::RequestBuilder, max_bytes: usize) -> Result<Vec<u8>, FetchError> {
    let response = request.send().await.map_err(failure)?;
    let status = response.status();
    let unusable = || FetchError::Unusable(status.as_u16());
    // Whoever compresses what was not asked to be compressed wants it to be unpacked.
    if status != StatusCode::OK || response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(unusable());
    }
    read(response, max_bytes).await?.ok_or_else(unusable)
}

/// The body; `None` if it is longer than `max_bytes`.
pub(crate) async fn read(mut response: Response, max_bytes: usize) -> Result<Option<Vec<u8>>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if chunk.len() > max_bytes - body.len() {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn failure(error: reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return FetchError::NotAllowed;
        }
        cause = error.source();
    }
    // Without its address: a query may hold what nobody should read in a log.
    FetchError::Unreachable(Box::new(error.without_url()))
}

fn client(builder: ClientBuilder) -> Result<Client, GuardedFetchError> {
    builder.build().map_err(|error| GuardedFetchError::Client(Box::new(error)))
}

/// What is switched off here is off by default or a feature that nobody here asks for, unless the host's own tree does.
pub(crate) fn plain_builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("lumoauth/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        // A connection that is kept would be used without a look at where its name leads now.
        .pool_max_idle_per_host(0)
}

/// Looks names up with the system's resolver and leaves out what is not public.
#[derive(Clone, Copy, Debug)]
struct PublicOnly;

/// A name that leads to no public address.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this name leads to no public address")]
struct NotPublic;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
