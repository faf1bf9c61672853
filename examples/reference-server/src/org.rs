//! `org`: organizations of a store, also while servers run on it.

use std::{
    error::Error,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use embedded_store::OpenError;
use lumoauth_core::{
    audit::{Actor, Origin},
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::{ActOrder, Organization},
    secret::Secret,
    server::{ApiError, AuthorizationServer, Caller},
};

use crate::{
    cli::{OrgVerb, StoreArgs},
    config::PostgresConfig,
    dev::shell_lines,
    failure::Failure,
    migrate::named_store,
    store::StoreUrl,
};

/// Does it, and prints what came of it.
///
/// # Errors
/// [`Failure`] if the store cannot be opened or refuses.
pub(crate) async fn run(verb: OrgVerb) -> Result<(), Failure> {
    let text = match verb {
        OrgVerb::Create { slug, name, act_order, store } => {
            let server = open(&store, Missing::Made).await?;
            let name = name.unwrap_or_else(|| slug.to_string());
            create(&server, &slug, &name, act_order.into()).await?
        }
        OrgVerb::Disable { slug, store } => {
            switch(&open(&store, Missing::Refused).await?, &slug, false).await?
        }
        OrgVerb::Enable { slug, store } => {
            switch(&open(&store, Missing::Refused).await?, &slug, true).await?
        }
        OrgVerb::List { store } => list(&open(&store, Missing::Refused).await?).await?,
    };
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::because("cannot print", error))
}

/// What becomes of a file that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Made,
    Refused,
}

/// A server on the store. It signs and seals nothing, so it needs neither the true master key nor a public URL.
async fn open(args: &StoreArgs, missing: Missing) -> Result<AuthorizationServer, Failure> {
    let (url, postgres) = named_store(args)?;
    server_on(&url, &postgres, missing).await
}

async fn server_on(
    url: &StoreUrl,
    postgres: &PostgresConfig,
    missing: Missing,
) -> Result<AuthorizationServer, Failure> {
    if matches!(url, StoreUrl::Memory) {
        return Err(Failure::new("a store in memory ends with this command: name a file or a database"));
    }
    if let StoreUrl::Embedded(path) = url
        && missing == Missing::Refused
        && !path.exists()
    {
        return Err(Failure::new(format!("there is no store `{}`", path.display())));
    }
    let opened = url.open(postgres).await.map_err(|failure| match url {
        StoreUrl::Embedded(path) => in_use(path, failure),
        StoreUrl::Memory | StoreUrl::Postgres { .. } => failure,
    })?;
    let clock = opened.clock();
    let keys = KeyRing::new(opened.stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
    AuthorizationServer::builder("http://localhost", opened.stores, Arc::new(keys))
        .with_clock(clock)
        .build()
        .map_err(|error| Failure::because("the store cannot be used", error))
}

/// One process has the file, and it is most likely the server.
fn in_use(path: &Path, failure: Failure) -> Failure {
    let cause = failure.source().and_then(|cause| cause.downcast_ref());
    if !matches!(cause, Some(OpenError::InUse { .. })) {
        return failure;
    }
    Failure::new(format!(
        "the store `{}` is in use: stop the server that has it and try again, or run on PostgreSQL, where this works \
         beside it",
        path.display()
    ))
}

async fn create(
    server: &AuthorizationServer,
    slug: &OrgId,
    name: &str,
    act_order: ActOrder,
) -> Result<String, Failure> {
    match server.create_organization(slug, name, act_order, &caller()).await {
        Ok(_) => {}
        // It may have come no further the last time. Resource servers read tokens by the order, so it must be this one.
        Err(ApiError::Conflict(_)) => {
            let found = server.organization(slug).await.map_err(|error| refused(slug, error))?;
            if (found.name.as_str(), found.act_order) != (name, act_order) {
                let text =
                    format!("the organization `{slug}` exists already, with another name or `act` order");
                return Err(Failure::new(text));
            }
        }
        Err(error) => return Err(refused(slug, error)),
    }
    let key = server.create_first_api_key(slug, &caller()).await.map_err(|error| refused(slug, error))?;
    let key = key.ok_or_else(|| Failure::new(format!("the organization `{slug}` exists already")))?;
    let id = Secret::from(slug.as_str());
    let variables = [("LUMOAUTH_ORG_ID", id.clone()), ("LUMOAUTH_TENANT", id), ("LUMOAUTH_API_KEY", key)];
    Ok(shell_lines(&variables).to_string())
}

async fn switch(server: &AuthorizationServer, slug: &OrgId, active: bool) -> Result<String, Failure> {
    let changed = server.set_organization_active(slug, active, &caller()).await;
    changed.map(|organization| line(&organization)).map_err(|error| refused(slug, error))
}

async fn list(server: &AuthorizationServer) -> Result<String, Failure> {
    const AT_ONCE: u32 = 1000;
    let mut text = String::new();
    let mut last: Option<OrgId> = None;
    loop {
        let page = server.organizations(last.as_ref(), AT_ONCE).await;
        let page = page.map_err(|error| Failure::because("the organizations cannot be listed", error))?;
        let Some(organization) = page.last() else { return Ok(text) };
        last = Some(organization.id.clone());
        text.extend(page.iter().map(|organization| line(organization)));
    }
}

fn line(organization: &Organization) -> String {
    let status = if organization.is_active() { "active" } else { "disabled" };
    format!("{}\t{status}\t{}\n", organization.id, organization.name)
}

fn refused(slug: &OrgId, error: ApiError) -> Failure {
    match error {
        ApiError::TenantNotFound => Failure::new(format!("there is no organization `{slug}`")),
        error => Failure::because(format!("the organization `{slug}` cannot be changed"), error),
    }
}

fn caller() -> Caller {
    Caller::new(Actor::system(), Origin::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    async fn on(url: &str, missing: Missing) -> Result<AuthorizationServer, Failure> {
        server_on(&url.parse().unwrap(), &PostgresConfig::default(), missing).await
    }

    /// On a new file.
    async fn on_file(scratch: &Scratch) -> AuthorizationServer {
        on(&format!("embedded:{}", scratch.0.join("data").display()), Missing::Made).await.unwrap()
    }

    fn acme() -> OrgId {
        OrgId::parse("acme").unwrap()
    }

    #[tokio::test]
    async fn an_organization_is_made_once_and_its_key_shown_once() {
        let scratch = Scratch::new("org");
        let server = on_file(&scratch).await;
        let text = create(&server, &acme(), "Acme", ActOrder::Rfc8693).await.unwrap();
        assert!(text.contains("export LUMOAUTH_ORG_ID='acme'\n"), "{text}");
        assert!(text.contains("export LUMOAUTH_API_KEY='lmk_acme_"), "{text}");
        let again = create(&server, &acme(), "Acme", ActOrder::default()).await.unwrap_err();
        assert!(again.to_string().contains("exists already"), "{again}");
        assert_eq!(server.organization(&acme()).await.unwrap().act_order, ActOrder::Rfc8693);
        assert_eq!(list(&server).await.unwrap(), "acme\tactive\tAcme\n");
    }

    #[tokio::test]
    async fn what_was_cut_short_is_finished() {
        let scratch = Scratch::new("org");
        let server = on_file(&scratch).await;
        server.create_organization(&acme(), "Acme", ActOrder::default(), &caller()).await.unwrap();
        for (name, order) in [("Other", ActOrder::default()), ("Acme", ActOrder::Rfc8693)] {
            let refused = create(&server, &acme(), name, order).await.unwrap_err();
            assert!(refused.to_string().contains("with another name or `act` order"), "{refused}");
        }
        assert!(create(&server, &acme(), "Acme", ActOrder::default()).await.unwrap().contains("lmk_acme_"));
    }

    #[tokio::test]
    async fn nothing_is_made_that_is_gone_at_once() {
        for missing in [Missing::Made, Missing::Refused] {
            let refused = on("memory", missing).await.unwrap_err();
            assert!(refused.to_string().contains("memory"), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_organization_is_switched_off_and_on() {
        let scratch = Scratch::new("org");
        let server = on_file(&scratch).await;
        let missing = switch(&server, &acme(), false).await.unwrap_err();
        assert_eq!(missing.to_string(), "there is no organization `acme`");
        create(&server, &acme(), "Acme", ActOrder::default()).await.unwrap();
        for (active, status) in [(false, "disabled"), (false, "disabled"), (true, "active")] {
            assert_eq!(switch(&server, &acme(), active).await.unwrap(), format!("acme\t{status}\tAcme\n"));
        }
    }

    #[tokio::test]
    async fn a_file_that_a_server_has_is_left_to_it() {
        let scratch = Scratch::new("org");
        let path = scratch.0.join("data");
        let url = format!("embedded:{}", path.display());
        let missing = on(&url, Missing::Refused).await.unwrap_err();
        assert!(missing.to_string().contains("there is no store") && !path.exists(), "{missing}");
        let server = on(&url, Missing::Made).await.unwrap();
        let refused = on(&url, Missing::Refused).await.unwrap_err();
        assert!(refused.to_string().contains("stop the server"), "{refused}");
        drop(server);
    }
}
