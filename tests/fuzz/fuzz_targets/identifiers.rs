//! Everything that is one short text: ids, slugs, times, amounts, names of roles. Each prints what it read, or reads again what
//! it prints.

#![no_main]

use std::fmt::Display;

use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    budget::MicroUsd,
    clock::Timestamp,
    id::{
        AAuthIdentifier, AAuthResourceId, AgentId, ClientId, ConsentId, EventId, KeyId, McpServerId, OrgId,
        Slug, UserId,
    },
    jwks::Thumbprint,
    workload::RoleArn,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    exact(text, OrgId::parse, 63);
    exact(text, Slug::parse, 63);
    exact(text, ClientId::parse, 128);
    exact(text, KeyId::parse, 128);
    exact(text, McpServerId::parse, 28);
    exact(text, RoleArn::parse, 512);
    exact(text, AAuthIdentifier::parse, 512);
    exact(text, AAuthResourceId::parse, 28);
    exact(text, str::parse::<Thumbprint>, 43);
    same(text, AgentId::parse, 36);
    same(text, UserId::parse, 36);
    same(text, ConsentId::parse, 36);
    same(text, EventId::parse, 45);
    same(text, str::parse::<Timestamp>, usize::MAX);
    same(text, str::parse::<MicroUsd>, 17);
    if let Ok(amount) = text.parse::<MicroUsd>() {
        assert!(amount.micros() <= 1_000_000_000_000_000);
    }
    if let Some(slug) = Slug::from_name(text) {
        assert_eq!(Slug::from_name(slug.as_str()).as_ref().map(Slug::as_str), Some(slug.as_str()));
    }
    if let Ok(role) = RoleArn::parse(text) {
        assert!(role.is_caller(text) && role.account().len() == 12);
        assert!(role.is_caller(&role.without_path()) == (role.without_path() == text));
    }
});

/// What is accepted has one form only.
fn exact<T: Display, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>, longest: usize) {
    let Ok(read) = parse(text) else { return };
    assert_eq!(read.to_string(), text);
    assert!((1..=longest).contains(&text.len()) && text.is_ascii());
}

/// What is accepted may have several forms; it is printed in one of them.
fn same<T: Display + PartialEq, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>, longest: usize) {
    let Ok(read) = parse(text) else { return };
    assert!(text.len() <= longest);
    let printed = read.to_string();
    let again = parse(&printed).ok().expect("it reads what it prints");
    assert!(again == read && again.to_string() == printed);
}
