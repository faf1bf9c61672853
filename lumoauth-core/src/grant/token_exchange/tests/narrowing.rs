//! Exchanges without an actor.

use super::setting::{Cast, SECRET, refused, scope};
use crate::{agent::DelegationConsent, client_auth::AuthenticatedClient, token::ConsentEpoch};

#[tokio::test]
async fn an_agent_narrows_its_own_token() {
    let cast = Cast::new().await;
    let own = cast.on.own(&cast.tool).await;
    let before = cast.on.claims(&own).await;
    cast.on.wait(100);
    let response = cast.on.exchange(&own, None, &[("scope", "read:a")]).await.unwrap();
    let after = cast.on.claims(response.access_token.expose()).await;
    assert_eq!((after.sub, after.aud, after.exp), (before.sub, before.aud, before.exp));
    assert_eq!((after.scope, response.expires_in), (scope("read:a"), 3500));
    refused(cast.on.exchange(&own, None, &[("scope", "read:b")]).await, 400, "invalid_scope");
    refused(cast.on.exchange(&own, None, &[]).await, 400, "invalid_request");
    let narrow = response.access_token.expose();
    refused(cast.on.exchange(narrow, None, &[("scope", "tool:x")]).await, 400, "invalid_scope");
}

#[tokio::test]
async fn nothing_is_narrowed_without_end() {
    let cast = Cast::new().await;
    let mut token = cast.on.own(&cast.tool).await;
    for _ in 0..16 {
        token = cast.on.exchanged(&token, None, &[("scope", "read:a")]).await;
    }
    assert_eq!(cast.on.claims(&token).await.lin.handles.len(), 16);
    refused(cast.on.exchange(&token, None, &[("scope", "read:a")]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_chain_narrows_its_token_and_stays_a_chain() {
    let cast = Cast::new().await;
    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    let nested = cast.nested("read:a tool:x").await;
    let before = cast.on.claims(&nested).await;
    cast.on.wait(100);
    for more in [("scope", "read:a"), ("audience", "urn:mcp:a")] {
        let token = cast.on.exchanged(&nested, None, &[more]).await;
        let after = cast.on.claims(&token).await;
        assert_eq!((after.sub, &after.act), (before.sub.clone(), &before.act));
        assert!(after.exp <= before.exp && after.lin.handles.len() == before.lin.handles.len() + 1);
        let expected = if more.0 == "scope" { "read:a" } else { "read:a tool:x" };
        assert_eq!(after.scope, scope(expected));
    }
}

#[tokio::test]
async fn a_persons_token_is_narrowed_for_the_client_that_has_it_only() {
    let cast = Cast::new().await;
    let token = cast.alices("openid read:a read:b").await;
    let narrower = ("scope", "openid read:a");
    refused(cast.on.exchange(&token, None, &[narrower]).await, 401, "invalid_client");
    let other = cast.on.client("openid read:a").await;
    let by =
        |id: &str| [narrower, ("client_id", id), ("client_secret", SECRET)].map(|(n, v)| (n, v.to_owned()));
    let exchange = async |id: &str| {
        let fields = by(id);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
        cast.on.exchange(&token, None, &fields).await
    };
    refused(exchange(other.client_id.as_str()).await, 400, "invalid_grant");
    let response = exchange(cast.app.client_id().as_str()).await.unwrap();
    let (before, after) =
        (cast.on.claims(&token).await, cast.on.claims(response.access_token.expose()).await);
    assert_eq!((&after.sub, after.exp, after.auth_time), (&before.sub, before.exp, before.auth_time));
    assert_eq!((after.identity_type.as_ref(), after.scope), ("user", scope("openid read:a")));
    assert_eq!(after.amr, before.amr);

    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    let id = cast.app.client_id().as_str();
    let bound = [("audience", "urn:mcp:a"), ("client_id", id), ("client_secret", SECRET)];
    refused(cast.on.exchange(&token, None, &bound).await, 400, "invalid_target");
    let wider = [("scope", "write:c"), ("client_id", id), ("client_secret", SECRET)];
    refused(cast.on.exchange(&token, None, &wider).await, 400, "invalid_scope");
}

#[tokio::test]
async fn no_wildcard_of_a_person_reaches_who_they_are() {
    let cast = Cast::new().await;
    let app = AuthenticatedClient::Client(cast.on.client("*").await);
    let token = cast.on.of_user(&cast.alice, &app, "* openid").await;
    let exchange = async |scope| {
        let fields = [("scope", scope), ("client_id", app.client_id().as_str()), ("client_secret", SECRET)];
        cast.on.exchange(&token, None, &fields).await
    };
    for scope in ["email", "openid profile", "offline_access read:a"] {
        refused(exchange(scope).await, 400, "invalid_scope");
    }
    assert_eq!(exchange("openid read:a").await.unwrap().scope, scope("openid read:a"));
}

#[tokio::test]
async fn an_own_token_for_a_resource_is_a_fresh_grant_and_a_delegated_one_is_not() {
    let cast = Cast::new().await;
    cast.on.mcp_server("urn:mcp:a", |server| server.token_lifetime = 7200).await;
    let target = [("audience", "urn:mcp:a")];
    let own = cast.on.own(&cast.bot).await;
    assert_eq!(cast.on.exchange(&own, None, &target).await.unwrap().expires_in, 7200);
    let delegated = cast.delegated("read:a").await;
    cast.on.wait(300);
    assert_eq!(cast.on.exchange(&delegated, None, &target).await.unwrap().expires_in, 600);
    let issuer = cast.on.server.issuer(cast.on.org());
    let ours = [("audience", issuer.as_str()), ("scope", "read:a")];
    assert!(cast.on.exchange(&own, None, &ours).await.is_ok(), "our own issuer is no resource");
}

#[tokio::test]
async fn client_authentication_must_be_of_a_party() {
    let cast = Cast::new().await;
    let bot = AuthenticatedClient::Agent(cast.bot.clone());
    let subject = cast.on.of_user(&cast.alice, &bot, "read:a").await;
    let actor = cast.on.own(&cast.bot).await;
    for (client, accepted) in [
        (cast.bot.client_id.as_str(), true),
        (cast.tool.client_id.as_str(), false),
        (cast.app.client_id().as_str(), false),
    ] {
        let fields = [("client_id", client), ("client_secret", SECRET)];
        let result = cast.on.exchange(&subject, Some(&actor), &fields).await;
        assert_eq!(result.is_ok(), accepted, "{client}");
        let wrong = [("client_id", client), ("client_secret", "wrong")];
        refused(cast.on.exchange(&subject, Some(&actor), &wrong).await, 401, "invalid_client");
    }
    let own = cast.on.own(&cast.tool).await;
    let other = [("client_id", cast.bot.client_id.as_str()), ("client_secret", SECRET), ("scope", "read:a")];
    refused(cast.on.exchange(&own, None, &other).await, 400, "invalid_grant");
}

#[tokio::test]
async fn what_was_agreed_to_with_a_wildcard_is_handed_on_narrowed() {
    let cast = Cast::new().await;
    let behind = cast.on.agent_with("behind", "read:a read:b delegate:user", |behind| {
        behind.delegation_consent = DelegationConsent::Implicit;
    });
    let behind = behind.await;
    let one = "urn:mcp:one";
    cast.on.mcp_server(one, |on| on.resource_client_id = Some(behind.client_id.clone())).await;
    // Everywhere, so what comes of it may go from one place to another.
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:*").await;
    let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
    let epoch = ConsentEpoch { id: consent.id, epoch: 0 };
    let subject =
        cast.on.of_user_with(&cast.alice, &at_bot, "read:*", |new| new.consents = vec![epoch]).await;
    let (bot, behind_own) = (cast.on.own(&cast.bot).await, cast.on.own(&behind).await);
    let there = cast.on.exchanged(&subject, Some(&bot), &[("audience", one), ("scope", "read:a")]).await;
    let party = [("client_id", behind.client_id.as_str()), ("client_secret", SECRET)];
    for more in [&[("scope", "read:a")][..], &[]] {
        let fields: Vec<_> = party.iter().chain(more).copied().collect();
        let here = cast.on.exchange(&there, Some(&behind_own), &fields).await.unwrap();
        assert_eq!(here.scope.to_string(), "read:a", "{more:?}");
    }
}
