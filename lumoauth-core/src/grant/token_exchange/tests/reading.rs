//! What chains look like to those who ask about them, and what they can do.

use serde_json::{Value, json};

use super::setting::{Cast, caps, refused, scope};
use crate::{
    audit::Origin,
    capability::Capability,
    principal::{Identity, Principal},
    server::{AskRequest, Caller, CheckRequest, Credential, Door, RequestFacts, SubjectRef, TokenRequest},
    wire::Params,
};

impl Cast {
    async fn principal(&self, token: &str) -> Principal {
        let credential = Credential::Bearer(token);
        self.on
            .server
            .authenticate(&self.on.organization, credential, Door::Own, &Origin::default())
            .await
            .unwrap()
    }

    async fn ask(&self, principal: &Principal, action: &str) -> bool {
        let request = AskRequest { action: Some(action.to_owned()), ..AskRequest::default() };
        let facts = RequestFacts { method: "POST", path: "/" };
        let caller = Caller::new(principal.actor(), Origin::default());
        let organization = &self.on.organization;
        self.on.server.ask(organization, principal, &request, facts, &caller).await.unwrap().allowed
    }
}

#[tokio::test]
async fn introspection_shows_the_chain_to_those_it_concerns() {
    let cast = Cast::new().await;
    let token = cast.nested("read:a").await;
    let seen = cast.on.introspect(&token).await;
    let claims = cast.on.claims(&token).await;
    assert_eq!(seen["act"], json!(claims.act));
    assert_eq!(
        (&seen["sub"], &seen["username"], &seen["delegation_depth"]),
        (&json!(cast.alice.id.to_string()), &json!("alice@acme.test"), &json!(2))
    );
    assert_eq!(
        (&seen["agent_id"], &seen["client_id"], &seen["identity_type"]),
        (&json!(cast.tool.id.to_string()), &json!(cast.tool.client_id), &json!("agent"))
    );
    assert!(seen.get("lin").is_none());
    for (client, active) in [
        (cast.tool.client_id.as_str(), true),
        (cast.bot.client_id.as_str(), true),
        (cast.app.client_id().as_str(), false),
    ] {
        let answer = json!(cast.on.introspect_as(client, &token).await);
        assert_eq!(answer["active"], active, "{client}");
        assert!(active || answer == json!({ "active": false }));
    }
    let own = cast.on.introspect(&cast.on.own(&cast.tool).await).await;
    assert!(own.get("act").is_none() && own.get("username").is_none());
    let hers = cast.on.introspect(&cast.alices("openid read:a").await).await;
    assert_eq!((&hers["username"], &hers["scope"]), (&json!("alice@acme.test"), &json!("read:a openid")));
}

#[tokio::test]
async fn a_resource_reads_the_chain_of_what_is_bound_to_it() {
    let cast = Cast::new().await;
    let resource = cast.on.client("").await;
    let registered = Some(resource.client_id.clone());
    cast.on.mcp_server("urn:mcp:a", |server| server.resource_client_id = registered).await;
    let token = cast.on.exchanged(&cast.nested("read:a").await, None, &[("audience", "urn:mcp:a")]).await;
    let seen = json!(cast.on.introspect_as(resource.client_id.as_str(), &token).await);
    assert_eq!(
        (&seen["active"], &seen["aud"], &seen["delegation_depth"]),
        (&json!(true), &json!("urn:mcp:a"), &json!(2))
    );
}

#[tokio::test]
async fn what_any_agent_of_a_chain_loses_the_whole_chain_loses() {
    let cast = Cast::new().await;
    let token = cast.nested("read:a tool:x").await;
    let principal = cast.principal(&token).await;
    assert!(cast.ask(&principal, "read:a").await && cast.ask(&principal, "tool:x").await);
    assert!(!cast.ask(&principal, "read:b").await, "the tool may not");
    cast.on.change_agent(&cast.bot, |bot| bot.capabilities = caps("read:a read:b delegate:user")).await;
    let principal = cast.principal(&token).await;
    assert!(cast.ask(&principal, "read:a").await && !cast.ask(&principal, "tool:x").await);
    assert_eq!(cast.on.introspect(&token).await["scope"], "read:a");
    let me = cast.on.server.identity(&cast.on.organization, &principal, "").await.unwrap();
    assert_eq!(
        (&me["capabilities"], &me["scopes"]),
        (&json!(["read:a"]), &json!(scope("read:a tool:x").as_slice()))
    );
    assert_eq!(
        (&me["agent_id"], &me["delegated_by"]),
        (&json!(cast.tool.id.to_string()), &json!(cast.alice.id.to_string()))
    );
}

#[tokio::test]
async fn a_spent_budget_of_an_earlier_agent_shows_and_holds() {
    let cast = Cast::new().await;
    let token = cast.nested("read:a").await;
    assert!(cast.on.introspect(&token).await.get("budget_exceeded").is_none());
    let policy = r#"{"max_api_calls_per_hour":1,"allowed_models":["small"]}"#;
    cast.on.change_agent(&cast.bot, |bot| bot.budget = serde_json::from_str(policy).unwrap()).await;
    assert_eq!(cast.on.introspect(&token).await["budget_exceeded"], true);
    let principal = cast.principal(&token).await;
    let request = AskRequest { action: Some("read:a".to_owned()), ..AskRequest::default() };
    let facts = RequestFacts { method: "POST", path: "/" };
    let caller = Caller::new(principal.actor(), Origin::default());
    let organization = &cast.on.organization;
    let error = cast.on.server.ask(organization, &principal, &request, facts, &caller).await;
    assert_eq!(error.unwrap_err().to_wire().error, "budget_exceeded");
}

#[tokio::test]
async fn userinfo_is_about_the_person_as_far_as_the_scope_goes() {
    let cast = Cast::new().await;
    let info = async |token: &str| -> Value {
        let principal = cast.principal(token).await;
        cast.on.server.userinfo(&cast.on.organization, &principal).await.unwrap()
    };
    let seen = info(&cast.nested("openid email read:a").await).await;
    assert_eq!((&seen["sub"], seen.get("email")), (&json!(cast.alice.id.to_string()), None));
    assert_eq!(
        (&seen["act"]["sub"], &seen["act"]["act"]["sub"]),
        (&json!("agent:bot"), &json!("agent:tool"))
    );
    assert!(seen.get("capabilities").is_none() && seen.get("budget_policy").is_none());

    cast.on.change_agent(&cast.bot, |bot| bot.capabilities.extend(caps("email profile"))).await;
    let subject = cast.alices_at_bot("openid email profile").await;
    let bot = crate::client_auth::AuthenticatedClient::Agent(cast.bot.clone());
    let actor = cast.on.issue_with(crate::grant::Bearer::Itself(&bot), "email profile", |_| ()).await;
    let token = cast.on.exchanged(&subject, Some(&actor), &[("scope", "email profile")]).await;
    let seen = info(&token).await;
    assert_eq!((&seen["email"], &seen["name"]), (&json!("alice@acme.test"), &json!("Alice")));
    let for_tool =
        cast.on.exchanged(&cast.on.own(&cast.tool).await, Some(&cast.on.own(&cast.bot).await), &[]).await;
    assert_eq!(info(&for_tool).await["sub"], "agent:tool");
}

#[tokio::test]
async fn doors_for_people_stay_shut_to_whoever_acts_for_them() {
    let cast = Cast::new().await;
    cast.on.change_user(&cast.alice, |alice| alice.is_admin = true).await;
    let wide = "admin authz:check admin:users read:a";
    cast.on
        .change_agent(&cast.bot, |bot| {
            bot.capabilities = caps("admin authz:check admin:* read:a delegate:user")
        })
        .await;
    let bot = crate::client_auth::AuthenticatedClient::Agent(cast.bot.clone());
    let actor = cast
        .on
        .issue_with(crate::grant::Bearer::Itself(&bot), "* admin authz:check admin:users", |_| ())
        .await;
    let subject = cast.alices_at_bot(wide).await;
    // What no agent is given by a person, it does not hand on either, if it had it.
    let handed_on = cast.on.exchange(&subject, Some(&actor), &[("scope", wide)]).await;
    refused(handed_on, 400, "invalid_scope");
    let console = crate::client_auth::AuthenticatedClient::Client(cast.on.client(wide).await);
    cast.on.consent(&cast.alice, &cast.bot, wide).await;
    let hers = cast.on.of_user(&cast.alice, &console, wide).await;
    let delegated = cast.on.exchanged(&hers, Some(&actor), &[("scope", wide)]).await;
    let about = SubjectRef::Text(format!("user:{}", cast.alice.id));
    // By the agent's client it is still not the person in person.
    for token in [&subject, &delegated] {
        let principal = cast.principal(token).await;
        assert!(principal.person().is_none());
        let caller = Caller::new(principal.actor(), Origin::default());
        let organization = &cast.on.organization;
        let asked = ["read:a".to_owned()];
        let request = CheckRequest { subject: Some(about.clone()), ..CheckRequest::default() };
        let facts = RequestFacts { method: "POST", path: "/" };
        let answer = cast.on.server.check(organization, &principal, &asked, &request, facts, &caller).await;
        assert_eq!(answer.unwrap_err().to_wire().status.as_u16(), 403);
        if matches!(principal.identity, Identity::User(_)) {
            for scope in ["admin", "admin:users", "authz:check"] {
                assert!(!principal.decide(&Capability::parse(scope).unwrap()).is_allow(), "{scope}");
            }
        }
    }
    // In person she is let in, by an application that may have that of her.
    let admin = Capability::parse("admin:users").unwrap();
    let hers = cast.principal(&hers).await;
    assert!(hers.person().is_some() && hers.decide(&admin).is_allow());
    let elsewhere = cast.principal(&cast.alices(wide).await).await;
    assert!(!elsewhere.decide(&admin).is_allow());
}

#[tokio::test]
async fn who_acts_for_somebody_is_not_there_for_itself() {
    let cast = Cast::new().await;
    let (own, delegated) = (cast.on.own(&cast.bot).await, cast.delegated("read:a").await);
    let params = Params::from_form(format!("token={own}").as_bytes()).unwrap();
    let origin = Origin::default();
    for (bearer, accepted) in [(&own, true), (&delegated, false)] {
        let header = http::HeaderValue::from_str(&format!("Bearer {bearer}")).unwrap();
        let request =
            TokenRequest { authorization: Some(&header), dpop: None, params: &params, origin: &origin };
        assert_eq!(cast.on.server.introspect(&cast.on.organization, request).await.is_ok(), accepted);
    }
    let request =
        serde_json::from_value(json!({ "client_id": cast.bot.client_id, "name": "Other" })).unwrap();
    let principal = cast.principal(&delegated).await;
    let caller = Caller::new(principal.actor(), Origin::default());
    let organization = &cast.on.organization;
    let error = cast.on.server.register_agent(organization, &principal, request, &caller).await;
    assert_eq!(error.unwrap_err().to_wire().status.as_u16(), 403);
}
