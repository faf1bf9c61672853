//! Capabilities and scopes: what is granted is on the first line, what is asked for on the second.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use lumoauth_core::capability::{Capability, Scope};
use lumoauth_fuzz::halves;

/// What no wildcard reaches that does not name it.
const FAMILIES: [&str; 3] = ["delegate:", "admin", "authz:"];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let (granted, requested) = halves(text, "\n");
    let (Some(granted), Some(requested)) = (scope(granted), scope(requested)) else { return };
    for grant in granted.as_slice() {
        for item in requested.as_slice() {
            assert_eq!(grant.covers(item), covers(grant.as_str(), item.as_str()), "{grant} {item}");
        }
    }
});

fn scope(text: &str) -> Option<Scope> {
    let items: Vec<_> = text.split(' ').filter(|item| !item.is_empty()).collect();
    for item in &items {
        let read = Capability::parse(item);
        assert_eq!(read.is_ok(), fits(item), "{item}");
        assert!(read.is_err() || read.is_ok_and(|read| read.as_str() == *item && read.covers(&read)));
    }
    let read = text.parse::<Scope>().ok();
    assert_eq!(read.is_some(), items.iter().all(|item| fits(item)));
    let read = read?;
    let names: HashSet<_> = items.iter().collect();
    assert_eq!(read.as_slice().len(), names.len());
    assert_eq!(read.to_string().parse::<Scope>().as_ref(), Ok(&read));
    Some(read)
}

/// The documented form, in other words.
fn fits(text: &str) -> bool {
    let stars = text.bytes().filter(|byte| *byte == b'*').count();
    let ends_well = text == "*" || text.ends_with(":*") || text.ends_with(".*");
    (1..=128).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/-*".contains(c))
        && (stars == 0 || stars == 1 && ends_well)
}

/// The documented rule, in other words.
fn covers(grant: &str, item: &str) -> bool {
    if grant == item {
        return true;
    }
    let Some(stem) = grant.strip_suffix('*') else { return false };
    let Some(rest) = item.strip_prefix(stem) else { return false };
    let kept = FAMILIES.iter().any(|family| item.starts_with(family) && !stem.starts_with(family));
    !rest.is_empty() && !item.ends_with('*') && !kept
}
