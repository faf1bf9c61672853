//! An authorization request (RFC 6749 section 4.1.1, OpenID Connect Core section 3.1.2.1), read in two steps: first where
//! the answer goes, then everything else.

use serde::{Deserialize, Serialize};

use super::{AuthorizeError, RequestError, pkce, redirect};
use crate::{capability::Scope, client_auth::AuthenticatedClient, id::ClientId, wire::Params};

/// The longest `state`.
const MAX_STATE: usize = 2048;
/// The longest `nonce`.
const MAX_NONCE: usize = 512;
/// The longest text of a scope; a token can carry a little more.
const MAX_SCOPE: usize = 4096;
/// The longest `resource`.
const MAX_RESOURCE: usize = 512;

/// Where the answer to a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) redirect_uri: String,
    /// Whether the request named it, or the client has only one.
    pub(crate) redirect_named: bool,
    pub(crate) state: Option<String>,
}

impl Address {
    /// The address of a request of `client`.
    ///
    /// # Errors
    /// [`AuthorizeError`] if the answer cannot go anywhere.
    pub(crate) fn parse(params: &Params, client: &AuthenticatedClient) -> Result<Self, AuthorizeError> {
        let state = params.get("state").map(ToOwned::to_owned);
        if state.as_ref().is_some_and(|state| state.len() > MAX_STATE) {
            return Err(AuthorizeError::InvalidRequest("state is too long."));
        }
        let (redirect_uri, redirect_named) = match (params.get("redirect_uri"), client.redirect_uris()) {
            (Some(uri), _) => (uri.to_owned(), true),
            (None, [only]) => (only.clone(), false),
            (None, _) => return Err(AuthorizeError::RedirectUri),
        };
        let address = Self { redirect_uri, redirect_named, state };
        if address.is_of(client) { Ok(address) } else { Err(AuthorizeError::RedirectUri) }
    }

    /// Whether it is still an address of `client`.
    pub(crate) fn is_of(&self, client: &AuthenticatedClient) -> bool {
        redirect::is_usable(&self.redirect_uri)
            && client.redirect_uris().iter().any(|uri| redirect::matches(uri, &self.redirect_uri))
    }

    /// The whole answer (RFC 6749 section 4.1.2, RFC 9207).
    pub(crate) fn answer(&self, issuer: &str, params: &[(&str, &str)]) -> String {
        let mut all = params.to_vec();
        all.extend(self.state.as_deref().map(|state| ("state", state)));
        all.push(("iss", issuer));
        redirect::with_params(&self.redirect_uri, &all)
    }
}

/// A request that can be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) client_id: ClientId,
    pub(crate) address: Address,
    pub(crate) scope: Option<Scope>,
    pub(crate) resource: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) code_challenge: Option<String>,
    pub(crate) offline: bool,
    pub(crate) prompt: Prompt,
    /// How long ago the person may have signed in, in seconds.
    pub(crate) max_age: Option<u32>,
}

/// The `prompt` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prompt {
    /// Nobody may be asked anything.
    pub(crate) none: bool,
    /// The person must sign in anew.
    pub(crate) login: bool,
    /// The person must be asked.
    pub(crate) consent: bool,
}

impl Prompt {
    fn parse(text: &str) -> Result<Self, RequestError> {
        let mut prompt = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word {
                "none" => prompt.none = true,
                "login" => prompt.login = true,
                "consent" => prompt.consent = true,
                _ => return Err(RequestError::InvalidRequest("prompt is none, login or consent.")),
            }
        }
        if prompt.none && (prompt.login || prompt.consent) {
            return Err(RequestError::InvalidRequest("prompt=none goes with nothing else."));
        }
        Ok(prompt)
    }
}

impl Request {
    /// Whether it may want a newer sign-in than there is.
    pub(crate) const fn minds_the_sign_in(&self) -> bool {
        self.prompt.login || self.max_age.is_some()
    }

    /// Reads the rest of a request of `client`.
    ///
    /// # Errors
    /// [`RequestError`] says what is wrong.
    pub(crate) fn parse(
        params: &Params,
        client: &AuthenticatedClient,
        address: Address,
    ) -> Result<Self, RequestError> {
        let invalid = RequestError::InvalidRequest;
        if params.get("request").is_some() {
            return Err(RequestError::RequestNotSupported);
        }
        match params.get("response_type") {
            Some("code") => {}
            Some(_) => return Err(RequestError::UnsupportedResponseType),
            None => return Err(invalid("response_type is required.")),
        }
        if params.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(invalid("Only response_mode=query is supported."));
        }
        let needs_pkce = match client {
            AuthenticatedClient::Agent(_) => false,
            AuthenticatedClient::Client(client) => {
                if !client.grant_types.iter().any(|name| name == "authorization_code") {
                    return Err(RequestError::UnauthorizedClient);
                }
                client.needs_pkce()
            }
        };
        let scope = match params.get("scope") {
            Some(text) if text.len() > MAX_SCOPE => {
                return Err(RequestError::InvalidScope("list, which is too long,".to_owned()));
            }
            Some(text) => {
                let malformed = |_| RequestError::InvalidScope("list, which is malformed,".to_owned());
                Some(text.parse::<Scope>().map_err(malformed)?)
            }
            None => None,
        };
        let mut resources = params.all("resource");
        let resource = match (resources.next(), resources.next()) {
            (Some(one), None) if one.len() <= MAX_RESOURCE => Some(one.to_owned()),
            (None, _) => None,
            // One token, one audience: a token for two servers would let each replay it at the other.
            (Some(_), _) => return Err(RequestError::InvalidTarget),
        };
        let bounded = |name: &str| match params.get(name) {
            Some(text) if text.len() > MAX_NONCE => Err(invalid("nonce is too long.")),
            text => Ok(text.map(ToOwned::to_owned)),
        };
        let offline = match params.get("access_type") {
            Some("offline") => true,
            None | Some("online") => false,
            Some(_) => return Err(invalid("access_type is online or offline.")),
        };
        let max_age = params.get("max_age").map(str::parse).transpose();
        let mut prompt = Prompt::parse(params.get("prompt").unwrap_or_default())?;
        let max_age = max_age.map_err(|_| invalid("max_age is a number of seconds."))?;
        // OpenID Connect Core section 3.1.2.1 gives both the same meaning.
        prompt.login |= max_age == Some(0) && !prompt.none;
        Ok(Self {
            client_id: client.client_id().clone(),
            address,
            scope,
            resource,
            nonce: bounded("nonce")?,
            code_challenge: code_challenge(params, needs_pkce)?,
            offline,
            prompt,
            max_age,
        })
    }
}

fn code_challenge(params: &Params, required: bool) -> Result<Option<String>, RequestError> {
    match (params.get("code_challenge"), params.get("code_challenge_method")) {
        (Some(challenge), Some("S256")) if pkce::is_challenge(challenge) => Ok(Some(challenge.to_owned())),
        (Some(_), Some("S256")) => Err(RequestError::InvalidRequest("code_challenge is malformed.")),
        (Some(_), _) => Err(RequestError::InvalidRequest("code_challenge_method must be S256.")),
        (None, Some(_)) => Err(RequestError::InvalidRequest("code_challenge is required.")),
        (None, None) if required => {
            Err(RequestError::InvalidRequest("code_challenge is required of this client."))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{client::Client, clock::Timestamp};

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn app(confidential: bool) -> AuthenticatedClient {
        let (mut client, _) = Client::new("App", Timestamp::default());
        client.confidential = confidential;
        client.grant_types = vec!["authorization_code".to_owned()];
        client.redirect_uris = vec!["https://app.example/cb".to_owned()];
        AuthenticatedClient::Client(Arc::new(client))
    }

    fn parse(client: &AuthenticatedClient, query: &str) -> Result<Request, &'static str> {
        let params = Params::from_form(query.as_bytes()).unwrap();
        let address = Address::parse(&params, client).map_err(|_| "page")?;
        Request::parse(&params, client, address).map_err(|error| error.code())
    }

    #[test]
    fn every_parameter_has_its_rule() {
        let client = app(true);
        let good = parse(
            &client,
            "response_type=code&scope=a+b&state=s&nonce=n&prompt=consent+login&max_age=5&access_type=offline&\
             response_mode=query&resource=https://mcp.example/&unknown=1",
        )
        .unwrap();
        assert!(good.offline && good.prompt.consent && good.prompt.login && !good.prompt.none);
        assert_eq!((good.max_age, good.nonce.as_deref()), (Some(5), Some("n")));
        assert!(!good.address.redirect_named);
        let long = "a".repeat(MAX_NONCE + 1);
        for (query, code) in [
            ("scope=a".to_owned(), "invalid_request"),
            ("response_type=token".to_owned(), "unsupported_response_type"),
            ("response_type=code+id_token".to_owned(), "unsupported_response_type"),
            ("response_type=code&response_mode=fragment".to_owned(), "invalid_request"),
            ("response_type=code&response_mode=form_post".to_owned(), "invalid_request"),
            ("response_type=code&request=e30".to_owned(), "request_not_supported"),
            ("response_type=code&scope=a%22b".to_owned(), "invalid_scope"),
            (format!("response_type=code&scope={}", "a+".repeat(MAX_SCOPE)), "invalid_scope"),
            ("response_type=code&resource=a:b&resource=c:d".to_owned(), "invalid_target"),
            (format!("response_type=code&nonce={long}"), "invalid_request"),
            ("response_type=code&prompt=none+login".to_owned(), "invalid_request"),
            ("response_type=code&prompt=select_account".to_owned(), "invalid_request"),
            ("response_type=code&max_age=-1".to_owned(), "invalid_request"),
            ("response_type=code&max_age=1e3".to_owned(), "invalid_request"),
            ("response_type=code&access_type=forever".to_owned(), "invalid_request"),
            (format!("response_type=code&code_challenge={CHALLENGE}"), "invalid_request"),
            (
                format!("response_type=code&code_challenge={CHALLENGE}&code_challenge_method=plain"),
                "invalid_request",
            ),
            (
                "response_type=code&code_challenge=abc&code_challenge_method=S256".to_owned(),
                "invalid_request",
            ),
            ("response_type=code&code_challenge_method=S256".to_owned(), "invalid_request"),
            (format!("response_type=code&state={}", "s".repeat(MAX_STATE + 1)), "page"),
            ("response_type=code&redirect_uri=https://evil.example/cb".to_owned(), "page"),
        ] {
            assert_eq!(parse(&client, &query).unwrap_err(), code, "{query}");
        }
    }

    #[test]
    fn a_public_client_must_prove_possession_later() {
        let client = app(false);
        assert_eq!(parse(&client, "response_type=code").unwrap_err(), "invalid_request");
        let query = format!("response_type=code&code_challenge={CHALLENGE}&code_challenge_method=S256");
        assert!(parse(&client, &query).is_ok());
        // So must one that can keep a secret, if it was registered like that.
        let AuthenticatedClient::Client(client) = app(true) else { panic!() };
        let client = Client { requires_pkce: true, ..(*client).clone() };
        let client = AuthenticatedClient::Client(Arc::new(client));
        assert_eq!(parse(&client, "response_type=code").unwrap_err(), "invalid_request");
        assert!(parse(&client, &query).is_ok());
    }

    #[test]
    fn a_client_with_several_addresses_must_name_one() {
        let AuthenticatedClient::Client(client) = app(true) else { panic!() };
        let mut client = (*client).clone();
        client.redirect_uris.push("https://app.example/other".to_owned());
        let client = AuthenticatedClient::Client(Arc::new(client));
        assert_eq!(parse(&client, "response_type=code").unwrap_err(), "page");
        let named = parse(&client, "response_type=code&redirect_uri=https://app.example/other").unwrap();
        assert!(named.address.redirect_named);
    }

    #[test]
    fn an_answer_names_its_issuer_and_repeats_the_state() {
        let address = Address {
            redirect_uri: "https://app.example/cb".to_owned(),
            redirect_named: true,
            state: Some("x y".to_owned()),
        };
        assert_eq!(
            address.answer("https://as.example", &[("code", "c")]),
            "https://app.example/cb?code=c&state=x+y&iss=https%3A%2F%2Fas.example",
        );
    }
}
