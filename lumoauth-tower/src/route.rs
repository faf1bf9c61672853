//! The route table: every path of the API, who may call it, and which endpoint serves it.
//!
//! Each route of an organization is served below `/orgs/{org}/api/v1` and, as an exact alias, below `/t/{org}/api/v1`.

use std::borrow::Cow;

use crate::endpoint::{self, Handler};
use http::Method;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody; what the endpoint needs, it checks itself (client authentication, a visitor's token).
    Open,
    /// Public metadata, also for browsers of any origin. Credentials are not looked at here: clients send their default
    /// headers along, and an expired token must not keep a resource server from fetching keys.
    Metadata,
    /// An agent or client by token; not an API key.
    Token,
    /// An agent, client or API key.
    Anyone,
    /// An API key with one of these scopes, or an administrator in person, by a token with one of them. No agent.
    Admin(&'static [&'static str]),
}

/// One row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below the organization's prefix; `{}` stands for one segment.
    pub(crate) pattern: &'static str,
    /// The whole path, with `{}` for each segment that a caller chooses.
    pub(crate) template: &'static str,
    pub(crate) access: Access,
    pub(crate) handler: Handler,
}

const AGENTS_READ: Access = Access::Admin(&["admin:agents", "admin:read", "admin:write"]);
const AGENTS_WRITE: Access = Access::Admin(&["admin:agents", "admin:write"]);
const USERS_READ: Access = Access::Admin(&["admin:users", "admin:read", "admin:write"]);
const USERS_WRITE: Access = Access::Admin(&["admin:users", "admin:write"]);
const CLIENTS_READ: Access = Access::Admin(&["admin:clients", "admin:read", "admin:write"]);
const CLIENTS_WRITE: Access = Access::Admin(&["admin:clients", "admin:write"]);
const AUDIT_READ: Access = Access::Admin(&["admin:audit", "admin:read"]);
const ROLES_READ: Access = Access::Admin(&["admin:roles", "admin:read", "admin:write"]);
const ROLES_WRITE: Access = Access::Admin(&["admin:roles", "admin:write"]);
/// Keys are as powerful as their scopes; only a full administrator handles them.
const KEYS: Access = Access::Admin(&["admin"]);

macro_rules! routes {
    ($prefix:literal: $($method:ident $pattern:literal $access:expr => $($handler:ident)::+;)*) => {
        &[$(Route {
            method: Method::$method,
            pattern: $pattern,
            template: concat!($prefix, "/", $pattern),
            access: $access,
            handler: |call| Box::pin(endpoint::$($handler)::+(call)),
        },)*]
    };
}

/// Routes of an organization, below its prefix. The busiest come first: the table is searched in order.
pub(crate) const ORGANIZATION: &[Route] = routes! { "/orgs/{}/api/v1":
    POST "oauth/token" Access::Open => oauth::token;
    POST "oauth/introspect" Access::Open => oauth::introspect;
    POST "oauth/revoke" Access::Open => oauth::revoke;
    POST "oauth/par" Access::Open => authorize::push;
    GET "oauth/authorize" Access::Open => authorize::authorize;
    POST "oauth/authorize" Access::Open => authorize::authorize;
    GET "oauth/userinfo" Access::Token => me::userinfo;
    POST "oauth/userinfo" Access::Token => me::userinfo;
    POST "agents/ask" Access::Token => me::ask;
    GET "me/consents" Access::Token => authorize::own_consents;
    DELETE "me/consents/{}" Access::Token => authorize::withdraw_own;
    GET "agents/me" Access::Token => me::identity;
    GET "agents/me/usage" Access::Token => me::usage;
    POST "agents/me/usage" Access::Token => me::report_usage;
    GET "agents/me/budget" Access::Token => budget::budget;
    POST "agents/me/budget/reservations" Access::Token => budget::reserve;
    GET "agents/me/budget/reservations/{}" Access::Token => budget::reservation;
    POST "agents/me/budget/reservations/{}/settle" Access::Token => budget::settle;
    POST "agents/me/budget/reservations/{}/release" Access::Token => budget::release;
    GET "agents/me/approvals/{}/status" Access::Token => approvals::status;
    POST "agents/me/approvals" Access::Token => approvals::request;
    GET "approvals/pending" Access::Token => approvals::pending;
    POST "approvals/{}/approve" Access::Token => approvals::approve;
    POST "approvals/{}/deny" Access::Token => approvals::deny;
    POST "jit/task" Access::Token => jit::open;
    POST "jit/task/{}/complete" Access::Token => jit::complete;
    POST "jit/task/{}/evaluate" Access::Token => jit::evaluate;
    POST "jit/request" Access::Token => jit::request;
    GET "jit/request/{}/status" Access::Token => jit::status;
    POST "jit/request/{}/token" Access::Token => jit::token;
    GET "jit/pending" Access::Token => jit::pending;
    POST "jit/approve/{}" Access::Token => jit::approve;
    POST "jit/deny/{}" Access::Token => jit::deny;
    POST "agents/register" Access::Anyone => me::register;
    POST "agents/{}/attest" Access::Open => attest::attest;

    POST "aauth/agent/token" Access::Open => aauth::token;
    GET "aauth/agent/auth" Access::Open => aauth::auth;
    POST "aauth/consent" Access::Token => aauth::decide;
    POST "aauth/agent/issue" Access::Open => aauth::issue;
    POST "aauth/agent/platform-token" Access::Open => aauth::platform_token;
    POST "aauth/resource/token" Access::Open => aauth::resource_token;
    POST "aauth/resource/token/verify" Access::Open => aauth::verify_resource_token;
    POST "aauth/auth/token/verify" Access::Open => aauth::verify_auth_token;
    POST "aauth/token/revoke" Access::Open => aauth::revoke;
    GET "aauth/jwks.json" Access::Metadata => aauth::metadata::jwks;
    GET "aauth/agents/{}/metadata" Access::Metadata => aauth::metadata::agent;
    GET "aauth/agents/{}/jwks.json" Access::Metadata => aauth::metadata::agent_jwks;
    GET "aauth/resources/{}/metadata" Access::Metadata => aauth::metadata::resource;
    GET "aauth/resources/{}/jwks.json" Access::Metadata => aauth::metadata::resource_jwks;

    POST "authz/check" Access::Anyone => authz::check;
    POST "authz/check-bulk" Access::Anyone => authz::check_bulk;
    POST "authz/check-any" Access::Anyone => authz::check_any;
    POST "authz/check-all" Access::Anyone => authz::check_all;
    GET "authz/permissions" Access::Anyone => authz::permissions;
    POST "authz/v1/evaluation" Access::Anyone => authz::evaluation;
    POST "authz/v1/evaluations" Access::Anyone => authz::evaluations;
    POST "authz/zanzibar/check" Access::Anyone => zanzibar::check;
    POST "authz/zanzibar/expand" Access::Anyone => zanzibar::expand;
    POST "authz/zanzibar/objects" Access::Anyone => zanzibar::objects;
    POST "zanzibar/check" Access::Anyone => zanzibar::check;
    POST "zanzibar/expand" Access::Anyone => zanzibar::expand;
    POST "zanzibar/objects" Access::Anyone => zanzibar::objects;
    POST "abac/check" Access::Token => abac::check;
    POST "abac/check-bulk" Access::Token => abac::check_bulk;
    GET "abac/my-attributes" Access::Token => abac::own;
    GET "abac/attribute-definitions" Access::Token => abac::definitions;
    GET "abac/resources/{}/{}/attributes" Access::Token => abac::of_resource;
    PUT "abac/resources/{}/{}/attributes/{}" Access::Token => abac::set_of_resource;
    PUT "abac/users/{}/attributes/{}" Access::Token => abac::set_of_user;
    PUT "abac/agents/{}/attributes/{}" Access::Token => abac::set_of_agent;
    POST "agents/me/mcp/authorize" Access::Token => me::authorize_mcp;

    GET "abac/policies" ROLES_READ => abac::policies;
    POST "abac/policies" ROLES_WRITE => abac::create_policy;
    GET "abac/policies/{}" ROLES_READ => abac::policy;
    PUT "abac/policies/{}" ROLES_WRITE => abac::update_policy;
    PATCH "abac/policies/{}" ROLES_WRITE => abac::update_policy;
    DELETE "abac/policies/{}" ROLES_WRITE => abac::delete_policy;
    POST "abac/policies/{}/toggle" ROLES_WRITE => abac::toggle_policy;
    GET "abac/attributes" ROLES_READ => abac::attributes;
    POST "abac/attributes" ROLES_WRITE => abac::create_attribute;
    GET "abac/attributes/{}" ROLES_READ => abac::attribute;
    PUT "abac/attributes/{}" ROLES_WRITE => abac::update_attribute;
    PATCH "abac/attributes/{}" ROLES_WRITE => abac::update_attribute;
    DELETE "abac/attributes/{}" ROLES_WRITE => abac::delete_attribute;
    GET "zanzibar/tuples" ROLES_READ => zanzibar::tuples;
    POST "zanzibar/tuples" ROLES_WRITE => zanzibar::write;
    DELETE "zanzibar/tuples" ROLES_WRITE => zanzibar::remove;
    GET "zanzibar/namespaces" ROLES_READ => zanzibar::namespaces;
    PUT "zanzibar/namespaces/{}" ROLES_WRITE => zanzibar::define;
    DELETE "zanzibar/namespaces/{}" ROLES_WRITE => zanzibar::undefine;
    GET "admin/roles" ROLES_READ => roles::list;
    POST "admin/roles" ROLES_WRITE => roles::create;
    GET "admin/roles/{}" ROLES_READ => roles::read;
    PUT "admin/roles/{}" ROLES_WRITE => roles::update;
    PATCH "admin/roles/{}" ROLES_WRITE => roles::update;
    DELETE "admin/roles/{}" ROLES_WRITE => roles::delete;
    GET "admin/roles/{}/permissions" ROLES_READ => roles::permissions_of;
    PUT "admin/roles/{}/permissions" ROLES_WRITE => roles::set_permissions;
    POST "admin/roles/{}/permissions" ROLES_WRITE => roles::add_permissions;
    DELETE "admin/roles/{}/permissions/{}" ROLES_WRITE => roles::remove_permission;
    GET "admin/roles/{}/users" ROLES_READ => roles::users;
    POST "admin/roles/{}/users" ROLES_WRITE => roles::add_users;
    DELETE "admin/roles/{}/users/{}" ROLES_WRITE => roles::remove_user;
    GET "admin/roles/{}/groups" ROLES_READ => roles::groups;
    POST "admin/roles/{}/groups" ROLES_WRITE => roles::add_groups;
    DELETE "admin/roles/{}/groups/{}" ROLES_WRITE => roles::remove_group;
    GET "admin/permissions" ROLES_READ => roles::permissions;
    POST "admin/permissions" ROLES_WRITE => roles::create_permission;
    GET "admin/permissions/{}" ROLES_READ => roles::permission;
    PUT "admin/permissions/{}" ROLES_WRITE => roles::update_permission;
    PATCH "admin/permissions/{}" ROLES_WRITE => roles::update_permission;
    DELETE "admin/permissions/{}" ROLES_WRITE => roles::delete_permission;
    GET "admin/agents/{}/roles" ROLES_READ => roles::of_agent;
    POST "admin/agents/{}/roles" ROLES_WRITE => roles::add_to_agent;
    PUT "admin/agents/{}/roles" ROLES_WRITE => roles::set_of_agent;
    DELETE "admin/agents/{}/roles" ROLES_WRITE => roles::remove_several_from_agent;
    DELETE "admin/agents/{}/roles/{}" ROLES_WRITE => roles::remove_from_agent;
    GET "admin/agents/{}/permissions" ROLES_READ => roles::agent_permissions;
    POST "admin/agents/{}/permissions" ROLES_WRITE => roles::add_agent_permissions;
    DELETE "admin/agents/{}/permissions/{}" ROLES_WRITE => roles::remove_agent_permission;
    GET "admin/users/{}/roles" ROLES_READ => roles::of_user;
    POST "admin/users/{}/roles" ROLES_WRITE => roles::add_to_user;
    PUT "admin/users/{}/roles" ROLES_WRITE => roles::set_of_user;
    DELETE "admin/users/{}/roles/{}" ROLES_WRITE => roles::remove_from_user;
    GET "admin/users/{}/permissions" ROLES_READ => roles::user_permissions;
    POST "admin/users/{}/permissions" ROLES_WRITE => roles::add_user_permissions;
    DELETE "admin/users/{}/permissions/{}" ROLES_WRITE => roles::remove_user_permission;

    GET ".well-known/jwks.json" Access::Metadata => metadata::jwks;
    GET ".well-known/audit-jwks.json" Access::Metadata => audit_tree::jwks;
    GET ".well-known/oauth-authorization-server" Access::Metadata => metadata::authorization_server;
    GET ".well-known/openid-configuration" Access::Metadata => metadata::openid_configuration;
    GET ".well-known/oauth-protected-resource" Access::Metadata => mcp::protected_resources;
    GET ".well-known/oauth-protected-resource/mcp/{}" Access::Metadata => mcp::protected_resource;

    GET ".well-known/aauth-issuer" Access::Metadata => aauth::metadata::issuer;
    GET ".well-known/aauth-agent" Access::Metadata => aauth::metadata::agents;
    GET ".well-known/aauth-resource" Access::Metadata => aauth::metadata::resources;

    GET "mcp/servers" Access::Anyone => mcp::visible;
    GET "mcp/servers/{}" Access::Anyone => mcp::visible_one;
    GET "mcp/{}/challenge" Access::Open => mcp::challenge;
    POST "mcp/{}/challenge" Access::Open => mcp::challenge;

    GET "admin/agents" AGENTS_READ => agents::list;
    POST "admin/agents" AGENTS_WRITE => agents::create;
    GET "admin/agents/{}" AGENTS_READ => agents::read;
    PUT "admin/agents/{}" AGENTS_WRITE => agents::update;
    PATCH "admin/agents/{}" AGENTS_WRITE => agents::update;
    DELETE "admin/agents/{}" AGENTS_WRITE => agents::delete;
    POST "admin/agents/{}/activate" AGENTS_WRITE => agents::activate;
    POST "admin/agents/{}/deactivate" AGENTS_WRITE => agents::deactivate;
    POST "admin/agents/{}/enable" AGENTS_WRITE => agents::enable;
    POST "admin/agents/{}/disable" AGENTS_WRITE => agents::disable;
    POST "admin/agents/{}/revoke" AGENTS_WRITE => agents::revoke;
    POST "admin/agents/{}/rotate-credentials" AGENTS_WRITE => agents::rotate_credentials;
    POST "admin/agents/{}/rotate-key" AGENTS_WRITE => agents::rotate_key;
    POST "admin/agents/{}/revoke-key" AGENTS_WRITE => agents::revoke_key;
    GET "admin/agents/{}/scopes" AGENTS_READ => agents::scopes;
    PUT "admin/agents/{}/scopes" AGENTS_WRITE => agents::set_scopes;
    POST "admin/agents/{}/token" AGENTS_WRITE => agents::test_token;
    GET "admin/agents/{}/budget" AGENTS_READ => agents::budget;
    PUT "admin/agents/{}/budget" AGENTS_WRITE => agents::set_budget;
    POST "admin/agents/{}/budget/reset" AGENTS_WRITE => agents::reset_budget;
    GET "admin/agents/{}/usage" AGENTS_READ => agents::usage;
    POST "admin/agents/{}/usage" AGENTS_WRITE => agents::report_usage;

    GET "admin/jit/risk" AGENTS_READ => jit::risk;
    PUT "admin/jit/risk" AGENTS_WRITE => jit::set_risk;

    GET "admin/mcp/servers" AGENTS_READ => mcp::list;
    POST "admin/mcp/servers" AGENTS_WRITE => mcp::create;
    GET "admin/mcp/servers/{}" AGENTS_READ => mcp::read;
    PUT "admin/mcp/servers/{}" AGENTS_WRITE => mcp::update;
    PATCH "admin/mcp/servers/{}" AGENTS_WRITE => mcp::update;
    DELETE "admin/mcp/servers/{}" AGENTS_WRITE => mcp::delete;

    GET "admin/aauth/agents" AGENTS_READ => aauth::registry::agents;
    POST "admin/aauth/agents" AGENTS_WRITE => aauth::registry::create_agent;
    GET "admin/aauth/agents/{}" AGENTS_READ => aauth::registry::agent;
    PUT "admin/aauth/agents/{}" AGENTS_WRITE => aauth::registry::update_agent;
    PATCH "admin/aauth/agents/{}" AGENTS_WRITE => aauth::registry::update_agent;
    DELETE "admin/aauth/agents/{}" AGENTS_WRITE => aauth::registry::delete_agent;
    GET "admin/aauth/resources" AGENTS_READ => aauth::registry::resources;
    POST "admin/aauth/resources" AGENTS_WRITE => aauth::registry::create_resource;
    GET "admin/aauth/resources/{}" AGENTS_READ => aauth::registry::resource;
    PUT "admin/aauth/resources/{}" AGENTS_WRITE => aauth::registry::update_resource;
    PATCH "admin/aauth/resources/{}" AGENTS_WRITE => aauth::registry::update_resource;
    DELETE "admin/aauth/resources/{}" AGENTS_WRITE => aauth::registry::delete_resource;

    GET "admin/audit-logs" AUDIT_READ => audit::list;
    GET "admin/audit-logs/actions" AUDIT_READ => audit::actions;
    GET "admin/audit-logs/stats" AUDIT_READ => audit::stats;
    GET "admin/audit-logs/export" AUDIT_READ => audit::export;
    POST "admin/audit-logs/export" AUDIT_READ => audit::export;
    GET "admin/audit-logs/tree/head" AUDIT_READ => audit_tree::head;
    GET "admin/audit-logs/tree/checkpoints" AUDIT_READ => audit_tree::checkpoints;
    GET "admin/audit-logs/tree/inclusion" AUDIT_READ => audit_tree::inclusion;
    GET "admin/audit-logs/tree/consistency" AUDIT_READ => audit_tree::consistency;
    GET "admin/audit-logs/tree/export" AUDIT_READ => audit_tree::export;
    GET "admin/audit-logs/{}" AUDIT_READ => audit::read;
    GET "audit-logs" AUDIT_READ => audit::list;
    GET "audit-logs/actions" AUDIT_READ => audit::actions;
    GET "audit-logs/stats" AUDIT_READ => audit::stats;
    GET "audit-logs/export" AUDIT_READ => audit::export;
    POST "audit-logs/export" AUDIT_READ => audit::export;
    GET "audit-logs/tree/head" AUDIT_READ => audit_tree::head;
    GET "audit-logs/tree/checkpoints" AUDIT_READ => audit_tree::checkpoints;
    GET "audit-logs/tree/inclusion" AUDIT_READ => audit_tree::inclusion;
    GET "audit-logs/tree/consistency" AUDIT_READ => audit_tree::consistency;
    GET "audit-logs/tree/export" AUDIT_READ => audit_tree::export;
    GET "audit-logs/{}" AUDIT_READ => audit::read;

    GET "admin/users" USERS_READ => directory::users;
    POST "admin/users" USERS_WRITE => directory::create_user;
    GET "admin/users/{}" USERS_READ => directory::user;
    PATCH "admin/users/{}" USERS_WRITE => directory::update_user;
    GET "admin/users/{}/consents" USERS_READ => authorize::consents_of;
    DELETE "admin/users/{}/consents/{}" USERS_WRITE => authorize::withdraw_for;
    POST "admin/users/{}/block" USERS_WRITE => directory::block_user;
    POST "admin/users/{}/unblock" USERS_WRITE => directory::unblock_user;
    GET "admin/clients" CLIENTS_READ => directory::clients;
    POST "admin/clients" CLIENTS_WRITE => directory::create_client;
    GET "admin/clients/{}" CLIENTS_READ => directory::client;
    POST "admin/clients/{}/rotate-secret" CLIENTS_WRITE => directory::rotate_client_secret;
    GET "admin/api-keys" KEYS => directory::api_keys;
    POST "admin/api-keys" KEYS => directory::create_api_key;
    DELETE "admin/api-keys/{}" KEYS => directory::revoke_api_key;
};

/// Routes below `/api/v1` without an organization: the credential names it.
pub(crate) const ORGLESS: &[Route] = routes! { "/api/v1":
    POST "authz/check" Access::Anyone => authz::check;
    POST "authz/check-bulk" Access::Anyone => authz::check_bulk;
    POST "authz/check-any" Access::Anyone => authz::check_any;
    POST "authz/check-all" Access::Anyone => authz::check_all;
    GET "authz/permissions" Access::Anyone => authz::permissions;
    POST "authz/v1/evaluation" Access::Anyone => authz::evaluation;
    POST "authz/v1/evaluations" Access::Anyone => authz::evaluations;
    POST "authz/zanzibar/check" Access::Anyone => zanzibar::check;
    POST "authz/zanzibar/expand" Access::Anyone => zanzibar::expand;
    POST "authz/zanzibar/objects" Access::Anyone => zanzibar::objects;
    POST "zanzibar/check" Access::Anyone => zanzibar::check;
    POST "abac/check" Access::Token => abac::check;
};

/// What a table says of a path.
pub(crate) enum Found {
    /// This row, with the values of its `{}` segments.
    Route(&'static Route, Vec<String>),
    /// The path exists, for these methods only.
    OtherMethods(Vec<&'static Method>),
    /// There is nothing there.
    Nothing,
}

/// Looks a path up in a table.
pub(crate) fn find(table: &'static [Route], method: &Method, rest: &[Cow<'_, str>]) -> Found {
    let mut others = Vec::new();
    for route in table {
        if let Some(params) = captures(route.pattern, rest) {
            if route.method == *method {
                return Found::Route(route, params);
            }
            others.push(&route.method);
        }
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

fn captures(pattern: &str, rest: &[Cow<'_, str>]) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let mut parts = pattern.split('/');
    for segment in rest {
        match parts.next()? {
            "{}" if segment.is_empty() => return None,
            "{}" => params.push(segment.clone().into_owned()),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::locate;

    #[test]
    fn an_encoded_slash_stays_inside_its_segment() {
        let location = locate("/orgs/acme/api/v1/admin/agents/a%2Factivate").unwrap();
        assert!(matches!(
            find(ORGANIZATION, &Method::GET, &location.rest),
            Found::Route(route, params) if route.pattern == "admin/agents/{}" && params == ["a/activate"]
        ));
    }

    #[test]
    fn fixed_segments_win_over_variable_ones() {
        let location = locate("/orgs/acme/api/v1/admin/audit-logs/stats").unwrap();
        let Found::Route(route, params) = find(ORGANIZATION, &Method::GET, &location.rest) else { panic!() };
        assert_eq!((route.pattern, params.len()), ("admin/audit-logs/stats", 0));
    }

    #[test]
    fn every_administrative_path_needs_an_administrator() {
        for route in ORGANIZATION.iter().filter(|route| route.pattern.contains("admin/")) {
            assert!(matches!(route.access, Access::Admin(scopes) if !scopes.is_empty()), "{}", route.pattern);
        }
    }
}
