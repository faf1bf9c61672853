//! What somebody does to an exported log of any backend: each edit is found, and the first bad entry is named.

use std::sync::Arc;

use lumoauth_core::{
    audit_export::{Finding, Line, Verifier},
    jwks::PublicKey,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    server::AuthorizationServer,
    store::{
        AuditStore, KeyStore, Store, Stores,
        conformance::{some_event, some_org},
    },
};

const EDITS: u64 = 10_000;

/// How many entries the log has at least.
const ENTRIES: u64 = 40;

/// Numbers without order, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

fn is(line: &str, kind: &str) -> bool {
    line.starts_with(&format!("{{\"type\":\"{kind}\""))
}

/// An edit of the lines, which leaves the first ones, about the log and its keys.
fn edited(lines: &[String], first: usize, numbers: &mut Numbers) -> Vec<String> {
    let mut lines = lines.to_vec();
    let mut pick = || first + numbers.below(lines.len() - first);
    let (at, other) = (pick(), pick());
    let kind = numbers.below(9);
    if kind < 4 && is(&lines[at], "entry") {
        // A line that is written as it should be, and says something else.
        let mut entry: Line = serde_json::from_str(&lines[at]).unwrap();
        if let Line::Entry { seq, at, body, .. } = &mut entry {
            match kind {
                0 => *body = body.take().map(|body| body + " "),
                1 => *body = None,
                2 => *at += 1,
                _ => *seq += 1,
            }
        }
        lines[at] = entry.to_text().unwrap().trim_end().to_owned();
        return lines;
    }
    match kind {
        4 => lines.swap(at, other),
        5 => drop(lines.remove(at)),
        6 => lines.insert(at, lines[other].clone()),
        7 => lines.truncate(at),
        _ => {
            let mut bytes = lines[at].clone().into_bytes();
            let place = numbers.below(bytes.len());
            bytes[place] ^= u8::try_from(1 + numbers.below(127)).unwrap();
            lines[at] = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    lines
}

fn check(keys: &[PublicKey], kept: &str, lines: &[String]) -> Result<(), Finding> {
    let mut verifier = Verifier::new(Some(keys.to_vec()));
    verifier.expect(kept)?;
    lines.iter().try_for_each(|line| verifier.line(line.as_bytes()))?;
    verifier.finish().map(drop)
}

/// Makes a log, exports it, and edits it ten thousand times.
pub(crate) async fn are_found<S: Store + KeyStore + AuditStore>(store: Arc<S>) {
    let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
    let server =
        AuthorizationServer::builder("https://auth.example", Stores::all(store.clone()), Arc::new(keys));
    let (server, org) = (server.build().unwrap(), some_org());
    server.audit_keys(&org).await.unwrap();
    let mut size = 0;
    while size < ENTRIES {
        AuditStore::append(&*store, &org, &[some_event(), some_event(), some_event()]).await.unwrap();
        size = server.audit_head(&org).await.unwrap().0.size;
    }
    let (_, kept) = server.audit_head(&org).await.unwrap();
    let keys = server.audit_keys(&org).await.unwrap();
    let keys = keys.iter().map(|key| PublicKey::from_jwk(&serde_json::to_value(key).unwrap()).unwrap());
    let keys: Vec<_> = keys.collect();
    let text = server.audit_export(&org, 0, u32::MAX, usize::MAX).await.unwrap();
    let lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
    check(&keys, &kept, &lines).unwrap();

    let first = lines.iter().position(|line| is(line, "entry")).unwrap();
    let entries =
        |lines: &[String]| lines.iter().filter(|line| !is(line, "head")).cloned().collect::<Vec<_>>();
    let (mut numbers, mut found) = (Numbers(0x9e37_79b9_7f4a_7c15), 0);
    for n in 0..EDITS {
        let edited = edited(&lines, first, &mut numbers);
        // Heads say the same thing twice, so one of them may be missing, be there twice, or come early.
        let all_true = edited.iter().all(|line| lines.contains(line));
        match check(&keys, &kept, &edited) {
            Ok(()) => assert!(all_true && entries(&edited) == entries(&lines), "edit {n} was not found"),
            Err(finding) => {
                found += 1;
                let same = edited.iter().zip(&lines).take_while(|(one, other)| one == other).count();
                let count = |kind: &str| lines[..same].iter().filter(|line| is(line, kind)).count();
                // Between the last head that is as it was, and the first line that is not.
                let agreed = lines[..same].iter().rposition(|line| is(line, "head")).unwrap_or(0);
                let agreed = lines[..agreed].iter().filter(|line| is(line, "entry")).count();
                let named = u64::try_from(agreed).unwrap() + 1..=u64::try_from(count("entry")).unwrap() + 1;
                // An older head in a later place says of no entry that it is bad.
                let is_late = finding.problem.contains("head is not in its place");
                assert!(is_late || named.contains(&finding.first), "edit {n}: {named:?} {finding}");
            }
        }
    }
    assert!(found > EDITS * 3 / 4, "only {found}");
}
