//! What a client may be given by a person.
//!
//! 1. An agent may be given what lies within its own capabilities, an ordinary client what lies within its registered
//!    scopes; both also the scopes of OpenID Connect.
//! 2. An agent is never given what only people decide: administration, approvals, policy, questions about others. So no
//!    agent can approve itself with a token that a person gave it.
//! 3. For an MCP server, only its vocabulary.
//! 4. A request without `scope` asks for everything that the client may be given, except administration and delegation,
//!    which must be asked for by name.

use super::RequestError;
use crate::{
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    mcp::McpServer,
};

/// The scopes of OpenID Connect (Core section 5.4 and 11) that every client may ask a person for.
pub const IDENTITY_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What no agent is given by a person, beside everything that begins with `admin`.
const FOR_PEOPLE_ONLY: [&str; 4] = ["jit:approve", "approvals.manage", "abac:write", "authz:check"];

/// Whether it is one of [`IDENTITY_SCOPES`]. These are always meant literally: no wildcard reaches them.
pub(crate) fn is_identity_scope(item: &Capability) -> bool {
    IDENTITY_SCOPES.contains(&item.as_str())
}

/// Whether holding `item` would be enough for something that only people decide.
fn is_for_people_only(item: &Capability) -> bool {
    item.as_str().starts_with("admin")
        || FOR_PEOPLE_ONLY.iter().any(|name| Capability::parse(name).is_ok_and(|name| item.covers(&name)))
}

fn is_kept_from(client: &AuthenticatedClient, item: &Capability) -> bool {
    matches!(client, AuthenticatedClient::Agent(_)) && is_for_people_only(item)
}

fn split(scope: &Scope) -> (Scope, Scope) {
    let (identity, rest): (Vec<_>, Vec<_>) = scope.as_slice().iter().cloned().partition(is_identity_scope);
    (Scope::new(identity), Scope::new(rest))
}

fn join(rest: Scope, identity: &Scope) -> Scope {
    Scope::new(rest.as_slice().iter().chain(identity.as_slice()).cloned())
}

/// The scope that a person is asked for.
///
/// # Errors
/// [`RequestError::InvalidScope`] with the first item that the client may not be given.
pub(crate) fn decide(
    client: &AuthenticatedClient,
    requested: Option<&Scope>,
    server: Option<&McpServer>,
) -> Result<Scope, RequestError> {
    let refused = |item: &Capability| RequestError::InvalidScope(item.to_string());
    let bounds = vocabulary(server);
    let Some(requested) = requested else {
        let all = client.narrow(None, &bounds).map_err(|item| refused(&item))?;
        let named_only = |item: &&Capability| {
            is_kept_from(client, item)
                || is_identity_scope(item)
                || ["admin", "delegate:"].iter().any(|family| item.as_str().starts_with(family))
        };
        return Ok(Scope::new(all.as_slice().iter().filter(|item| !named_only(item)).cloned()));
    };
    let (identity, rest) = split(requested);
    if let Some(item) = rest.as_slice().iter().find(|item| is_kept_from(client, item)) {
        return Err(refused(item));
    }
    let rest = client.narrow(Some(&rest), &bounds).map_err(|item| refused(&item))?;
    Ok(join(rest, &identity))
}

/// What of `scope` the client may still have: what it lost since it was given is gone.
pub(crate) fn still_allowed(
    client: &AuthenticatedClient,
    server: Option<&McpServer>,
    scope: &Scope,
) -> Scope {
    let (identity, rest) = split(scope);
    let mut bounds = vocabulary(server);
    bounds.push(rest.as_slice());
    let kept = client.narrow(None, &bounds).unwrap_or_default();
    let kept = kept.as_slice().iter().filter(|item| !is_identity_scope(item) && !is_kept_from(client, item));
    join(Scope::new(kept.cloned()), &identity)
}

/// `granted`, or the part of it that is `requested`.
///
/// # Errors
/// The first requested item that was not granted.
pub(crate) fn narrowed(granted: Scope, requested: Option<&Scope>) -> Result<Scope, Capability> {
    let Some(requested) = requested else { return Ok(granted) };
    let covered = |item: &&Capability| {
        granted
            .as_slice()
            .iter()
            .any(|grant| grant == *item || (!is_identity_scope(item) && grant.covers(item)))
    };
    match requested.as_slice().iter().find(|item| !covered(item)) {
        Some(item) => Err(item.clone()),
        None => Ok(requested.clone()),
    }
}

fn vocabulary(server: Option<&McpServer>) -> Vec<&[Capability]> {
    server
        .map(|server| server.scopes_supported.as_slice())
        .filter(|list| !list.is_empty())
        .into_iter()
        .collect()
}

/// What an item means, in words for people.
pub(crate) fn describe(item: &Capability, server: Option<&McpServer>) -> String {
    if let Some(text) = server.and_then(|server| server.scope_descriptions.get(item.as_str())) {
        return text.clone();
    }
    let text = item.as_str();
    match text {
        "openid" => return "Know who you are".to_owned(),
        "profile" => return "See your name".to_owned(),
        "email" => return "See your e-mail address".to_owned(),
        "offline_access" => return "Keep its access while you are away".to_owned(),
        "consents" => return "See and take back what you allow others".to_owned(),
        "*" => return "Everything that you may do".to_owned(),
        _ => {}
    }
    if let Some(stem) = text.strip_suffix('*') {
        return format!("Everything that begins with {stem}");
    }
    let words = |rest: &str| rest.replace(['_', ':', '.', '/'], " ");
    match text.split_once([':', '.']) {
        Some(("read", rest)) => format!("Read {}", words(rest)),
        Some(("write", rest)) => format!("Change {}", words(rest)),
        Some(("tool", rest)) => format!("Use the tool {}", words(rest)),
        Some(("mcp", rest)) => format!("Use the service {}", words(rest)),
        Some(("delegate", _)) => "Let other agents act for you".to_owned(),
        _ if text.starts_with("admin") => format!("Administer the organization ({text})"),
        _ => format!("Use {text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{agent::Agent, client::Client, clock::Timestamp, id::Slug};

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    fn agent(capabilities: &str) -> AuthenticatedClient {
        let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), Timestamp::default());
        agent.capabilities = scope(capabilities).as_slice().to_vec();
        AuthenticatedClient::Agent(Arc::new(agent))
    }

    fn app(scopes: &str) -> AuthenticatedClient {
        let (mut client, _) = Client::new("App", Timestamp::default());
        client.allowed_scopes = scope(scopes).as_slice().to_vec();
        AuthenticatedClient::Client(Arc::new(client))
    }

    fn asked(client: &AuthenticatedClient, text: &str) -> Result<String, &'static str> {
        decide(client, Some(&scope(text)), None).map(|scope| scope.to_string()).map_err(|error| error.code())
    }

    #[test]
    fn a_client_is_given_no_more_than_it_may_ask_for() {
        let bot = agent("read:* tool:search");
        assert_eq!(asked(&bot, "openid read:a offline_access").unwrap(), "read:a openid offline_access");
        assert_eq!(asked(&bot, "write:a"), Err("invalid_scope"));
        assert_eq!(asked(&app("read:a"), "read:a email").unwrap(), "read:a email");
        assert_eq!(asked(&app("read:a"), "read:b"), Err("invalid_scope"));
    }

    #[test]
    fn no_agent_is_given_what_only_people_decide() {
        let held = "* admin admin:agents admin:* authz:check authz:* jit:approve jit:* approvals.manage approvals.* \
                    abac:write abac:*";
        let bot = agent(held);
        for item in scope(held).as_slice() {
            assert_eq!(asked(&bot, item.as_str()), Err("invalid_scope"), "{item}");
            assert!(still_allowed(&bot, None, &scope(item.as_str())).is_empty(), "{item}");
        }
        assert!(decide(&bot, None, None).unwrap().is_empty());
        assert_eq!(asked(&bot, "abac:read read:a").unwrap(), "abac:read read:a");
        assert_eq!(asked(&app("admin jit:approve"), "admin jit:approve").unwrap(), "admin jit:approve");
    }

    #[test]
    fn a_request_without_scope_asks_for_what_may_be_given_but_not_for_power() {
        let all = |client: &_| decide(client, None, None).unwrap().to_string();
        assert_eq!(all(&agent("read:a delegate:user tool:x")), "read:a tool:x");
        assert_eq!(all(&app("read:a admin openid")), "read:a");
    }

    #[test]
    fn what_a_client_lost_is_gone_and_identity_stays() {
        let bot = agent("read:a");
        assert_eq!(still_allowed(&bot, None, &scope("read:a read:b openid")).to_string(), "read:a openid");
        assert_eq!(still_allowed(&agent("*"), None, &scope("read:a")).to_string(), "read:a");
    }

    #[test]
    fn a_grant_only_narrows_and_no_wildcard_reaches_identity() {
        let narrow =
            |granted, wanted| narrowed(scope(granted), Some(&scope(wanted))).map(|it| it.to_string());
        assert_eq!(narrow("read:* openid", "read:a").unwrap(), "read:a");
        assert_eq!(narrow("read:a", "read:a read:b").unwrap_err().as_str(), "read:b");
        assert_eq!(narrow("*", "openid").unwrap_err().as_str(), "openid");
    }

    #[test]
    fn people_read_sentences() {
        let words = |text| describe(&Capability::parse(text).unwrap(), None);
        assert_eq!(words("read:financial_reports"), "Read financial reports");
        assert_eq!(words("read:*"), "Everything that begins with read:");
        assert_eq!(words("document.edit"), "Use document.edit");
    }
}
