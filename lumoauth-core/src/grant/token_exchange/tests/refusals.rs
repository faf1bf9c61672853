//! What is never exchanged.

use serde_json::json;

use super::setting::{ACCESS, Cast, refused};
use crate::{
    client_auth::AuthenticatedClient,
    grant::Bearer,
    keys::{KeyProvider, KeyPurpose},
    token::sign,
};

const ID: &str = super::super::ID_TOKEN;
const JWT: &str = super::super::JWT;
const REFRESH: &str = super::super::REFRESH_TOKEN;

#[tokio::test]
async fn an_actor_is_an_agents_own_live_token_for_our_routes() {
    let cast = Cast::new().await;
    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    let subject = cast.alices_at_bot("read:a").await;
    let bot = cast.on.own(&cast.bot).await;
    for (what, actor) in [
        ("a person's", cast.alices_at_bot("read:b").await),
        ("a delegated one", cast.delegated("read:a").await),
        ("one for a resource", cast.on.exchanged(&bot, None, &[("audience", "urn:mcp:a")]).await),
        ("a client's", cast.on.issue_with(Bearer::Itself(&cast.app), "read:a", |_| ()).await),
        ("of another organization", {
            let there = cast.on.elsewhere().await;
            let stranger = there.agent("bot", "read:a delegate:user").await;
            there.own(&stranger).await
        }),
        ("nonsense", "nonsense".to_owned()),
        ("empty parts", "..".to_owned()),
    ] {
        let result = cast.on.exchange(&subject, Some(&actor), &[]).await;
        assert_eq!(result.unwrap_err().to_wire().error, "invalid_grant", "{what}");
    }
    cast.on.change_agent(&cast.bot, |bot| bot.epoch += 1).await;
    refused(cast.on.exchange(&subject, Some(&bot), &[]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn half_an_actor_is_none() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    for half in [("actor_token", actor.as_str()), ("actor_token_type", ACCESS)] {
        refused(cast.on.exchange(&subject, None, &[half]).await, 400, "invalid_request");
    }
    for (declared, error) in
        [(ID, "invalid_grant"), (REFRESH, "invalid_grant"), ("urn:x", "unsupported_token_type")]
    {
        let fields = [("actor_token", actor.as_str()), ("actor_token_type", declared)];
        refused(cast.on.exchange(&subject, None, &fields).await, 400, error);
    }
    let fields = [("actor_token", actor.as_str()), ("actor_token_type", JWT)];
    assert!(cast.on.exchange(&subject, None, &fields).await.is_ok());
}

#[tokio::test]
async fn the_declared_type_must_fit_the_subject() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    let with = |declared: &'static str, token: &str, actor: Option<&str>| {
        let mut fields =
            vec![("subject_token", token.to_owned()), ("subject_token_type", declared.to_owned())];
        if let Some(actor) = actor {
            fields.push(("actor_token", actor.to_owned()));
            fields.push(("actor_token_type", ACCESS.to_owned()));
        }
        let on = &cast.on;
        async move {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
            on.request(&fields).await
        }
    };
    refused(with(ID, &subject, Some(&actor)).await, 400, "invalid_grant");
    refused(with(REFRESH, &subject, None).await, 400, "invalid_grant");
    refused(with(REFRESH, "rt_some", Some(&actor)).await, 400, "invalid_request");
    refused(with(ACCESS, "rt_some", Some(&actor)).await, 400, "invalid_grant");
    refused(
        with("urn:ietf:params:oauth:token-type:saml2", &subject, None).await,
        400,
        "unsupported_token_type",
    );
    assert!(with(JWT, &subject, Some(&actor)).await.is_ok());
}

#[tokio::test]
async fn only_access_tokens_come_of_it() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    let asked =
        async |kind| cast.on.exchange(&subject, Some(&actor), &[("requested_token_type", kind)]).await;
    refused(asked(REFRESH).await, 400, "invalid_request");
    refused(asked(JWT).await, 400, "invalid_request");
    assert!(asked(ACCESS).await.is_ok());
}

#[tokio::test]
async fn foreign_tokens_are_workloads_and_those_of_our_other_organizations_are_not() {
    let cast = Cast::new().await;
    let there = cast.on.elsewhere().await;
    let stranger = there.agent("bot", "read:a delegate:user").await;
    let foreign = there.own(&stranger).await;
    let fields = |kind| [("subject_token", foreign.as_str()), ("subject_token_type", kind)];
    refused(cast.on.request(&fields(JWT)).await, 400, "invalid_grant");
    refused(cast.on.request(&fields(ACCESS)).await, 400, "invalid_grant");
    // Another server's.
    let signer = cast.on.keys.signer(cast.on.org(), KeyPurpose::AccessToken, cast.on.now()).await.unwrap();
    let theirs =
        sign(&*signer, "JWT", &json!({ "iss": "https://kubernetes.test", "sub": "x" })).await.unwrap();
    for kind in [JWT, ID] {
        let fields = [("subject_token", theirs.as_str()), ("subject_token_type", kind)];
        refused(cast.on.request(&fields).await, 401, "workload_identity_failed");
        let actor = cast.on.own(&cast.bot).await;
        let fields = [fields[0], fields[1], ("actor_token", actor.as_str()), ("actor_token_type", ACCESS)];
        refused(cast.on.request(&fields).await, 400, "invalid_request");
    }
    let fields = [("subject_token", theirs.as_str()), ("subject_token_type", ACCESS)];
    refused(cast.on.request(&fields).await, 400, "invalid_grant");
}

/// Each is signed with our own key; what is wrong with it is what it says.
#[tokio::test]
async fn tokens_of_other_kinds_are_no_subjects_and_no_actors() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    let signer = cast.on.keys.signer(cast.on.org(), KeyPurpose::AccessToken, cast.on.now()).await.unwrap();
    let (of_alice, of_bot) = (cast.on.claims(&subject).await, cast.on.claims(&actor).await);
    let good = sign(&*signer, "at+jwt", &of_alice).await.unwrap();
    assert!(cast.on.exchange(&good, Some(&actor), &[]).await.is_ok());
    for typ in ["JWT", "logout+jwt", "auth+jwt", "agent+jwt", "resource+jwt", "none"] {
        let token = sign(&*signer, typ, &of_alice).await.unwrap();
        refused(cast.on.exchange(&token, Some(&actor), &[]).await, 400, "invalid_grant");
        let token = sign(&*signer, typ, &of_bot).await.unwrap();
        refused(cast.on.exchange(&subject, Some(&token), &[]).await, 400, "invalid_grant");
    }
    let change = |claims: &crate::token::AccessClaims, member: &str, value: serde_json::Value| {
        let mut claims = json!(claims);
        claims[member] = value;
        claims
    };
    let now = super::setting::NOW;
    for (member, value) in [
        ("jit", json!(true)),
        ("exp", json!(now)),
        ("nbf", json!(now + 31)),
        ("iss", json!("https://auth.example/orgs/globex/api/v1")),
        ("organization", json!("globex")),
        ("sub", json!("nobody")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("\u{202e}alice")),
        ("sub", json!("x".repeat(8000))),
        ("lin", json!({ "e": [] })),
        ("lin", json!({ "e": [0, 0] })),
        ("act", json!({ "sub": "agent:bot" })),
    ] {
        let token = sign(&*signer, "at+jwt", &change(&of_alice, member, value.clone())).await.unwrap();
        let result = cast.on.exchange(&token, Some(&actor), &[]).await;
        assert_eq!(result.unwrap_err().to_wire().error, "invalid_grant", "{member}: {value}");
        if member != "sub" {
            let token = sign(&*signer, "at+jwt", &change(&of_bot, member, value.clone())).await.unwrap();
            let result = cast.on.exchange(&subject, Some(&token), &[]).await;
            let accepted = member == "lin" && value == json!({ "e": [0, 0] });
            assert_eq!(result.is_ok(), accepted, "{member}: {value}");
        }
    }
}

#[tokio::test]
async fn a_chain_of_ten_thousand_is_not_even_read() {
    let cast = Cast::new().await;
    let signer = cast.on.keys.signer(cast.on.org(), KeyPurpose::AccessToken, cast.on.now()).await.unwrap();
    let delegated = json!(cast.on.claims(&cast.delegated("read:a").await).await);
    let actor = cast.on.own(&cast.tool).await;
    // Each link is a good one: what is wrong is how many there are.
    let act = serde_json::to_string(&delegated["act"]).unwrap();
    let link = format!("{},\"act\":", act.strip_suffix('}').unwrap());
    for depth in [0, 3, 30, 39, 9_999] {
        let deep = format!("{}{act}{}", link.repeat(depth), "}".repeat(depth));
        let text = serde_json::to_string(&delegated).unwrap().replace(&act, &deep);
        let claims = serde_json::value::RawValue::from_string(text);
        // Beyond what the JSON library itself reads there is nothing to sign.
        let Ok(claims) = claims else { continue };
        let token = sign(&*signer, "at+jwt", &claims).await.unwrap();
        let result = cast.on.exchange(&token, Some(&actor), &[]).await;
        if depth == 0 {
            assert!(result.is_ok(), "as it was issued");
        } else {
            refused(result, 400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn the_dead_are_no_subjects() {
    let cast = Cast::new().await;
    let actor = cast.on.own(&cast.bot).await;
    let subject = cast.alices_at_bot("read:a").await;
    cast.on.revoke_as(cast.bot.client_id.as_str(), &subject).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 400, "invalid_grant");

    let subject = cast.alices_at_bot("read:a").await;
    cast.on.change_user(&cast.alice, |alice| assert!(alice.block())).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 400, "invalid_grant");
    cast.on.change_user(&cast.alice, |alice| assert!(alice.unblock())).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_persons_token_is_not_exchanged_by_whoever_finds_it() {
    let cast = Cast::new().await;
    let found = cast.alices("read:a").await;
    refused(cast.on.exchange(&found, None, &[("scope", "read:a")]).await, 401, "invalid_client");
    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    refused(cast.on.exchange(&found, None, &[("audience", "urn:mcp:a")]).await, 401, "invalid_client");
    let unproven = [("client_id", cast.app.client_id().as_str()), ("scope", "read:a")];
    refused(cast.on.exchange(&found, None, &unproven).await, 401, "invalid_client");
}

#[tokio::test]
async fn a_client_that_cannot_prove_itself_exchanges_nothing() {
    let cast = Cast::new().await;
    let public = cast.on.public_client("read:a").await;
    let token = cast.on.of_user(&cast.alice, &AuthenticatedClient::Client(public.clone()), "read:a").await;
    let named = [("client_id", public.client_id.as_str()), ("scope", "read:a")];
    refused(cast.on.exchange(&token, None, &named).await, 400, "unauthorized_client");
    let actor = cast.on.own(&cast.bot).await;
    refused(cast.on.exchange(&token, Some(&actor), &named).await, 400, "unauthorized_client");
}

#[tokio::test]
async fn claims_never_come_from_the_request() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    let claims = [
        ("sub", "admin"),
        ("act", r#"{"sub":"agent:root"}"#),
        ("may_act", r#"{"sub":"agent:tool"}"#),
        ("lin", "{}"),
        ("agent_id", "agt_x"),
        ("jit_task_id", "task_1"),
        ("exp", "9999999999"),
    ];
    let token = cast.on.exchanged(&subject, Some(&actor), &claims).await;
    let plain = cast.on.exchanged(&subject, Some(&actor), &[]).await;
    let (one, other) = (cast.on.claims(&token).await, cast.on.claims(&plain).await);
    assert_eq!(crate::token::AccessClaims { jti: other.jti.clone(), ..one }, other);
}
