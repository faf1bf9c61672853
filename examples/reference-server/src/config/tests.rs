use super::*;

const LEAST: &str = "public_url = 'https://auth.example'\nstore = 'memory'\n";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, "server.toml", variables)
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    parse(text, variables).unwrap_err().0
}

#[test]
fn the_least_configuration_has_safe_defaults() {
    let config = parse(LEAST, &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.public_url, "https://auth.example");
    assert_eq!(config.rate_limits, RateLimiting::Standard);
    assert_eq!(config.audit_retention, None);
    assert_eq!(config.signing_alg, Algorithm::Es256);
    assert_eq!((config.log_format, config.log_level.as_str()), (logging::Format::Text, "info"));
    assert_eq!(config.postgres, PostgresConfig::default());
    assert!(config.tls.is_none() && config.organizations.is_empty() && config.master_key_file.is_none());
}

#[test]
fn every_key_is_read() {
    let text = "
        listen = '0.0.0.0:443'
        public_url = 'https://auth.example/base/'
        store = 'embedded:/var/lib/lumoauth/data'
        master_key_file = '/etc/lumoauth/master.key'
        signing_alg = 'EdDSA'
        rate_limits = false
        max_connections = 10
        [audit]
        retention_days = 400
        [log]
        format = 'json'
        level = 'warn'
        [tls]
        cert = 'cert.pem'
        key = 'key.pem'
        [fetch]
        allow = ['https://kubernetes.default.svc', 'https://sts.amazonaws.com=10.0.0.7:443']
        post = ['https://hooks.internal']
        [mail]
        url = 'smtps://user:password@mail.example'
        from = 'LumoAuth <no-reply@auth.example>'
        [[organizations]]
        slug = 'acme-corp'
        name = 'Acme Corp'
    ";
    let config = parse(text, &[]).unwrap();
    assert_eq!(
        config.fetch_allow,
        ["https://kubernetes.default.svc", "https://sts.amazonaws.com=10.0.0.7:443"]
    );
    assert_eq!(config.fetch_post, ["https://hooks.internal"]);
    let mail = config.mail.unwrap();
    assert_eq!(mail.url.expose(), "smtps://user:password@mail.example");
    assert_eq!(mail.from, "LumoAuth <no-reply@auth.example>");
    assert_eq!(config.listen.port(), 443);
    assert_eq!(config.public_url, "https://auth.example/base");
    assert!(matches!(config.store, StoreUrl::Embedded(path) if path == *"/var/lib/lumoauth/data"));
    assert_eq!(config.master_key_file, Some("/etc/lumoauth/master.key".into()));
    assert_eq!(config.signing_alg, Algorithm::EdDsa);
    assert_eq!(config.rate_limits, RateLimiting::Off);
    assert_eq!(config.max_connections.get(), 10);
    assert_eq!(config.audit_retention, Some(std::time::Duration::from_secs(400 * 86_400)));
    assert_eq!((config.log_format, config.log_level.as_str()), (logging::Format::Json, "warn"));
    assert_eq!(config.tls, Some(TlsFiles { cert: "cert.pem".into(), key: "key.pem".into() }));
    assert_eq!(config.organizations.len(), 1);
}

#[test]
fn the_use_of_postgres_is_read_and_has_bounds() {
    let text = "
        public_url = 'https://auth.example'
        store = 'postgresql://u@db/lumoauth+redis://cache'
        [postgres]
        max_connections = 20
        acquire_timeout_ms = 500
    ";
    let config = parse(text, &[("LUMOAUTH_SERVER_POSTGRES__STATEMENT_TIMEOUT_MS", "60000")]).unwrap();
    assert!(matches!(config.store, StoreUrl::Postgres { redis: Some(_), .. }));
    let expected = PostgresConfig {
        max_connections: Some(20),
        acquire_timeout: Some(Duration::from_millis(500)),
        statement_timeout: Some(Duration::from_secs(60)),
    };
    assert_eq!(config.postgres, expected);

    let wrong = [
        ("LUMOAUTH_SERVER_POSTGRES__MAX_CONNECTIONS", "0"),
        ("LUMOAUTH_SERVER_POSTGRES__ACQUIRE_TIMEOUT_MS", "60001"),
        ("LUMOAUTH_SERVER_POSTGRES__STATEMENT_TIMEOUT_MS", "-5"),
        ("LUMOAUTH_SERVER_POSTGRES__TIMEOUT", "5"),
    ];
    let problems = problems(text, &wrong);
    assert_eq!(problems.len(), wrong.len(), "{problems:?}");
    for (variable, _) in wrong {
        assert!(problems.iter().any(|problem| problem.contains(variable)), "{variable}: {problems:?}");
    }
    assert!(problems.concat().contains("100 to 60000"), "{problems:?}");
}

#[test]
fn the_use_of_postgres_belongs_to_postgres() {
    let problems = problems(&format!("{LEAST}[postgres]\nmax_connections = 5"), &[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("`postgres`"), "{problems:?}");
}

#[test]
fn a_store_with_a_password_can_be_a_variable() {
    // Brackets, braces and commas mean lists and tables elsewhere in variables.
    let url = "postgres://u:a,b[c]{d}=1+e@[::1]:6000/lumoauth+redis://:{x},y@cache/1";
    let config = parse("public_url = 'https://auth.example'", &[("LUMOAUTH_SERVER_STORE", url)]).unwrap();
    let StoreUrl::Postgres { postgres, redis } = config.store else { panic!("{:?}", config.store) };
    assert_eq!(postgres.expose(), "postgres://u:a,b[c]{d}=1+e@[::1]:6000/lumoauth");
    assert_eq!(redis.unwrap().expose(), "redis://:{x},y@cache/1");
}

#[test]
fn what_may_be_fetched_anywhere_are_origins() {
    for bad in [
        "https://a.test/path",
        "a.test",
        "ftp://a.test",
        "*",
        "https://a.test=",
        "https://a.test=10.0.0.7",
        "https://a.test=b.test:443",
        "https://a.test:8443=10.0.0.7:443",
        "https://10.0.0.1=10.0.0.7:443",
        "a.test=10.0.0.7:443",
    ] {
        let problems = problems(&format!("{LEAST}[fetch]\nallow = ['{bad}']"), &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("`fetch.allow`"), "{problems:?}");
    }
}

#[test]
fn unknown_keys_are_refused_by_name() {
    let cases = [
        ("signing_algorithm = 'ES256'", "signing_algorithm"),
        ("[log]\nlevle = 'info'", "log.levle"),
        ("[logs]\nlevel = 'info'", "logs.level"),
        ("[logs]", "logs"),
        ("[[organizations]]\nslug = 'a'\nname = 'A'\ntitle = 'x'", "title"),
    ];
    for (text, key) in cases {
        let problems = problems(&format!("{LEAST}{text}"), &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(&format!("`{key}`")), "{problems:?}");
    }
    assert!(parse(&format!("{LEAST}[log]"), &[]).is_ok());
}

#[test]
fn variables_win_over_the_file() {
    let text = format!("{LEAST}listen = '127.0.0.1:1'\n[log]\nlevel = 'info'\nformat = 'json'");
    let variables = [
        ("LUMOAUTH_SERVER_LISTEN", "127.0.0.1:2"),
        ("LUMOAUTH_SERVER_LOG__LEVEL", "debug"),
        ("LUMOAUTH_SERVER_RATE_LIMITS", "false"),
        ("LUMOAUTH_SERVER_MAX_CONNECTIONS", "7"),
        ("LUMOAUTH_URL", "https://what.a.client.uses"),
        ("LUMOAUTH_MASTER_KEY", "x"),
    ];
    let config = parse(&text, &variables).unwrap();
    assert_eq!(config.listen.port(), 2);
    assert_eq!((config.log_format, config.log_level.as_str()), (logging::Format::Json, "debug"));
    assert_eq!(config.rate_limits, RateLimiting::Off);
    assert_eq!(config.max_connections.get(), 7);
}

#[test]
fn an_unknown_variable_is_refused_by_name() {
    let problems = problems(LEAST, &[("LUMOAUTH_SERVER_LOG__LEVLE", "debug")]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("LUMOAUTH_SERVER_LOG__LEVLE"), "{problems:?}");
}

#[test]
fn the_public_url_is_https_unless_it_is_this_machine() {
    for good in ["https://auth.example", "http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost"] {
        assert!(public_url(good).is_ok(), "{good}");
    }
    for bad in [
        "http://auth.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "ftp://auth.example",
        "auth.example",
        "https://u:p@auth.example",
        "https://auth.example/?a",
        "https://auth.example/#a",
        "",
    ] {
        assert!(public_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn all_problems_are_reported_together() {
    let text = "
        listen = 'localhost'
        public_url = 'http://auth.example'
        store = 'postgres://u:canary@h'
        signing_alg = 'none'
        rate_limits = 'yes'
        max_connections = 0
        colour = 1
        [log]
        format = 'xml'
        level = 'lumoauth=loud'
        [tls]
        cert = 'cert.pem'
        [[organizations]]
        slug = 'Not A Slug'
        name = 'x'
    ";
    let problems = problems(text, &[]);
    let expected = [
        "listen",
        "public_url",
        "store",
        "signing_alg",
        "rate_limits",
        "max_connections",
        "colour",
        "log.format",
        "log.level",
        "tls.key",
        "organizations",
    ];
    for key in expected {
        assert!(problems.iter().any(|problem| problem.contains(&format!("`{key}`"))), "{key}: {problems:?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    assert!(!problems.concat().contains("canary"), "{problems:?}");
}

#[test]
fn what_is_required_is_named() {
    let problems = problems("", &[]).concat();
    assert!(problems.contains("`public_url`") && problems.contains("`store`"), "{problems}");
}

#[test]
fn what_is_not_toml_is_one_problem() {
    assert_eq!(problems("public_url =", &[]).len(), 1);
}

#[test]
fn no_organization_is_named_twice() {
    let one = "[[organizations]]\nslug = 'a'\nname = 'A'\n";
    assert!(problems(&format!("{LEAST}{one}{one}"), &[]).concat().contains("twice"));
}
