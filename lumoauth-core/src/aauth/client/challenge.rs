//! What a resource wants: the `Agent-Auth` of its answer.

use std::convert::Infallible;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor, ParameterVisitor},
};

use super::{AAuthAgent, AGENT_AUTH, ClientError};
use crate::{
    capability::Scope,
    clock::Timestamp,
    id::AAuthIdentifier,
    jwks::Thumbprint,
    secret::Secret,
    token::{InvalidToken, foreign},
};

/// The longest challenge that is read, in bytes: a token of the longest sort, and some more.
const MAX_BYTES: usize = 20 * 1024;

/// A challenge: `Agent-Auth: httpsig; auth-token; resource_token=".."; auth_server=".."`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Challenge {
    /// Whether an auth token is wanted, and not only a signature.
    pub auth_token: bool,
    /// What the resource asks for, to be shown to the authorization server.
    pub resource_token: Option<Secret>,
    /// Where the resource sends agents. It is compared with the server that the agent trusts, and used for nothing else.
    pub auth_server: Option<String>,
}

/// What a resource asks for. It says so itself; whether that is true is for the authorization server to check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Wanted {
    /// The resource token as it came.
    pub resource_token: Secret,
    /// The resource.
    pub resource: AAuthIdentifier,
    /// What the auth token must be good for.
    pub scope: Scope,
}

impl Challenge {
    /// The challenge in an answer; `None` if there is none, or none that can be read. What is not known of it is ignored. Of
    /// several `httpsig` members the first one counts.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let lines: Vec<_> =
            headers.get_all(AGENT_AUTH).iter().map(|line| line.to_str()).collect::<Result<_, _>>().ok()?;
        let text = lines.join(", ");
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut reading = Reading::default();
        let read = Parser::new(&text).parse_list_with_visitor(&mut reading);
        if read.is_err() {
            // Some resources list algorithms as the value of a parameter, which RFC 9651 does not allow.
            reading = Reading::default();
            Parser::new(&without_inner_lists(&text)).parse_list_with_visitor(&mut reading).ok()?;
        }
        reading.found
    }
}

/// `text` with a plain value in place of everything in parentheses outside of quotes.
fn without_inner_lists(text: &str) -> String {
    let (mut quoted, mut depth, mut escaped) = (false, 0_usize, false);
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '(' if !quoted => {
                if depth == 0 {
                    plain.push_str("?1");
                }
                depth += 1;
            }
            ')' if !quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        if depth == 0 {
            plain.push(c);
        }
    }
    plain
}

#[derive(Default)]
struct Reading {
    /// The first `httpsig`.
    found: Option<Challenge>,
}

impl<'h> ListVisitor<'h> for &mut Reading {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self) -> Result<impl EntryVisitor<'h>, Infallible> {
        Ok(self.found.is_none().then_some(Member(self)))
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct Member<'r>(&'r mut Reading);

impl<'h> EntryVisitor<'h> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'h>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'h>, Infallible> {
        Ok(Ignored)
    }
}

impl<'h> ItemVisitor<'h> for Member<'_> {
    type Out = Option<()>;
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'h>,
    ) -> Result<impl ParameterVisitor<'h, Out = Option<()>>, Infallible> {
        let is_it = matches!(item, BareItemFromInput::Token(token) if token.as_str() == "httpsig");
        Ok(is_it.then(|| Parameters(self.0.found.insert(Challenge::default()))))
    }
}

struct Parameters<'r>(&'r mut Challenge);

impl<'h> ParameterVisitor<'h> for Parameters<'_> {
    type Out = ();
    type Error = Infallible;

    fn parameter(&mut self, key: &'h KeyRef, value: BareItemFromInput<'h>) -> Result<(), Infallible> {
        let text = || match &value {
            BareItemFromInput::String(text) => Some(text.as_str().to_owned()),
            _ => None,
        };
        match key.as_str() {
            "auth-token" => self.0.auth_token = matches!(value, BareItemFromInput::Boolean(true)),
            "resource_token" => self.0.resource_token = text().map(Secret::from),
            "auth_server" => self.0.auth_server = text(),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: AAuthIdentifier,
    aud: Value,
    agent: AAuthIdentifier,
    agent_jkt: Thumbprint,
    #[serde(default)]
    scope: Scope,
    exp: u64,
}

impl AAuthAgent {
    /// What a resource token says, if it is about this agent and its key and for the server it trusts.
    pub(super) fn read_resource_token(&self, text: &Secret, now: Timestamp) -> Result<Wanted, ClientError> {
        let read = || {
            let token = foreign::read(text.expose())?;
            if token.typ() != Some("resource+jwt") {
                return Err(InvalidToken::WrongType);
            }
            let claims = Value::Object(token.claims().clone());
            let claims = Claims::deserialize(claims).map_err(|_| InvalidToken::Malformed)?;
            let auth_server = self.auth_server.as_str();
            if claims.aud != *auth_server && claims.aud != json!([auth_server]) {
                return Err(InvalidToken::WrongAudience);
            }
            if claims.agent != self.identifier || claims.agent_jkt != self.confirmation.jkt {
                return Err(InvalidToken::Confirmation);
            }
            if Timestamp::from_unix_seconds(claims.exp) <= now {
                return Err(InvalidToken::Expired);
            }
            Ok(Wanted { resource_token: text.clone(), resource: claims.iss, scope: claims.scope })
        };
        read().map_err(ClientError::ResourceToken)
    }
}
