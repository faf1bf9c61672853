//! What the log says about exchanges.

use serde_json::json;

use super::setting::{Cast, refused};
use crate::audit::{EventKind, EventOutcome, Origin};

#[tokio::test]
async fn a_delegation_is_an_action_with_its_chain() {
    let cast = Cast::new().await;
    let token = cast.nested("read:a").await;
    let event = &cast.on.events().await[0];
    assert_eq!((event.kind, event.outcome), (EventKind::AgentAction, EventOutcome::Success));
    assert_eq!(
        (&event.context["action"], &event.context["scope"]),
        (&json!("token.exchange"), &json!("read:a"))
    );
    let chain = json!({ "subject": cast.alice.id.to_string(), "actor_chain": ["agent:bot", "agent:tool"] });
    assert_eq!(event.context["principal"], chain);
    assert_eq!(&*event.actor.id, cast.tool.id.to_string());
    assert_eq!(&*event.target.as_ref().unwrap().id, cast.alice.id.to_string());

    let server = cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    cast.on.exchanged(&token, None, &[("audience", "urn:mcp:a")]).await;
    let events = cast.on.events().await;
    let kinds: Vec<_> = events.iter().take(2).map(|event| event.kind).collect();
    assert!(
        kinds.contains(&EventKind::McpConnection) && kinds.contains(&EventKind::AgentAction),
        "{kinds:?}"
    );
    let connection = events.iter().find(|event| event.kind == EventKind::McpConnection).unwrap();
    assert_eq!(connection.context["principal"], chain);
    assert_eq!(&*connection.target.as_ref().unwrap().id, server.server_id.as_str());
}

#[tokio::test]
async fn an_agents_own_token_for_a_resource_is_a_connection() {
    let cast = Cast::new().await;
    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    cast.on.exchanged(&cast.on.own(&cast.bot).await, None, &[("audience", "urn:mcp:a")]).await;
    let event = &cast.on.events().await[0];
    assert_eq!((event.kind, event.context.get("principal")), (EventKind::McpConnection, None));
}

#[tokio::test]
async fn a_refusal_says_who_wanted_to_act_for_whom() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices("read:a").await, cast.on.own(&cast.bot).await);
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 403, "consent_required");
    let event = &cast.on.events().await[0];
    assert_eq!((event.kind, event.outcome), (EventKind::AgentAction, EventOutcome::Failure));
    assert_eq!(event.reason.as_deref(), Some("consent_required"));
    assert_eq!(&*event.actor.id, cast.bot.id.to_string());
    let chain = json!({ "subject": cast.alice.id.to_string(), "actor_chain": ["agent:bot"] });
    assert_eq!((&event.context["principal"], &event.context["action"]), (&chain, &json!("token.exchange")));
    for token in [&subject, &actor] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!serde_json::to_string(event).unwrap().contains(signature));
    }
}

#[tokio::test]
async fn what_a_chain_does_is_logged_with_the_chain() {
    let cast = Cast::new().await;
    let token = cast.delegated("read:a").await;
    let credential = crate::server::Credential::Bearer(&token);
    let server = &cast.on.server;
    let principal = server
        .authenticate(&cast.on.organization, credential, crate::server::Door::Own, &Origin::default())
        .await
        .unwrap();
    let caller = crate::server::Caller::new(principal.actor(), Default::default());
    let permission = ["read:a".to_owned()];
    let (request, facts) =
        (crate::server::CheckRequest::default(), crate::server::RequestFacts { method: "POST", path: "/" });
    server.check(&cast.on.organization, &principal, &permission, &request, facts, &caller).await.unwrap();
    let event = &cast.on.events().await[0];
    assert_eq!(event.context["principal"]["actor_chain"], json!(["agent:bot"]));
}
