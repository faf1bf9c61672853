//! `dev`: a server that works at once, with an organization, agents, a person, an application and an MCP
//! server in it. It makes what is missing and never changes what is there.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use lumoauth_core::{
    keys::{KeyRing, KeyRingConfig, MasterKey},
    secret::Secret,
    server::AuthorizationServer,
    store::Stores,
};
use lumoauth_tower::LumoauthService;
use zeroize::Zeroizing;

use crate::{
    accounts::Accounts,
    app::App,
    cli::DevArgs,
    config::PostgresConfig,
    credentials::Credentials,
    dev_files::DevFiles,
    failure::Failure,
    fetch, files, fixtures,
    health::Needs,
    host::Host,
    listen::Listener,
    logging,
    mail::Smtp,
    master_key::{self, StoreAge},
    passwords::Argon2id,
    store::StoreUrl,
};

/// Runs until a signal ends it.
///
/// # Errors
/// [`Failure`] if it cannot start.
pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    logging::init(logging::Format::Text, logging::DEFAULT_LEVEL)?;
    let url = StoreUrl::from_argument(&args.store)?;
    let fetch = fetch::guarded(&args.fetch_allow, &args.post_allow)?;
    let listener = Listener::bind(args.listen).await?;
    let address = listener.address()?;
    // Requests are signed for what their senders call us.
    let authorities = [address.to_string(), format!("localhost:{}", address.port())];
    let public_url = match args.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => local_url(address),
    };

    if let Some(steps @ 1..) = url.migrate().await? {
        tracing::info!(steps, "the tables are those of this version now");
    }
    // The store first: a file lets only one process in, so that the files beside it are ours to write. A database
    // lets everybody in, so there the files have a lock.
    let opened = url.open(&PostgresConfig::default()).await?;
    let (needs, clock) = (Needs::of(&opened), opened.clock());
    let stores = opened.stores;
    let files = DevFiles::of(&url)?;
    let lock = match &files {
        Some(files) => Some(files.lock().await?),
        None => None,
    };
    let master = master_key(files.as_ref(), &stores).await?;
    let mut credentials = credentials(args.credentials, files.as_ref(), args.given)?;
    let hasher = Arc::new(Argon2id::new());
    let now = clock.now();
    let fixtures = fixtures::install(args.fixtures, &stores, &*hasher, &mut credentials, now).await?;

    let config = KeyRingConfig::default().with_algorithm(args.signing_alg);
    let keys = Arc::new(KeyRing::new(stores.keys.clone(), master.clone(), config));
    let mut builder = AuthorizationServer::builder(&public_url, stores, keys.clone())
        .with_clock(clock)
        .with_password_hasher(hasher.clone())
        .with_approver_page("/orgs/{org}/api/v1/oauth/approvals")
        .with_fetch(Arc::new(fetch))
        .with_authorities(authorities);
    if let Some(url) = &args.mail_url {
        let mail = Smtp::new(url, &args.mail_from);
        builder = builder.with_mail(Arc::new(mail.map_err(|error| Failure::because("no mail", error))?));
    }
    let server = builder.build().map_err(|error| Failure::because("the server cannot be set up", error))?;
    for org in &fixtures.organizations {
        server
            .prepare(org)
            .await
            .map_err(|error| Failure::because(format!("no signing keys for `{org}`"), error))?;
        master_key::check(&*keys, org, now).await?;
    }

    drop(lock);
    // Only the server holds the store from here on, so that the store ends with it.
    drop(keys);

    let accounts = Accounts::new(server.clone(), hasher, &master, None)
        .map_err(|error| Failure::because("the sessions have no key", error))?;
    let accounts = Arc::new(accounts);
    let mut service = LumoauthService::new(server.clone()).with_people(accounts.clone());
    if let Some(first) = fixtures.organizations.first() {
        service = service.with_default_organization(first.clone());
    }
    let host = Host::start(listener, App::new(service, accounts, needs), server)?;
    tracing::info!(url = %public_url, "serving");
    let mut variables = vec![("LUMOAUTH_URL", Secret::from(public_url))];
    variables.extend(fixtures.variables);
    announce(&variables, args.env_out.as_deref())?;
    host.run().await
}

/// Where clients on this machine reach a server that listens on `address`.
fn local_url(address: SocketAddr) -> String {
    // "Any address" is one to listen on, not one to connect to.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

async fn master_key(files: Option<&DevFiles>, stores: &Stores) -> Result<MasterKey, Failure> {
    if let Some(key) = master_key::from_env()? {
        return Ok(key);
    }
    let Some(files) = files else { return Ok(MasterKey::generate()) };
    let known = stores
        .organizations
        .list(None, 1)
        .await
        .map_err(|error| Failure::because("the store cannot be read", error))?;
    let age = if known.is_empty() { StoreAge::New } else { StoreAge::InUse };
    master_key::from_file_or_new(&files.master_key(), age)
}

/// The credentials of the file, and over them the given ones.
fn credentials(
    file: Option<PathBuf>,
    files: Option<&DevFiles>,
    given: Vec<(String, Secret)>,
) -> Result<Credentials, Failure> {
    let file = file.or_else(|| files.map(DevFiles::credentials));
    let mut credentials = Credentials::open(file)?;
    for (key, value) in given {
        fixtures::check_given(&key, &value)?;
        credentials.set(&key, value);
    }
    Ok(credentials)
}

/// Tells how to reach the server: for a shell on standard output, for programs in `file`.
fn announce(variables: &[(&'static str, Secret)], file: Option<&Path>) -> Result<(), Failure> {
    if let Some(path) = file {
        files::write_private(path, &plain_lines(variables))
            .map_err(|error| Failure::because(format!("`{}` cannot be written", path.display()), error))?;
    }
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(shell_lines(variables).as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = printed {
        // A reader that has seen enough closes the pipe; that is no reason not to serve.
        tracing::warn!(%error, "cannot print the variables");
    }
    Ok(())
}

fn plain_lines(variables: &[(&'static str, Secret)]) -> Zeroizing<String> {
    lines(variables, |text, key, value| writeln!(text, "{key}={value}"))
}

/// Lines that a shell takes as they are.
pub(crate) fn shell_lines(variables: &[(&'static str, Secret)]) -> Zeroizing<String> {
    lines(variables, |text, key, value| writeln!(text, "export {key}='{}'", value.replace('\'', r"'\''")))
}

fn lines(
    variables: &[(&'static str, Secret)],
    line: impl Fn(&mut String, &str, &str) -> std::fmt::Result,
) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for (key, value) in variables {
        line(&mut text, key, value.expose()).expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_survive_a_shell() {
        let variables = [("A", Secret::from("plain")), ("B", Secret::from("it's $HOME"))];
        assert_eq!(*shell_lines(&variables), "export A='plain'\nexport B='it'\\''s $HOME'\n");
        assert_eq!(*plain_lines(&variables), "A=plain\nB=it's $HOME\n");
    }

    #[test]
    fn the_url_is_one_that_can_be_reached() {
        let url = |address: &str| local_url(address.parse().unwrap());
        assert_eq!(url("127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:8080"), "http://[::1]:8080");
    }
}
