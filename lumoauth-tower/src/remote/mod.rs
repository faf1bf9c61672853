//! Services on other hosts than the authorization server: whose tokens they accept, and where they charge.
//!
//! | what | with | revocation is seen | cost |
//! |---|---|---|---|
//! | [`RemoteTokens::by_keys`] | the server's public keys | at `exp` only | a signature check |
//! | [`RemoteTokens::by_introspection`] | the service's own credential (RFC 7662) | within a second | a round trip a second and token |
//! | [`RemoteBudgets`] | the service's own credential | at each call | a round trip to hold, one to settle |

mod answers;
mod budgets;
mod http_client;
mod tokens;

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{FutureExt, future::WeakShared};
use http::{HeaderValue, StatusCode};
use lumoauth_core::{
    aauth::PublishedIssuer,
    clock::{Clock, SystemClock, Timestamp},
    foreign_keys::ForeignKeys,
    json,
    secret::Secret,
};
use serde::Deserialize;
use url::{Host, Url, form_urlencoded};

pub use budgets::RemoteBudgets;
pub use tokens::RemoteTokens;

pub(crate) use http_client::{Answer, HttpClient, RemoteError};

/// An authorization server on another host. Cheap to clone; make one, so that its connections are shared.
#[derive(Clone)]
pub struct RemoteServer(Arc<Remote>);

struct Remote {
    issuer: String,
    http: Arc<HttpClient>,
    clock: Arc<dyn Clock>,
}

/// There can be no such [`RemoteServer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteServerError {
    /// Not the issuer of an organization: an address with `https`, or with `http` at this machine.
    #[error("`{0}` is not an issuer")]
    Issuer(String),
    /// TLS cannot be set up.
    #[error("no http client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RemoteServer {
    /// The server that issues tokens as `issuer`: `https://auth.example/orgs/acme/api/v1`. All that is sent goes to the origin
    /// of this address.
    ///
    /// # Errors
    /// [`RemoteServerError`] if the address is no issuer, or TLS cannot be set up.
    pub fn new(issuer: &str) -> Result<Self, RemoteServerError> {
        let refused = || RemoteServerError::Issuer(issuer.to_owned());
        let url = Url::parse(issuer).map_err(|_| refused())?;
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        // Tokens and secrets are sent there.
        let safe = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        let plain = url.username().is_empty() && url.password().is_none();
        if !safe || !plain || url.query().is_some() || url.fragment().is_some() || issuer.ends_with('/') {
            return Err(refused());
        }
        let http = Arc::new(HttpClient::new(url.origin())?);
        Ok(Self(Arc::new(Remote { issuer: issuer.to_owned(), http, clock: Arc::new(SystemClock::new()) })))
    }

    /// Reads the time from `clock` instead of the operating system.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let Remote { issuer, http, .. } = &*self.0;
        Self(Arc::new(Remote { issuer: issuer.clone(), http: http.clone(), clock }))
    }

    /// The issuer, as it stands in tokens.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Its auth tokens (AAuth), for a resource that it issues them for: verified by the keys that it publishes, so what is
    /// revoked is accepted until it ends, an hour at most.
    ///
    /// # Errors
    /// [`RemoteServerError::Issuer`] if its name is none that resources have.
    pub fn auth_tokens(&self) -> Result<PublishedIssuer, RemoteServerError> {
        let keys = Arc::new(ForeignKeys::new(self.http().clone()));
        PublishedIssuer::new(self.issuer(), keys)
            .map_err(|_| RemoteServerError::Issuer(self.issuer().to_owned()))
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn http(&self) -> &Arc<HttpClient> {
        &self.0.http
    }

    /// The address of a route below the issuer.
    fn route(&self, path: &str) -> String {
        format!("{}/{path}", self.0.issuer)
    }
}

impl fmt::Debug for RemoteServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteServer").field(&self.0.issuer).finish()
    }
}

/// The service's own credential at a [`RemoteServer`]: the client that the registered MCP server names as its resource client
/// (`resource_client_id`). To charge callers it must be an agent. Cheap to clone; clones share their access token.
#[derive(Clone)]
pub struct ServiceAccount {
    server: RemoteServer,
    basic: HeaderValue,
    own: Arc<Mutex<Own>>,
}

/// The service's own access token.
#[derive(Default)]
struct Own {
    bearer: Option<Bearer>,
    /// The request for one that is under way. Those who wait for it hold it; when all have gone, so has it.
    asking: Option<WeakShared<Asking>>,
}

type Asking = Pin<Box<dyn Future<Output = Result<HeaderValue, RemoteError>> + Send>>;

struct Bearer {
    header: HeaderValue,
    /// From when on it is not used any more.
    until: Timestamp,
}

impl ServiceAccount {
    /// The client `client_id` with its secret.
    pub fn new(server: RemoteServer, client_id: &str, secret: &Secret) -> Self {
        // RFC 6749 section 2.3.1: both are form-encoded first.
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Secret::from(format!("{}:{}", encode(client_id), encode(secret.expose())));
        let basic = sensitive(&format!("Basic {}", STANDARD.encode(pair.expose())));
        Self { server, basic, own: Arc::default() }
    }

    /// The service's own access token, as a header. One request at a time gets a new one; all who need it meanwhile wait for
    /// that request, and fail with it.
    async fn bearer(&self) -> Result<HeaderValue, RemoteError> {
        let asking = {
            let mut own = self.own();
            let now = self.server.now();
            if let Some(bearer) = own.bearer.as_ref().filter(|bearer| now < bearer.until) {
                return Ok(bearer.header.clone());
            }
            own.asking.as_ref().and_then(WeakShared::upgrade).unwrap_or_else(|| {
                let account = self.clone();
                let asking: Asking = Box::pin(async move { account.renew().await });
                let asking = asking.shared();
                own.asking = asking.downgrade();
                asking
            })
        };
        asking.await
    }

    async fn renew(&self) -> Result<HeaderValue, RemoteError> {
        let bearer = self.issued().await;
        let mut own = self.own();
        own.asking = None;
        let bearer = bearer?;
        let header = bearer.header.clone();
        own.bearer = Some(bearer);
        Ok(header)
    }

    async fn issued(&self) -> Result<Bearer, RemoteError> {
        #[derive(Deserialize)]
        struct Issued {
            access_token: Secret,
            expires_in: u64,
        }
        let now = self.server.now();
        let form = Secret::from("grant_type=client_credentials");
        let answer =
            self.server.http().post_form(&self.server.route("oauth/token"), &self.basic, &form).await?;
        if answer.status != StatusCode::OK {
            return Err(RemoteError::Status { what: "token", status: answer.status });
        }
        let issued: Issued = json::parse(&answer.body).map_err(|_| RemoteError::Unusable("token"))?;
        let header = sensitive(&format!("Bearer {}", issued.access_token.expose()));
        // Late enough to be worth it, and early enough to arrive.
        let life = Duration::from_secs(issued.expires_in.saturating_mul(4) / 5);
        Ok(Bearer { header, until: now.plus(life) })
    }

    /// Has the access token forgotten that `header` carries.
    fn forget(&self, header: &HeaderValue) {
        self.own().bearer.take_if(|bearer| bearer.header == *header);
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A header that no log shows. Text that no header can carry proves nothing at the server.
fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"));
    value.set_sensitive(true);
    value
}
