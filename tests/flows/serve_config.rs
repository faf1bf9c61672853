//! Configurations that cannot be used are refused before anything is served, with the reason.

use std::{fs, path::PathBuf};

use lumoauth_tests::{ServeOptions, run_server};

/// Runs `check-config` and `serve` on what `options` write; both must fail and name `named`.
#[track_caller]
fn assert_refused(options: &ServeOptions, named: &[&str]) {
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let store = options.dir().join("data");
    for arguments in [&["check-config", path][..], &["serve", "--config", path]] {
        let (code, text) = run_server(arguments, &options.variables());
        assert_eq!(code, Some(1), "{arguments:?}: {text}");
        for name in named {
            assert!(text.contains(name), "{name} is not named by {arguments:?}: {text}");
        }
        for (_, secret) in options.variables() {
            assert!(!text.contains(secret), "a secret is printed: {text}");
        }
        assert!(!store.exists(), "{arguments:?} made a store");
    }
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn unknown_keys_are_refused_by_name() {
    assert_refused(&ServeOptions::new().embedded().line("rate_limit = true"), &["rate_limit"]);
    // All of them at once, so that one run is enough.
    let options = ServeOptions::new().embedded().line("colour = 1\nsigning_algo = \"ES256\"");
    assert_refused(&options, &["colour", "signing_algo"]);
}

#[test]
fn unknown_variables_are_refused_by_name() {
    let options = ServeOptions::new().embedded();
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let mut variables = options.variables();
    variables.push(("LUMOAUTH_SERVER_LISTENN", "127.0.0.1:1"));
    for arguments in [&["check-config", path][..], &["serve", "--config", path]] {
        let (code, text) = run_server(arguments, &variables);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.to_lowercase().contains("listenn"), "{text}");
    }
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn wrong_values_are_refused_by_name() {
    assert_refused(&ServeOptions::new().embedded().line("signing_alg = \"none\""), &["signing_alg"]);
    assert_refused(&ServeOptions::new().embedded().line("rate_limits = \"many\""), &["rate_limits"]);
    assert_refused(&ServeOptions::new().embedded().line("max_connections = 0"), &["max_connections"]);
    let (absent, other) = (PathBuf::from("/nowhere/cert.pem"), PathBuf::from("/nowhere/key.pem"));
    assert_refused(&ServeOptions::new().embedded().tls(&absent, &other), &["cert.pem"]);
}

#[test]
fn good_configuration_is_ok() {
    let options = ServeOptions::new().embedded();
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let (code, text) = run_server(&["check-config", path], &options.variables());
    assert_eq!((code, text.trim()), (Some(0), "ok"));
    assert!(!options.dir().join("data").exists(), "checking opens no store");
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn serve_needs_its_master_key() {
    let options = ServeOptions::new().embedded();
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let (code, text) = run_server(&["serve", "--config", path], &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("LUMOAUTH_MASTER_KEY"), "{text}");
    for bad in ["short", "not base64 at all!!", "AAAA"] {
        let (code, text) = run_server(&["serve", "--config", path], &[("LUMOAUTH_MASTER_KEY", bad)]);
        assert_eq!(code, Some(1), "{text}");
        assert!(!text.contains(bad), "a secret is printed: {text}");
    }
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn weak_bootstrap_key_is_refused_and_not_printed() {
    let options = ServeOptions::new().embedded();
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let mut variables = options.variables();
    for bad in ["lmk_acme-corp_short", "agk_acme-corp_0123456789012345678901234567890123456789012"] {
        variables[1].1 = bad;
        let (code, text) = run_server(&["check-config", path], &variables);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("LUMOAUTH_BOOTSTRAP_API_KEY") && !text.contains(bad), "{text}");
    }
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn wrong_command_lines_end_with_two() {
    for arguments in [&["serve"][..], &["dev", "--colour"], &["frobnicate"], &[]] {
        assert_eq!(run_server(arguments, &[]).0, Some(2), "{arguments:?}");
    }
    let (code, text) = run_server(&["serve", "--config", "/nowhere/lumoauth.toml"], &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("/nowhere/lumoauth.toml"), "{text}");
}
