//! `serve` and `check-config`: a server as a configuration file describes it.

use std::{
    env,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use lumoauth_core::{
    api_key::{ApiKey, ORG_KEY_PREFIX, org_of_key},
    audit::{Actor, Event, EventKind, Target},
    capability::Capability,
    clock::Timestamp,
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    secret::Secret,
    server::AuthorizationServer,
    store::{ApiKeyKey, Insert, StoreError, Stores},
    wire::view,
};
use lumoauth_tower::{LumoauthService, RateLimits};
use serde_json::json;

use crate::{
    accounts::Accounts,
    app::App,
    cli::{CheckArgs, ConfigArgs},
    config::{Config, OrganizationConfig, Problems, RateLimiting},
    failure::Failure,
    fetch,
    health::Needs,
    host::Host,
    listen::Listener,
    logging,
    mail::Smtp,
    master_key,
    passwords::Argon2id,
    store::StoreUrl,
};

/// Runs until a signal ends it.
///
/// # Errors
/// [`Failure`] if it cannot start.
pub(crate) async fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    logging::init(config.log_format, &config.log_level)?;
    let bootstrap = bootstrap_key()?;
    let master = master_key(&config)?.ok_or_else(|| {
        Failure::new(format!("there is no master key: set {} or `master_key_file`", master_key::VARIABLE))
    })?;
    let tls = config.tls.as_ref().map(|files| files.load()).transpose()?;
    if matches!(config.store, StoreUrl::Memory) {
        tracing::warn!("the store is `memory`: everything is gone when this process ends");
    }
    let listener =
        Listener::bind(config.listen).await?.with_tls(tls).with_max_connections(config.max_connections);
    let address = listener.address()?;
    let opened = config.store.open(&config.postgres).await?;
    let (needs, clock) = (Needs::of(&opened), opened.clock());
    let stores = opened.stores;
    let now = clock.now();
    make_organizations(&stores, &config.organizations, now).await?;
    if let Some(key) = bootstrap {
        key.store(&stores, now).await?;
    }
    let known = stores.organizations.list(None, 1).await.map_err(unreadable)?;

    let passwords = Arc::new(Argon2id::new());
    let ring = KeyRingConfig::default().with_algorithm(config.signing_alg);
    let keys = Arc::new(KeyRing::new(stores.keys.clone(), master.clone(), ring));
    let limits = match config.rate_limits {
        RateLimiting::Standard => Some(RateLimits::standard()),
        RateLimiting::Off => None,
    };
    let mut builder = AuthorizationServer::builder(&config.public_url, stores, keys.clone())
        .with_clock(clock)
        .with_password_hasher(passwords.clone())
        .with_approver_page("/orgs/{org}/api/v1/oauth/approvals")
        .with_fetch(Arc::new(fetch::guarded(&config.fetch_allow, &config.fetch_post)?));
    if let Some(kept) = config.audit_retention {
        builder = builder.with_audit_retention(kept);
    }
    if let Some(limits) = &limits {
        builder = builder.with_failure_limit(limits.failure_limit());
    }
    if let Some(mail) = &config.mail {
        let mail = Smtp::new(&mail.url, &mail.from);
        builder = builder.with_mail(Arc::new(mail.map_err(|error| Failure::because("no mail", error))?));
    }
    let server = builder.build().map_err(|error| Failure::because("the server cannot be set up", error))?;
    for organization in &config.organizations {
        let org = &organization.slug;
        server
            .prepare(org)
            .await
            .map_err(|error| Failure::because(format!("no signing keys for `{org}`"), error))?;
    }
    // One master key seals the keys of all organizations, so any of them tells whether it is the right one.
    if let Some(any) = known.first() {
        master_key::check(&*keys, &any.id, now).await?;
    }
    // Only the server holds the store from here on, so that the store ends with it.
    drop(keys);
    let accounts = Accounts::new(server.clone(), passwords, &master, limits.as_ref())
        .map_err(|error| Failure::because("the sessions have no key", error))?;
    let accounts = Arc::new(accounts);
    let service = LumoauthService::new(server.clone()).with_people(accounts.clone());
    let service = match limits {
        Some(limits) => service.with_rate_limits(limits),
        None => service,
    };
    let host = Host::start(listener, App::new(service, accounts, needs), server)?;
    tracing::info!(%address, url = %config.public_url, "serving");
    host.run().await
}

/// Reads a configuration and what it names, and says `ok` or what is wrong. It opens no store.
///
/// # Errors
/// [`Failure`] with every problem.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let mut problems = Vec::new();
    let mut note = |failure: Failure| problems.push(failure.with_causes());
    let master = master_key(&config).map_err(&mut note);
    if let Some(files) = &config.tls {
        let _ = files.load().map_err(&mut note);
    }
    let _ = bootstrap_key().map_err(&mut note);
    if !problems.is_empty() {
        return Err(refusal(&args.config, &Problems(problems)));
    }
    if let Ok(None) = master {
        // No fault of the file: the key is often known only where the server runs.
        eprintln!("note: `serve` will need {} or `master_key_file`", master_key::VARIABLE);
    }
    writeln!(io::stdout(), "ok").map_err(|error| Failure::because("cannot print", error))
}

/// Reads a configuration.
///
/// # Errors
/// [`Failure`] with every problem.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|problems| refusal(path, &problems))
}

fn refusal(path: &Path, problems: &Problems) -> Failure {
    let lines: String = problems.0.iter().map(|problem| format!("\n  {problem}")).collect();
    Failure::new(format!("the configuration `{}` cannot be used:{lines}", path.display()))
}

/// The variable wins over the file, as variables do everywhere else.
fn master_key(config: &Config) -> Result<Option<MasterKey>, Failure> {
    match (master_key::from_env()?, &config.master_key_file) {
        (Some(key), _) => Ok(Some(key)),
        (None, Some(path)) => master_key::from_file(path).map(Some),
        (None, None) => Ok(None),
    }
}

async fn make_organizations(
    stores: &Stores,
    wanted: &[OrganizationConfig],
    now: Timestamp,
) -> Result<(), Failure> {
    for OrganizationConfig { slug, name } in wanted {
        if stores.organizations.find(slug).await.map_err(unreadable)?.is_some() {
            continue;
        }
        let organization = Organization::new(slug.clone(), name, now);
        let order = organization.act_order.as_str();
        let event =
            Event::new(EventKind::OrganizationCreated, Actor::system(), "named in the configuration", now)
                .on(Target::new("organization", slug.as_str()).named(name.as_str()))
                .with("after", json!({ "name": name, "active": true, "act_order": order }));
        match stores.organizations.insert(&organization, &event).await.map_err(unreadable)? {
            Insert::Inserted => tracing::info!(org = %slug, "organization made"),
            // Another replica was faster.
            Insert::Taken(_) => {}
        }
    }
    Ok(())
}

/// The first administrator's API key: without it nobody could make another.
struct BootstrapKey {
    org: OrgId,
    key: Secret,
}

/// The key in [`BOOTSTRAP_VARIABLE`], if it is set and not empty.
fn bootstrap_key() -> Result<Option<BootstrapKey>, Failure> {
    match env::var(BOOTSTRAP_VARIABLE) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => BootstrapKey::parse(Secret::from(text)).map(Some),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(format!("{BOOTSTRAP_VARIABLE} is not text"))),
    }
}

impl BootstrapKey {
    fn parse(key: Secret) -> Result<Self, Failure> {
        // The random part may hold `_` itself; the slug cannot.
        let random = key.expose().splitn(3, '_').nth(2).unwrap_or_default();
        let strong = random.len() >= RANDOM_LENGTH
            && random.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        match org_of_key(ORG_KEY_PREFIX, key.expose()) {
            Some(org) if strong => Ok(Self { org, key }),
            _ => Err(Failure::new(format!(
                "{BOOTSTRAP_VARIABLE} must be `lmk_`, the slug of an organization, `_` and {RANDOM_LENGTH} or \
                 more random characters of A-Z a-z 0-9 - _"
            ))),
        }
    }

    /// Stores its hash, if it is not there. One that was ended stays ended.
    async fn store(self, stores: &Stores, now: Timestamp) -> Result<(), Failure> {
        let Self { org, key } = self;
        let hash = key.hash();
        if stores.organizations.find(&org).await.map_err(unreadable)?.is_none() {
            let what = format!("{BOOTSTRAP_VARIABLE} is for `{org}`, which `organizations` does not name");
            return Err(Failure::new(what));
        }
        if stores.api_keys.find(&org, ApiKeyKey::Hash(&hash)).await.map_err(unreadable)?.is_some() {
            return Ok(());
        }
        let scopes = ["admin", "authz:check"]
            .into_iter()
            .map(Capability::parse)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::because("scopes of the bootstrap key", error))?;
        let (mut record, _) = ApiKey::new(&org, "bootstrap", scopes, now);
        record.hash = hash;
        let event = Event::new(EventKind::ApiKeyCreated, Actor::system(), "given as the bootstrap key", now)
            .on(Target::new("api_key", record.number.to_string()).named("bootstrap"))
            .with("scopes", json!(record.scopes))
            .with("after", view::api_key(&record));
        match stores.api_keys.insert(&org, &record, &event).await.map_err(unreadable)? {
            Insert::Inserted => tracing::info!(%org, "bootstrap API key stored"),
            Insert::Taken(_) => {}
        }
        Ok(())
    }
}

/// The variable that gives the first administrator's API key.
const BOOTSTRAP_VARIABLE: &str = "LUMOAUTH_BOOTSTRAP_API_KEY";

/// 256 bits in base64url: its hash is a fast one, which is right only for what cannot be guessed.
const RANDOM_LENGTH: usize = 43;

fn unreadable(error: StoreError) -> Failure {
    Failure::because("the store does not answer", error)
}

#[cfg(test)]
mod tests {
    use lumoauth_core::{api_key::mint_key, store::MemoryStore};

    use super::*;

    fn acme() -> OrgId {
        OrgId::parse("acme-corp").unwrap()
    }

    #[test]
    fn a_bootstrap_key_is_strong_and_names_its_organization() {
        let parse = |text: &str| BootstrapKey::parse(Secret::from(text));
        for _ in 0..100 {
            // Random parts contain `_` now and then.
            assert_eq!(parse(mint_key(ORG_KEY_PREFIX, &acme()).expose()).unwrap().org, acme());
        }
        let long = "x".repeat(43);
        for bad in [
            "",
            "lmk_acme-corp_short",
            &format!("lmk_{long}"),
            &format!("agk_acme-corp_{long}"),
            &format!("lmk_Acme_{long}"),
            &format!("lmk_acme-corp_{long} "),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn organizations_and_the_bootstrap_key_are_made_once() {
        let stores = Stores::all(Arc::new(MemoryStore::new()));
        let key = mint_key(ORG_KEY_PREFIX, &acme());
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let wanted = [OrganizationConfig { slug: acme(), name: "Acme Corp".to_owned() }];
        let bootstrap = || BootstrapKey { org: acme(), key: key.clone() };
        assert!(bootstrap().store(&stores, now).await.is_err(), "its organization is not there yet");
        for _ in 0..2 {
            make_organizations(&stores, &wanted, now).await.unwrap();
            bootstrap().store(&stores, now).await.unwrap();
        }
        let keys = stores.api_keys.list(&acme(), lumoauth_core::store::Page::first(9)).await.unwrap();
        assert_eq!(keys.total, 1);
        assert_eq!(keys.items[0].hash, key.hash());
    }
}
