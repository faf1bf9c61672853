//! Agents that act for people, for agents, and for agents that act.

use std::sync::Arc;

use serde_json::json;

use super::setting::{Cast, Setting, caps, refused, scope};
use crate::{
    agent::{Agent, DelegationConsent},
    client_auth::AuthenticatedClient,
    consent::Place,
    grant::TokenError,
    organization::ActOrder,
    token::{Audience, MayAct},
};

#[tokio::test]
async fn an_agent_acts_for_a_person_with_what_both_may_do() {
    let cast = Cast::new().await;
    let subject = cast.alices_at_bot("openid profile read:a write:c").await;
    let response = cast.on.exchange(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await.unwrap();
    assert_eq!((response.expires_in, response.scope.to_string()), (900, "read:a".to_owned()));
    assert!(response.refresh_token.is_none());
    let claims = cast.on.claims(response.access_token.expose()).await;
    let act =
        json!({"sub": "agent:bot", "agent_id": cast.bot.id.to_string(), "client_id": cast.bot.client_id});
    assert_eq!((claims.sub.clone(), json!(claims.act)), (cast.alice.id.to_string(), act));
    assert_eq!(claims.aud, Audience::One(cast.bot.id.to_string()));
    assert_eq!((&claims.client_id, claims.agent_id), (&cast.bot.client_id, Some(cast.bot.id)));
    assert_eq!((claims.delegation_depth, claims.exp - claims.iat), (Some(1), 900));
    assert!(cast.on.is_active(response.access_token.expose()).await);
}

#[tokio::test]
async fn both_orders_of_actors_name_the_same_chain() {
    for order in [ActOrder::FirstOutermost, ActOrder::Rfc8693] {
        let cast = Cast::on(Setting::ordered(order).await).await;
        let token = cast.nested("read:a").await;
        let claims = cast.on.claims(&token).await;
        let names: Vec<_> = claims.actors().into_iter().map(|act| act.sub.as_str()).collect();
        assert_eq!(names, ["agent:bot", "agent:tool"]);
        let outermost = claims.act.as_ref().unwrap();
        let expected = if order == ActOrder::Rfc8693 { "agent:tool" } else { "agent:bot" };
        assert_eq!((outermost.sub.as_str(), claims.delegation_depth), (expected, Some(2)));
        assert_eq!((claims.agent_id, &claims.client_id), (Some(cast.tool.id), &cast.tool.client_id));
        assert_eq!(claims.aud, Audience::One(cast.tool.id.to_string()));
        assert_eq!(cast.on.introspect(&token).await["act"], json!(claims.act), "{order:?}");
    }
}

#[tokio::test]
async fn three_actors_are_a_chain_and_the_fourth_is_too_many() {
    let cast = Cast::new().await;
    let mut token = cast.alices_at_bot("read:a").await;
    let mut agents = vec![cast.bot.clone()];
    for slug in ["second", "third", "fourth"] {
        agents.push(cast.on.agent(slug, "read:a delegate:user").await);
    }
    for (depth, agent) in agents.iter().enumerate() {
        let result = cast.on.exchange(&token, Some(&cast.on.own(agent).await), &[]).await;
        if depth < 3 {
            token = result.unwrap().access_token.expose().to_owned();
            assert_eq!(usize::from(cast.on.claims(&token).await.delegation_depth.unwrap()), depth + 1);
        } else {
            let error = refused(result, 403, "delegation_depth_exceeded");
            assert_eq!(error.to_wire().body()["max_depth"], 3);
        }
    }
    assert_eq!(cast.on.claims(&token).await.lin.handles.len(), 6, "each token that it comes from, once");
}

#[tokio::test]
async fn without_the_capability_nobody_acts_for_others() {
    let cast = Cast::new().await;
    let at_tool = AuthenticatedClient::Agent(cast.tool.clone());
    let subject = cast.on.of_user(&cast.alice, &at_tool, "read:a").await;
    let actor = cast.on.own(&cast.tool).await;
    let error = refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 403, "delegation_not_allowed");
    assert!(error.to_wire().description.contains("capability"));
    for change in [(|agent: &mut Agent| agent.can_act_on_behalf_of_users = true) as fn(&mut Agent), |agent| {
        agent.can_act_on_behalf_of_users = false;
        agent.capabilities.extend(super::setting::caps("delegate:user"));
    }] {
        cast.on.change_agent(&cast.tool, change).await;
        assert!(cast.on.exchange(&subject, Some(&actor), &[]).await.is_ok());
    }
    cast.on.change_agent(&cast.tool, |agent| agent.capabilities = super::setting::caps("*")).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 403, "delegation_not_allowed");
}

#[tokio::test]
async fn who_hands_work_on_must_still_be_allowed_to_and_the_newcomer_needs_nothing() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.delegated("read:a").await, cast.on.own(&cast.tool).await);
    assert!(!cast.tool.may_delegate());
    let nested = cast.on.exchanged(&subject, Some(&actor), &[]).await;
    let third = cast.on.agent("third", "read:a delegate:user").await;
    let result = cast.on.exchange(&nested, Some(&cast.on.own(&third).await), &[]).await;
    refused(result, 403, "delegation_not_allowed");
    cast.on.change_agent(&cast.bot, |bot| bot.capabilities = super::setting::caps("read:a")).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 403, "delegation_not_allowed");
}

#[tokio::test]
async fn a_person_must_have_agreed_to_the_agent() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices("read:a read:b").await, cast.on.own(&cast.bot).await);
    let exchange = |more: &'static [(&str, &str)]| cast.on.exchange(&subject, Some(&actor), more);
    refused(exchange(&[]).await, 403, "consent_required");

    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let token = exchange(&[]).await.unwrap();
    assert_eq!(token.scope.to_string(), "read:a", "no more than was agreed to");
    let claims = cast.on.claims(token.access_token.expose()).await;
    assert_eq!(claims.lin.consents.iter().map(|c| c.id).collect::<Vec<_>>(), [consent.id]);
    refused(exchange(&[("scope", "read:b")]).await, 403, "consent_required");

    cast.on.withdraw(&consent).await;
    refused(exchange(&[]).await, 403, "consent_required");
    cast.on.change_agent(&cast.bot, |bot| bot.delegation_consent = DelegationConsent::Implicit).await;
    assert_eq!(exchange(&[]).await.unwrap().scope.to_string(), "read:a read:b");
}

#[tokio::test]
async fn consent_at_one_mcp_server_is_none_at_another() {
    let cast = Cast::new().await;
    let (subject, actor) = (cast.alices("read:a read:b").await, cast.on.own(&cast.bot).await);
    let [one, other] = ["urn:mcp:one", "urn:mcp:other"];
    let server = cast.on.mcp_server(one, |server| server.scopes_supported = caps("read:a read:b")).await;
    cast.on.mcp_server(other, |server| server.scopes_supported = caps("read:a read:b")).await;
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let at = |uri, scope| [("audience", uri), ("scope", scope)];
    for uri in [one, other] {
        // What it may do here it may do there.
        cast.on.exchanged(&subject, Some(&actor), &at(uri, "read:a")).await;
        refused(cast.on.exchange(&subject, Some(&actor), &at(uri, "read:b")).await, 403, "consent_required");
    }
    cast.on
        .change_consent(&consent, |consent| {
            consent.grant(Some(&Place::Mcp(server.server_id.clone())), &scope("read:b"))
        })
        .await;
    cast.on.exchanged(&subject, Some(&actor), &at(one, "read:a read:b")).await;
    refused(cast.on.exchange(&subject, Some(&actor), &at(other, "read:b")).await, 403, "consent_required");
    let narrow = cast.on.exchange(&subject, Some(&actor), &[("audience", other)]).await.unwrap();
    assert_eq!(narrow.scope.to_string(), "read:a");
    let here = cast.on.exchange(&subject, Some(&actor), &[]).await.unwrap();
    assert_eq!(here.scope.to_string(), "read:a");
}

#[tokio::test]
async fn what_is_allowed_at_one_mcp_server_stays_there_at_every_link() {
    let cast = Cast::new().await;
    let behind = cast.on.agent_with("behind", "read:a read:b delegate:user", |behind| {
        behind.delegation_consent = DelegationConsent::Implicit;
    });
    let behind = behind.await;
    let [one, other] = ["urn:mcp:one", "urn:mcp:other"];
    let server = cast.on.mcp_server(one, |on| on.resource_client_id = Some(behind.client_id.clone())).await;
    cast.on.mcp_server(other, |_| ()).await;
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    cast.on
        .change_consent(&consent, |consent| {
            consent.grant(Some(&Place::Mcp(server.server_id.clone())), &scope("read:b"))
        })
        .await;
    let (bot, behind_own) = (cast.on.own(&cast.bot).await, cast.on.own(&behind).await);
    // By a chain that the bot is in, by what the bot has of her itself, and by one whom an administrator answers for.
    let subject = cast.alices("read:a read:b").await;
    let chain =
        cast.on.exchanged(&subject, Some(&bot), &[("audience", one), ("scope", "read:a read:b")]).await;
    let epoch = crate::token::ConsentEpoch { id: consent.id, epoch: 0 };
    let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
    let inbound = cast
        .on
        .of_user_with(&cast.alice, &at_bot, "read:a read:b", |new| {
            new.consents = vec![epoch];
            new.resource = crate::grant::Resource::Mcp(Arc::new(server.clone()));
        })
        .await;
    let party = [("client_id", behind.client_id.as_str()), ("client_secret", super::setting::SECRET)];
    for (subject, actor) in [(&chain, &behind_own), (&inbound, &bot), (&inbound, &behind_own)] {
        let exchange = async |more: &[(&str, &str)]| {
            let fields: Vec<_> = party.iter().chain(more).copied().collect();
            cast.on.exchange(subject, Some(actor), &fields).await
        };
        for place in [&[][..], &[("audience", other)]] {
            let asked: Vec<_> = place.iter().copied().chain([("scope", "read:b")]).collect();
            refused(exchange(&asked).await, 403, "consent_required");
            assert_eq!(exchange(place).await.unwrap().scope.to_string(), "read:a");
        }
        let there = exchange(&[("audience", one), ("scope", "read:b")]).await.unwrap();
        assert_eq!(there.scope.to_string(), "read:b", "where it was allowed");
    }
}

#[tokio::test]
async fn what_the_client_of_a_person_lost_it_does_not_hand_on() {
    let cast = Cast::new().await;
    cast.on.consent(&cast.alice, &cast.bot, "read:a read:b").await;
    let first = cast.on.agent("first", "read:a read:b").await;
    let at_first = AuthenticatedClient::Agent(first.clone());
    let subject = cast.on.of_user(&cast.alice, &at_first, "read:a read:b").await;
    let actor = cast.on.own(&cast.bot).await;
    let exchange = async |scope| cast.on.exchange(&subject, Some(&actor), &[("scope", scope)]).await;
    assert!(exchange("read:b").await.is_ok());
    cast.on.change_agent(&first, |first| first.capabilities = caps("read:a")).await;
    refused(exchange("read:b").await, 400, "invalid_scope");
    assert!(exchange("read:a").await.is_ok());
    assert_eq!(cast.on.exchange(&subject, Some(&actor), &[]).await.unwrap().scope.to_string(), "read:a");
}

#[tokio::test]
async fn no_wildcard_tells_who_the_person_is() {
    let cast = Cast::new().await;
    let wide = cast.on.agent_with("wide", "* delegate:user", |wide| {
        wide.delegation_consent = DelegationConsent::Implicit;
    });
    let (wide, app) = (wide.await, AuthenticatedClient::Client(cast.on.client("*").await));
    let everything = cast.on.of_user(&cast.alice, &app, "* email").await;
    let actor = cast.on.own(&wide).await;
    let exchange = async |scope| cast.on.exchange(&everything, Some(&actor), &[("scope", scope)]).await;
    for item in ["openid", "profile", "offline_access", "read:a openid"] {
        refused(exchange(item).await, 400, "invalid_scope");
    }
    assert!(exchange("email").await.is_ok(), "she gave it by its name");
    // Nor does a chain get it by making itself a narrower token.
    let chain = exchange("*").await.unwrap();
    let narrow = async |scope| cast.on.exchange(chain.access_token.expose(), None, &[("scope", scope)]).await;
    refused(narrow("email").await, 400, "invalid_scope");
    assert!(narrow("read:a").await.is_ok());
}

#[tokio::test]
async fn consent_to_an_earlier_agent_of_the_same_client_id_is_none() {
    let cast = Cast::new().await;
    cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let subject = cast.alices("read:a").await;
    let exchange = async || cast.on.exchange(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await;
    assert!(exchange().await.is_ok());
    let later = cast.on.now().plus(std::time::Duration::from_millis(1));
    cast.on.change_agent(&cast.bot, |bot| bot.created_at = later).await;
    refused(exchange().await, 403, "consent_required");
}

#[tokio::test]
async fn consent_to_an_agent_covers_those_it_hands_work_to_and_ends_with_them() {
    let cast = Cast::new().await;
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let subject = cast.alices("read:a").await;
    let delegated = cast.on.exchanged(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await;
    let nested = cast.on.exchanged(&delegated, Some(&cast.on.own(&cast.tool).await), &[]).await;
    assert_eq!(cast.on.claims(&nested).await.lin.consents.len(), 1);
    assert!(cast.on.is_active(&nested).await);
    cast.on.withdraw(&consent).await;
    assert!(!cast.on.is_active(&nested).await && !cast.on.is_active(&delegated).await);
    assert!(cast.on.is_active(&subject).await, "the application's own token does not stand on it");
}

#[tokio::test]
async fn every_link_bounds_the_scope() {
    let cast = Cast::new().await;
    let subject = cast.alices_at_bot("read:a write:c").await;
    let actor = cast.on.own(&cast.bot).await;
    for (asked, allowed) in
        [("read:a", true), ("read:b", false), ("write:c", false), ("read:a read:b", false)]
    {
        let result = cast.on.exchange(&subject, Some(&actor), &[("scope", asked)]).await;
        if allowed {
            assert_eq!(result.unwrap().scope.to_string(), asked);
        } else {
            refused(result, 400, "invalid_scope");
        }
    }
    let bot = AuthenticatedClient::Agent(cast.bot.clone());
    let narrow = cast.on.issue_with(crate::grant::Bearer::Itself(&bot), "read:b", |_| ()).await;
    refused(cast.on.exchange(&subject, Some(&narrow), &[("scope", "read:a")]).await, 400, "invalid_scope");
    assert_eq!(cast.on.exchange(&subject, Some(&narrow), &[]).await.unwrap().scope.to_string(), "");
}

#[tokio::test]
async fn a_wildcard_never_widens() {
    let cast = Cast::new().await;
    let wide = cast.on.agent_with("wide", "* delegate:user", |wide| {
        wide.delegation_consent = DelegationConsent::Implicit;
    });
    let app = AuthenticatedClient::Client(cast.on.client("read:*").await);
    let actor = cast.on.own(&wide.await).await;
    let subject = cast.on.of_user(&cast.alice, &app, "openid offline_access read:*").await;
    let token = cast.on.exchange(&subject, Some(&actor), &[]).await.unwrap();
    assert_eq!(token.scope.to_string(), "", "`*` stands for no wildcard, and nobody asked to sign in");
    let token = cast.on.exchange(&subject, Some(&actor), &[("scope", "read:a")]).await.unwrap();
    assert_eq!(token.scope.to_string(), "read:a");
    refused(cast.on.exchange(&subject, Some(&actor), &[("scope", "read:*")]).await, 400, "invalid_scope");
    let nested = cast.on.agent("next", "read:*").await;
    let token = token.access_token.expose();
    let result = cast.on.exchange(token, Some(&cast.on.own(&nested).await), &[("scope", "read:b")]).await;
    refused(result, 400, "invalid_scope");
}

#[tokio::test]
async fn an_earlier_agent_that_lost_a_capability_takes_it_from_all_after_it() {
    let cast = Cast::new().await;
    let subject = cast.delegated("read:a tool:x").await;
    let actor = cast.on.own(&cast.tool).await;
    cast.on
        .change_agent(&cast.bot, |bot| bot.capabilities = super::setting::caps("read:a delegate:user"))
        .await;
    assert_eq!(cast.on.exchange(&subject, Some(&actor), &[]).await.unwrap().scope.to_string(), "read:a");
    refused(cast.on.exchange(&subject, Some(&actor), &[("scope", "tool:x")]).await, 400, "invalid_scope");
}

#[tokio::test]
async fn nobody_is_in_a_chain_twice() {
    let cast = Cast::new().await;
    let back = cast.on.agent("back", "read:a delegate:user").await;
    let (delegated, bot) = (cast.delegated("read:a").await, cast.on.own(&cast.bot).await);
    refused(cast.on.exchange(&delegated, Some(&bot), &[]).await, 400, "invalid_request");
    let nested = cast.on.exchanged(&delegated, Some(&cast.on.own(&back).await), &[]).await;
    refused(cast.on.exchange(&nested, Some(&bot), &[]).await, 400, "invalid_request");
    // An agent does not act for itself, by whatever token.
    let other = cast.on.own(&cast.bot).await;
    refused(cast.on.exchange(&bot, Some(&other), &[]).await, 400, "invalid_request");
    refused(cast.on.exchange(&bot, Some(&bot), &[]).await, 400, "invalid_request");
    // Nor do those who act for it let it act for itself.
    let for_bot = cast.on.exchanged(&bot, Some(&cast.on.own(&back).await), &[]).await;
    refused(cast.on.exchange(&for_bot, Some(&other), &[]).await, 400, "invalid_request");
}

#[tokio::test]
async fn agents_act_for_agents() {
    let cast = Cast::new().await;
    let subject = cast.on.own(&cast.tool).await;
    let token = cast.on.exchanged(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await;
    let claims = cast.on.claims(&token).await;
    assert_eq!((claims.sub.as_str(), claims.delegation_depth), ("agent:tool", Some(1)));
    assert_eq!((claims.agent_id, claims.scope), (Some(cast.bot.id), scope("read:a tool:x")));
    refused(
        cast.on.exchange(&cast.on.own(&cast.bot).await, Some(&subject), &[]).await,
        403,
        "delegation_not_allowed",
    );
    cast.on.change_agent(&cast.tool, |tool| tool.epoch += 1).await;
    assert!(!cast.on.is_active(&token).await);
}

#[tokio::test]
async fn a_chain_ends_with_its_first_link() {
    let cast = Cast::new().await;
    let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
    let actor = cast.on.own(&cast.bot).await;
    let short = cast.on.of_user_with(&cast.alice, &at_bot, "read:a", |new| new.lifetime = 40).await;
    assert_eq!(cast.on.exchange(&short, Some(&actor), &[]).await.unwrap().expires_in, 40);
    cast.on.wait(39);
    assert_eq!(cast.on.exchange(&short, Some(&actor), &[]).await.unwrap().expires_in, 1);
    cast.on.wait(1);
    refused(cast.on.exchange(&short, Some(&actor), &[]).await, 400, "invalid_grant");

    let long = cast.alices_at_bot("read:a").await;
    cast.on.wait(3600 - 40 - 10);
    let token = cast.on.exchange(&long, Some(&actor), &[]).await.unwrap();
    assert_eq!(token.expires_in, 10, "the actor's end");
    cast.on.wait(5);
    let (token, tool) = (token.access_token, cast.on.own(&cast.tool).await);
    assert_eq!(cast.on.exchange(token.expose(), Some(&tool), &[]).await.unwrap().expires_in, 5);
}

#[tokio::test]
async fn only_the_named_actor_acts_and_the_chain_ends_there() {
    let cast = Cast::new().await;
    let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
    let named = |sub: &str| {
        let may_act = Some(MayAct { sub: sub.to_owned() });
        cast.on.of_user_with(&cast.alice, &at_bot, "read:a", move |new| new.may_act = may_act)
    };
    let actor = cast.on.own(&cast.bot).await;
    let other = named("agent:tool").await;
    refused(cast.on.exchange(&other, Some(&actor), &[]).await, 400, "invalid_grant");
    let subject = named("agent:bot").await;
    let token = cast.on.exchanged(&subject, Some(&actor), &[]).await;
    assert_eq!(cast.on.claims(&token).await.may_act.unwrap().sub, "agent:bot");
    let result = cast.on.exchange(&token, Some(&cast.on.own(&cast.tool).await), &[]).await;
    refused(result, 400, "invalid_grant");
}

#[tokio::test]
async fn a_test_tokens_mark_stays_on_all_that_comes_of_it() {
    let cast = Cast::new().await;
    let bot = AuthenticatedClient::Agent(cast.bot.clone());
    let trial = cast
        .on
        .issue_with(crate::grant::Bearer::Itself(&bot), "read:a delegate:user", |new| new.test = true)
        .await;
    let token = cast.on.exchanged(&cast.alices_at_bot("read:a").await, Some(&trial), &[]).await;
    assert!(cast.on.claims(&token).await.test);
    let nested = cast.on.exchanged(&token, Some(&cast.on.own(&cast.tool).await), &[]).await;
    assert!(cast.on.claims(&nested).await.test);
    let narrowed = cast.on.exchanged(&nested, None, &[("scope", "read:a")]).await;
    assert!(cast.on.claims(&narrowed).await.test);
}

#[tokio::test]
async fn a_delegated_token_for_a_resource_has_its_vocabulary_and_its_end() {
    let cast = Cast::new().await;
    let vocabulary = super::setting::caps("read:a read:z");
    cast.on.mcp_server("https://mcp.test/a", |server| server.scopes_supported = vocabulary).await;
    cast.on.mcp_server("urn:mcp:short", |server| server.token_lifetime = 60).await;
    let (subject, actor) = (cast.alices_at_bot("read:a read:b").await, cast.on.own(&cast.bot).await);
    let exchange = async |name, target| cast.on.exchange(&subject, Some(&actor), &[(name, target)]).await;
    let response = exchange("resource", "https://mcp.test/a").await.unwrap();
    assert_eq!((response.scope.to_string(), response.expires_in), ("read:a".to_owned(), 900));
    let claims = cast.on.claims(response.access_token.expose()).await;
    assert_eq!(claims.aud, Audience::One("https://mcp.test/a".to_owned()));
    assert_eq!(claims.act.unwrap().sub, "agent:bot");
    assert_eq!(exchange("audience", "urn:mcp:short").await.unwrap().expires_in, 60);
    refused(exchange("resource", "https://mcp.test/none").await, 400, "invalid_target");
    let only_b = cast.alices_at_bot("read:b").await;
    let target = [("resource", "https://mcp.test/a")];
    refused(cast.on.exchange(&only_b, Some(&actor), &target).await, 400, "invalid_scope");
}

#[tokio::test]
async fn only_the_registered_party_hands_on_what_is_bound_to_a_resource() {
    let cast = Cast::new().await;
    let behind = cast.on.agent("behind", "read:a delegate:user").await;
    let resource = cast.on.client("").await;
    for (uri, registered) in [("urn:mcp:a", &behind.client_id), ("urn:mcp:b", &resource.client_id)] {
        cast.on.mcp_server(uri, |server| server.resource_client_id = Some(registered.clone())).await;
    }
    let tool = cast.on.own(&cast.tool).await;
    let bound = async |uri| cast.on.exchanged(&tool, None, &[("audience", uri)]).await;
    let (to_agent, to_client) = (bound("urn:mcp:a").await, bound("urn:mcp:b").await);
    let (actor, other) = (cast.on.own(&behind).await, cast.on.own(&cast.bot).await);

    let token = cast.on.exchanged(&to_agent, Some(&actor), &[]).await;
    let claims = cast.on.claims(&token).await;
    assert_eq!((claims.sub.as_str(), claims.agent_id), ("agent:tool", Some(behind.id)));
    refused(cast.on.exchange(&to_agent, Some(&other), &[]).await, 400, "invalid_grant");
    refused(cast.on.exchange(&to_client, Some(&actor), &[]).await, 400, "invalid_grant");
    let as_client = [("client_id", resource.client_id.as_str()), ("client_secret", super::setting::SECRET)];
    assert!(cast.on.exchange(&to_client, Some(&actor), &as_client).await.is_ok());
    refused(cast.on.exchange(&to_agent, Some(&other), &as_client).await, 400, "invalid_grant");
    // Without an actor there is nothing that a resource may do with it.
    for target in [&[("audience", "urn:mcp:a")][..], &[("scope", "read:a")], &[]] {
        let as_agent = [("client_id", behind.client_id.as_str()), ("client_secret", super::setting::SECRET)];
        let fields: Vec<_> = target.iter().chain(&as_agent).copied().collect();
        refused(cast.on.exchange(&to_agent, None, &fields).await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn an_exchange_is_paid_by_every_agent_of_the_chain_or_by_none() {
    let policy = |max: u64| {
        move |agent: &mut Agent| {
            let json = format!(r#"{{"max_api_calls_per_hour":{max}}}"#);
            agent.budget = serde_json::from_str(&json).unwrap();
        }
    };
    let cast = Cast::new().await;
    let subject = cast.delegated("read:a").await;
    let used = |agent: Arc<Agent>| {
        let (stores, org, now) = (&cast.on.stores, cast.on.org(), cast.on.now());
        async move { stores.budgets.usage(org, agent.account(), now).await.unwrap().calls }
    };
    cast.on.change_agent(&cast.bot, policy(2)).await;
    cast.on.change_agent(&cast.tool, policy(10)).await;
    let tool = cast.on.own(&cast.tool).await;
    let before = used(cast.bot.clone()).await;
    assert_eq!(before, 1);
    cast.on.exchange(&subject, Some(&tool), &[]).await.unwrap();
    let error = cast.on.exchange(&subject, Some(&tool), &[]).await;
    refused(error, 429, "budget_exceeded");
    assert_eq!((used(cast.bot.clone()).await, used(cast.tool.clone()).await), (2, 1));
    // Narrowing is free.
    assert!(cast.on.exchange(&subject, None, &[("scope", "read:a")]).await.is_ok());
    let at_bot: Result<_, TokenError> = cast.on.exchange(&tool, None, &[("scope", "read:a")]).await;
    assert!(at_bot.is_ok() && used(cast.tool.clone()).await == 1);
}
