//! Agents that may come from some addresses only, where the address is known, and where it is not.

use super::setting::{Cast, SECRET, refused};
use crate::{
    agent::{Agent, AuthMethod, IdentityType},
    audit::{ActorKind, EventKind, EventOutcome, Origin},
    grant::{TokenError, TokenResponse},
    secret::Secret,
    server::{AuthenticateError, Credential, Door, TokenRequest},
    wire::Params,
};

const CAUSE: &str = "the address is none of those that the agent may come from";

fn at(address: &str) -> Origin {
    Origin::new(Some(address.parse().unwrap()), None, None)
}

fn nowhere() -> Origin {
    Origin::default()
}

impl Cast {
    async fn list(&self, agent: &Agent, networks: &[&str]) {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        self.on.change_agent(agent, |agent| agent.allowed_ips = networks).await;
    }

    async fn ask_from(&self, origin: &Origin, fields: &[(&str, &str)]) -> Result<TokenResponse, TokenError> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let params = Params::from_form(form.as_bytes()).unwrap();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin };
        self.on.server.token(&self.on.organization, request).await
    }

    async fn present_from(&self, origin: &Origin, credential: Credential<'_>, door: Door<'_>) -> bool {
        let server = &self.on.server;
        let here = server.authenticate(&self.on.organization, credential, door, origin).await;
        let anywhere = server.authenticate_anywhere(credential, door, origin).await;
        match (here, anywhere) {
            (Ok(_), Ok(_)) => true,
            (Err(AuthenticateError::Refused), Err(AuthenticateError::Refused)) => false,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_with_a_list_is_nowhere_if_its_address_is_not_known() {
    let cast = Cast::new().await;
    let token = cast.on.own(&cast.bot).await;
    let mut key = None;
    let org = cast.on.org().clone();
    cast.on.change_agent(&cast.bot, |agent| key = Some(agent.rotate_api_key(&org))).await;
    let key: Secret = key.unwrap();
    let credentials = [Credential::Bearer(&token), Credential::Bearer(key.expose())];
    let ask = [
        ("grant_type", "client_credentials"),
        ("client_id", cast.bot.client_id.as_str()),
        ("client_secret", SECRET),
    ];
    for networks in [&["192.0.2.0/24"][..], &["0.0.0.0/0", "::/0"], &["192.0.2.7", "2001:db8::/32"]] {
        cast.list(&cast.bot, networks).await;
        for origin in [at("192.0.2.7"), at("::ffff:192.0.2.7")] {
            assert!(cast.ask_from(&origin, &ask).await.is_ok());
            for credential in credentials {
                assert!(cast.present_from(&origin, credential, Door::Own).await, "{networks:?} {origin:?}");
            }
        }
        refused(cast.ask_from(&nowhere(), &ask).await, 401, "invalid_client");
        for credential in credentials {
            assert!(!cast.present_from(&nowhere(), credential, Door::Own).await);
        }
        refused(cast.on.exchange(&token, None, &[("scope", "read:a")]).await, 400, "invalid_grant");
    }
    cast.list(&cast.bot, &[]).await;
    assert!(cast.ask_from(&nowhere(), &ask).await.is_ok());
    for credential in credentials {
        assert!(cast.present_from(&nowhere(), credential, Door::Own).await);
    }
}

#[tokio::test]
async fn a_good_credential_from_elsewhere_is_recorded_and_no_bad_one() {
    let cast = Cast::new().await;
    let token = cast.on.own(&cast.bot).await;
    cast.list(&cast.bot, &["192.0.2.0/24"]).await;
    let credential = Credential::Bearer(&token);
    let (server, organization, there) = (&cast.on.server, &cast.on.organization, at("192.0.3.0"));
    assert!(server.authenticate(organization, credential, Door::Own, &there).await.is_err());
    // For another audience, it is no good credential.
    let elsewhere = Door::Resource("https://mcp.acme.test/files");
    assert!(server.authenticate(organization, credential, elsewhere, &there).await.is_err());
    cast.on.change_agent(&cast.bot, |agent| agent.epoch += 1).await;
    assert!(server.authenticate(organization, credential, Door::Own, &there).await.is_err());
    let mut events = cast.on.events().await;
    events.retain(|event| event.outcome == EventOutcome::Failure);
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!((event.kind, event.origin.ip), (EventKind::AgentAuthenticated, there.ip));
    assert_eq!((event.actor.kind, event.context["cause"].as_str()), (ActorKind::Unknown, Some(CAUSE)));
    assert_eq!(*event.target.as_ref().unwrap().id, cast.bot.id.to_string());
    assert!(!serde_json::to_string(event).unwrap().contains(&token));
}

#[tokio::test]
async fn of_a_chain_the_one_that_asks_must_be_where_it_may_be() {
    let cast = Cast::new().await;
    let (delegated, nested) = (cast.delegated("read:a").await, cast.nested("read:a").await);
    let (bots, tools) = (cast.on.own(&cast.bot).await, cast.on.own(&cast.tool).await);
    let alices = cast.alices_at_bot("read:a").await;
    let here = at("192.0.2.7");
    cast.list(&cast.bot, &["192.0.2.7"]).await;
    cast.list(&cast.tool, &["192.0.2.8"]).await;
    for (token, works) in
        [(&delegated, true), (&bots, true), (&alices, true), (&nested, false), (&tools, false)]
    {
        assert_eq!(cast.present_from(&here, Credential::Bearer(token), Door::Own).await, works);
        let narrow = cast
            .ask_from(
                &here,
                &[
                    ("grant_type", super::setting::GRANT),
                    ("subject_token", token),
                    ("subject_token_type", super::setting::ACCESS),
                    ("scope", "read:a"),
                    ("client_id", cast.bot.client_id.as_str()),
                    ("client_secret", SECRET),
                ],
            )
            .await;
        assert_eq!(narrow.is_ok(), works, "{narrow:?}");
    }
    let joined = |origin: Origin, subject: String, actor: String| {
        let cast = &cast;
        async move {
            let fields = [
                ("grant_type", super::setting::GRANT),
                ("subject_token", &*subject),
                ("subject_token_type", super::setting::ACCESS),
                ("actor_token", &*actor),
                ("actor_token_type", super::setting::ACCESS),
            ];
            cast.ask_from(&origin, &fields).await
        }
    };
    assert!(joined(at("192.0.2.7"), alices.clone(), bots.clone()).await.is_ok());
    refused(joined(at("192.0.2.8"), alices, bots).await, 400, "invalid_grant");
    assert_eq!(cast.on.events().await[0].context["cause"], CAUSE);
    // What the bot hands on comes from where the tool is.
    assert!(joined(at("192.0.2.8"), delegated.clone(), tools.clone()).await.is_ok());
    refused(joined(at("192.0.2.7"), delegated, tools).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_secret_and_a_key_are_good_if_their_method_is_listed() {
    let cast = Cast::new().await;
    let org = cast.on.org().clone();
    let mut key = None;
    let ask = [
        ("grant_type", "client_credentials"),
        ("client_id", cast.bot.client_id.as_str()),
        ("client_secret", SECRET),
    ];
    cast.on
        .change_agent(&cast.bot, |agent| {
            agent.identity_type = IdentityType::Custom;
            key = Some(agent.rotate_api_key(&org));
        })
        .await;
    let key = key.unwrap();
    for methods in [
        &[][..],
        &[AuthMethod::ClientCredentials],
        &[AuthMethod::ApiKey],
        &[AuthMethod::PrivateKeyJwt, AuthMethod::Aauth, AuthMethod::WorkloadIdentity],
    ] {
        cast.on.change_agent(&cast.bot, |agent| agent.auth_methods = methods.to_vec()).await;
        let listed = |method| methods.is_empty() || methods.contains(&method);
        let by_secret = cast.ask_from(&nowhere(), &ask).await;
        assert_eq!(by_secret.is_ok(), listed(AuthMethod::ClientCredentials), "{methods:?}");
        let by_key = cast.present_from(&nowhere(), Credential::Bearer(key.expose()), Door::Own).await;
        assert_eq!(by_key, listed(AuthMethod::ApiKey), "{methods:?}");
    }
}
