//! What the audit log says about exchanges.

use serde_json::{Value, json};

use super::{
    bounds::{Exchange, Holder},
    presented::Request,
};
use crate::{
    audit::{Actor, Event, EventKind, Target},
    grant::{GrantContext, Resource, target},
    id::McpServerId,
    mcp::{McpServer, ResourceUri},
    principal::{Represented, agent_actor, client_actor},
    wire::Params,
};

/// What a refusal says before anything is known about the tokens.
pub(super) fn begun(context: &GrantContext<'_>, params: &Params) {
    let named = named_target(params);
    context.refusal.set(|event| {
        event.auth_method = Some("token_exchange".into());
        if named.is_some() {
            event.kind = EventKind::McpConnection;
            event.target = named;
        } else {
            event.kind = EventKind::AgentAction;
            event.context.insert("action".to_owned(), ACTION.into());
        }
    });
}

/// What a refusal says once the tokens have told who is there.
pub(super) fn parties(context: &GrantContext<'_>, request: &Request<'_>) {
    let subject = &request.subject.principal;
    let newcomer = request.actor.as_ref().map(|actor| &actor.agent);
    let actor = newcomer.map_or_else(|| subject.actor(), |agent| agent_actor(agent));
    let chain = subject.delegation.iter().flat_map(|delegation| &delegation.actors);
    let chain: Vec<_> = chain.chain(newcomer).map(|agent| agent.subject()).collect();
    let principal =
        (!chain.is_empty()).then(|| json!({ "subject": request.subject.claims.sub, "actor_chain": chain }));
    context.refusal.set(move |event| {
        event.actor = actor;
        if let Some(principal) = principal {
            event.context.insert("principal".to_owned(), principal);
        }
    });
}

/// The facts of an exchange that takes place.
pub(super) fn events(context: &GrantContext<'_>, exchange: &Exchange) -> Vec<Event> {
    let (actor, kind, target, principal) = match &exchange.holder {
        Holder::Itself(client) => (client_actor(client), EventKind::AgentAction, None, None),
        Holder::User { user, client, .. } => {
            let target = Target::new("user", user.id.to_string());
            let principal = json!({ "subject": user.id.to_string(), "actor_chain": [] });
            (client_actor(client), EventKind::TokenIssued, Some(target), Some(principal))
        }
        Holder::Chain(delegation) => {
            let target = match &delegation.represented {
                Represented::User(user) => Target::new("user", user.id.to_string()),
                Represented::Agent(agent) => {
                    Target::new("agent", agent.id.to_string()).named(agent.name.clone())
                }
            };
            let current = delegation.actors.last();
            let actor = current.map_or_else(Actor::system, |agent| agent_actor(agent));
            (actor, EventKind::AgentAction, Some(target), Some(delegation.described()))
        }
    };
    let event = |kind, message: &'static str, principal: Option<Value>| {
        let event = Event::new(kind, actor.clone(), message, context.now)
            .by_method("token_exchange")
            .from_origin(context.origin)
            .with("scope", exchange.scope.to_string());
        match principal {
            Some(principal) => event.with("principal", principal),
            None => event,
        }
    };
    let connection = |server: &McpServer| {
        let target = Target::new("mcp_server", server.server_id.as_str()).named(&*server.name);
        event(EventKind::McpConnection, "token for an MCP server", principal.clone()).on(target)
    };
    let exchanged = || {
        let event = event(kind, "token exchanged", principal.clone()).with("action", ACTION);
        match target.clone() {
            Some(target) => event.on(target),
            None => event,
        }
    };
    match (&exchange.resource, &exchange.holder) {
        (Resource::Own, _) => vec![exchanged()],
        (Resource::Mcp(server), Holder::Itself(_) | Holder::User { .. }) => vec![connection(server)],
        (Resource::Mcp(server), Holder::Chain(_)) => vec![exchanged(), connection(server)],
    }
}

/// What the request names, for the log, if it is a resource at all: anything else may be a token in the wrong place.
fn named_target(params: &Params) -> Option<Target> {
    let named = target::requested(params).ok().flatten()?;
    let known_form = ResourceUri::parse(named).is_ok() || McpServerId::parse(named).is_ok();
    known_form.then(|| Target::new("mcp_server", named))
}

const ACTION: &str = "token.exchange";
