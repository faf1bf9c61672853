//! Files that were tampered with: every edit, swap and cut is found, and the entry is named.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    jwks::{JwsAlgorithm, PublicKey, test_key::TestKey},
    merkle::{Frontier, entry_leaf},
};

/// How many entries the log has; heads are about some of them, and about the last.
const ENTRIES: u64 = 40;
const HEADS: [u64; 5] = [1, 8, 13, 30, ENTRIES];

/// When they were signed.
const SIGNED: u64 = 1_790_000_000_000;

const DAY: u64 = 86_400_000;

/// A log as it was exported, line by line, and the heads of it.
struct Setting {
    key: TestKey,
    lines: Vec<String>,
}

fn acme() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn body(seq: u64) -> String {
    json!({"kind": "agent.action", "message": format!("entry {seq} \u{e4} \"quoted\" \\ ")}).to_string()
}

fn entry(seq: u64, body: Option<String>) -> RawEntry {
    let event_id = EventId::from_uuid(uuid::Uuid::from_u128(u128::from(seq) << 64 | 0x8000_0000_0000_0000));
    let at = Timestamp::from_unix_millis(1_790_000_000_000 + seq);
    let hashed = body.clone().unwrap_or_else(|| self::body(seq));
    let leaf = entry_leaf(&acme(), seq, event_id, at, hashed.as_bytes());
    RawEntry { seq, event_id, at, body, leaf }
}

fn text(line: &Line) -> String {
    serde_json::to_string(line).unwrap()
}

impl Setting {
    fn new() -> Self {
        let entries = (1..=ENTRIES).map(|seq| entry(seq, Some(body(seq)))).collect();
        Self::of(TestKey::new(JwsAlgorithm::EdDsa, "k"), entries)
    }

    fn of(key: TestKey, entries: Vec<RawEntry>) -> Self {
        let mut lines = vec![
            text(&Line::Log { format: FORMAT.to_owned(), org: acme() }),
            text(&Line::Key { jwk: key.jwk() }),
        ];
        let mut tree = Frontier::default();
        for entry in entries {
            tree.push(entry.leaf);
            lines.push(text(&Line::entry(entry)));
            if HEADS.contains(&tree.size()) {
                lines.push(text(&Line::Head { jws: head(&key, &tree, "acme") }));
            }
        }
        Self { key, lines }
    }

    fn keys(&self) -> Vec<PublicKey> {
        vec![PublicKey::from_jwk(&self.key.jwk()).unwrap()]
    }

    fn check(&self, lines: &[String]) -> Result<Report, Finding> {
        check(Some(self.keys()), lines, None)
    }

    /// Where the line of an entry is.
    fn line(&self, seq: u64) -> usize {
        let wanted = format!("{{\"type\":\"entry\",\"seq\":{seq},");
        self.lines.iter().position(|line| line.starts_with(&wanted)).unwrap()
    }

    fn last_head(&self) -> String {
        match Line::parse(self.lines.last().unwrap().as_bytes()).unwrap() {
            Line::Head { jws } => jws,
            other => panic!("{other:?}"),
        }
    }
}

fn head(key: &TestKey, tree: &Frontier, org: &str) -> String {
    let claims = json!({
        "iss": "https://auth.example", "org": org, "size": tree.size(), "root": tree.root(), "at": SIGNED,
    });
    let header = json!({"alg": "EdDSA", "kid": "k", "typ": HEAD_TYPE});
    key.raw(&header.to_string(), &claims.to_string())
}

fn check(keys: Option<Vec<PublicKey>>, lines: &[String], earlier: Option<&str>) -> Result<Report, Finding> {
    let mut verifier = Verifier::new(keys);
    if let Some(jws) = earlier {
        verifier.expect(jws)?;
    }
    lines.iter().try_for_each(|line| verifier.line(line.as_bytes()))?;
    verifier.finish()
}

#[test]
fn what_was_not_touched_is_whole() {
    let setting = Setting::new();
    let report = setting.check(&setting.lines).unwrap();
    let facts = (report.entries, report.heads, report.dropped, report.own_keys);
    assert_eq!(facts, (ENTRIES, 5, 0, false));
    assert!(check(None, &setting.lines, None).unwrap().own_keys);
    // In parts: each begins with its own first lines.
    let at = setting.line(20);
    let joined = [&setting.lines[..at], &setting.lines[..2], &setting.lines[at..]].concat();
    assert_eq!(setting.check(&joined).unwrap(), report);
    // One head says no more however often it is there.
    let head = Line::Head { jws: setting.last_head() };
    let repeated = [setting.lines.clone(), vec![text(&head); 9]].concat();
    assert_eq!(setting.check(&repeated).unwrap(), report);
}

#[test]
fn a_file_in_which_nothing_is_signed_is_nothing() {
    let log = text(&Line::Log { format: FORMAT.to_owned(), org: acme() });
    let finding = check(None, std::slice::from_ref(&log), None).unwrap_err();
    assert!(finding.problem.contains("signed"), "{finding}");
    // Nor with a head about nothing.
    let key = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let nothing = text(&Line::Head { jws: head(&key, &Frontier::default(), "acme") });
    check(None, &[log, text(&Line::Key { jwk: key.jwk() }), nothing], None).unwrap_err();
}

#[test]
fn a_file_says_what_it_is_before_anything_else() {
    let setting = Setting::new();
    let kept = setting.last_head();
    // A head that was kept knows whose log it is, and not what the file is.
    for head in [None, Some(&*kept)] {
        let finding = check(Some(setting.keys()), &setting.lines[1..], head).unwrap_err();
        assert_eq!((finding.first, finding.problem), (1, "the file does not say whose log it is"));
    }
}

#[test]
fn a_changed_entry_is_named() {
    let setting = Setting::new();
    for seq in 1..=ENTRIES {
        let (at, mut lines) = (setting.line(seq), setting.lines.clone());
        lines[at] = lines[at].replace("quoted", "forged");
        let finding = setting.check(&lines).unwrap_err();
        assert_eq!((finding.first, finding.last), (seq, seq));
        let mut lines = setting.lines.clone();
        lines.remove(at);
        assert_eq!(setting.check(&lines).unwrap_err().first, seq);
    }
}

#[test]
fn an_entry_that_was_changed_with_its_hash_is_found_by_the_next_head() {
    let setting = Setting::new();
    for seq in 1..=ENTRIES {
        let mut lines = setting.lines.clone();
        lines[setting.line(seq)] = text(&Line::entry(entry(seq, Some("{}".to_owned()))));
        let finding = setting.check(&lines).unwrap_err();
        assert!((finding.first..=finding.last).contains(&seq), "{seq} {finding}");
        let last = HEADS.into_iter().find(|size| *size >= seq).unwrap();
        let first = HEADS.into_iter().filter(|size| *size < seq).max().unwrap_or(0) + 1;
        assert_eq!((finding.first, finding.last), (first, last));
    }
}

#[test]
fn a_cut_tail_contradicts_a_head_that_was_kept() {
    let setting = Setting::new();
    let kept = setting.last_head();
    assert!(check(Some(setting.keys()), &setting.lines, Some(&kept)).is_ok());
    for size in HEADS.into_iter().filter(|size| *size < ENTRIES) {
        // With the heads: what is left is a log of its own, and nothing in it says otherwise.
        let cut = &setting.lines[..=setting.line(size) + 1];
        assert_eq!(setting.check(cut).unwrap().entries, size);
        let finding = check(Some(setting.keys()), cut, Some(&kept)).unwrap_err();
        assert_eq!((finding.first, finding.last), (size + 1, ENTRIES), "{finding}");
    }
    // And one that was written anew, with the key.
    let mut forged = setting.lines[..2].to_vec();
    let mut tree = Frontier::default();
    for seq in 1..=ENTRIES {
        let entry = entry(seq, Some("{}".to_owned()));
        tree.push(entry.leaf);
        forged.push(text(&Line::entry(entry)));
    }
    forged.push(text(&Line::Head { jws: head(&setting.key, &tree, "acme") }));
    assert!(setting.check(&forged).is_ok());
    assert!(check(Some(setting.keys()), &forged, Some(&kept)).is_err());
}

#[test]
fn heads_of_others_and_by_others_are_refused() {
    let setting = Setting::new();
    let other = Setting::new();
    // Signed by somebody who calls a key by the same name.
    assert!(check(Some(setting.keys()), &other.lines, None).is_err());
    assert!(check(None, &other.lines, Some(&setting.last_head())).is_err());
    let mut tree = Frontier::default();
    tree.push(entry(1, Some(body(1))).leaf);
    let mut lines = setting.lines[..3].to_vec();
    lines.push(text(&Line::Head { jws: head(&setting.key, &tree, "globex") }));
    assert!(setting.check(&lines).is_err());
    let unsigned = head(&setting.key, &tree, "acme").rsplit_once('.').unwrap().0.to_owned() + ".";
    for jws in
        [String::new(), ".".to_owned(), "..".to_owned(), unsigned, "a.b.c.d".to_owned(), "a".repeat(9000)]
    {
        let mut lines = setting.lines[..3].to_vec();
        lines.push(text(&Line::Head { jws }));
        assert!(setting.check(&lines).is_err());
    }
    // A token of the same key is no head.
    let claims = json!({"iss": "x", "org": "acme", "size": 1, "root": tree.root(), "at": 1});
    let token = setting
        .key
        .raw(&json!({"alg": "EdDSA", "kid": "k", "typ": "at+jwt"}).to_string(), &claims.to_string());
    lines.pop();
    lines.push(text(&Line::Head { jws: token }));
    assert!(setting.check(&lines).is_err());
    assert!(setting.check(&[]).is_err() && setting.check(&setting.lines[2..]).is_err());
}

/// What retention leaves in the log, signed for this organization with this `typ`.
fn reason(key: &TestKey, typ: &str, org: &str, up_to: u64) -> String {
    reason_before(key, typ, org, up_to, SIGNED)
}

fn reason_before(key: &TestKey, typ: &str, org: &str, up_to: u64, before: u64) -> String {
    let header = json!({"alg": "EdDSA", "kid": "k", "typ": typ}).to_string();
    let claims = json!({"iss": "https://auth.example", "org": org, "up_to": up_to, "before": before});
    let signed = key.raw(&header, &claims.to_string());
    json!({"kind": "audit.bodies_dropped", "context": {"up_to": up_to, "signed": signed}}).to_string()
}

/// A log without its first bodies, and what its last entry says about them.
fn dropped(count: u64, reason: impl FnOnce(&TestKey) -> String) -> Setting {
    let key = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let reason = reason(&key);
    let entries = (1..=ENTRIES).map(|seq| match seq {
        ENTRIES => entry(seq, Some(reason.clone())),
        seq => entry(seq, (seq > count).then(|| body(seq))),
    });
    let entries = entries.collect();
    Setting::of(key, entries)
}

#[test]
fn missing_bodies_need_a_reason_in_the_log() {
    let whole = dropped(9, |key| reason(key, DROP_TYPE, "acme", 9));
    assert_eq!(whole.check(&whole.lines).unwrap().dropped, 9);
    let more = dropped(9, |key| reason(key, DROP_TYPE, "acme", 7));
    let finding = more.check(&more.lines).unwrap_err();
    assert_eq!((finding.first, finding.last), (8, 9));
    let mut lines = whole.lines.clone();
    lines[whole.line(20)] = text(&Line::entry(entry(20, None)));
    assert_eq!(whole.check(&lines).unwrap_err().first, 20);
}

/// The ninth entry was numbered after the head of eight was signed, so it is not older than that.
#[test]
fn a_reason_that_a_head_contradicts_explains_nothing() {
    let of =
        |count: u64, before: u64| dropped(count, |key| reason_before(key, DROP_TYPE, "acme", count, before));
    for (count, before, is_good) in [
        (9, SIGNED + DAY, true),
        (9, SIGNED - DAY + 1, true),
        (9, SIGNED - DAY, false),
        (9, 0, false),
        (8, SIGNED - DAY, false),
        // No head is about less.
        (1, 0, true),
        (1, u64::MAX, true),
    ] {
        let setting = of(count, before);
        match setting.check(&setting.lines) {
            Ok(report) => assert!(is_good && report.dropped == count, "{count} {before}"),
            Err(finding) => {
                assert!(!is_good, "{count} {before}: {finding}");
                assert_eq!((finding.first, finding.last), (1, count), "{finding}");
                assert!(finding.problem.contains("contradicts"), "{finding}");
            }
        }
    }
    // Those who took the heads away have not got the one that was kept.
    let setting = of(9, SIGNED - DAY);
    let kept = Line::parse(setting.lines[setting.line(8) + 1].as_bytes()).unwrap();
    let Line::Head { jws: kept } = kept else { panic!("{kept:?}") };
    let is_early = |at: usize, line: &str| at < setting.line(9) && line.starts_with("{\"type\":\"head\"");
    let left = setting.lines.iter().enumerate().filter(|(at, line)| !is_early(*at, line));
    let left: Vec<_> = left.map(|(_, line)| line.clone()).collect();
    assert_eq!(setting.check(&left).unwrap().dropped, 9);
    let finding = check(Some(setting.keys()), &left, Some(&kept)).unwrap_err();
    assert!(finding.problem.contains("contradicts"), "{finding}");
}

#[test]
fn a_reason_that_the_server_did_not_sign_explains_nothing() {
    let other = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let unsigned = json!({"kind": "audit.bodies_dropped", "context": {"up_to": 9}}).to_string();
    for forged in [
        dropped(9, |_| unsigned),
        dropped(9, |_| reason(&other, DROP_TYPE, "acme", 9)),
        dropped(9, |key| reason(key, HEAD_TYPE, "acme", 9)),
        dropped(9, |key| reason(key, DROP_TYPE, "globex", 9)),
        dropped(9, |key| reason(key, DROP_TYPE, "acme", ENTRIES)),
        dropped(9, |key| reason(key, DROP_TYPE, "acme", 9).replace("audit.bodies_dropped", "agent.action")),
    ] {
        let finding = forged.check(&forged.lines).unwrap_err();
        assert_eq!((finding.first, finding.last), (1, 9), "{finding}");
    }
}

#[test]
fn heads_beyond_the_last_entry_show_that_the_end_was_cut_off() {
    let setting = Setting::new();
    // What the server has signed, and no longer the entries.
    let cut = |size: u64| {
        let at = setting.line(size) + 2;
        let heads = setting.lines[at..].iter().filter(|line| line.starts_with("{\"type\":\"head\""));
        setting.lines[..at].iter().chain(heads).cloned().collect::<Vec<_>>()
    };
    for size in HEADS.into_iter().filter(|size| *size < ENTRIES) {
        let finding = setting.check(&cut(size)).unwrap_err();
        assert_eq!((finding.first, finding.last), (size + 1, ENTRIES), "{finding}");
        assert!(finding.problem.contains("cut off"), "{finding}");
    }
    // An entry of another organization in the place of one's own.
    let mut lines = setting.lines.clone();
    let at = lines.len() - 2;
    let Line::Entry { seq, event_id, at: when, body: Some(body), .. } =
        Line::parse(lines[at].as_bytes()).unwrap()
    else {
        panic!("{}", lines[at]);
    };
    let leaf = entry_leaf(&OrgId::parse("globex").unwrap(), seq, event_id, time(when), body.as_bytes());
    lines[at] = text(&Line::Entry { seq, event_id, at: when, body: Some(body), leaf });
    assert_eq!(setting.check(&lines).unwrap_err().first, ENTRIES);
}

/// What somebody does to a file. The numbers choose where; nothing happens to keys, which are given to the verifier.
#[derive(Clone, Copy, Debug)]
enum Tampering {
    Byte(u8),
    Swap(u16),
    Remove,
    Duplicate,
    Move(u16),
    Forge(u64),
    DropBody,
    Cut,
}

fn tamperings() -> impl Strategy<Value = (u16, u16, Tampering)> {
    let kind = prop_oneof![
        4 => (1..=u8::MAX).prop_map(Tampering::Byte),
        2 => any::<u16>().prop_map(Tampering::Swap),
        1 => Just(Tampering::Remove),
        1 => Just(Tampering::Duplicate),
        2 => any::<u16>().prop_map(Tampering::Move),
        2 => any::<u64>().prop_map(Tampering::Forge),
        1 => Just(Tampering::DropBody),
        1 => Just(Tampering::Cut),
    ];
    (any::<u16>(), any::<u16>(), kind)
}

fn tampered(setting: &Setting, (place, byte, how): (u16, u16, Tampering)) -> Vec<String> {
    let mut lines = setting.lines.clone();
    // After the line about the log and the key.
    let pick = |n: u16| 2 + usize::from(n) % (setting.lines.len() - 2);
    let at = pick(place);
    let forged = |body: Option<String>| {
        move |line: Line| match line {
            Line::Entry { seq, .. } => text(&Line::entry(entry(seq, body))),
            other => text(&other),
        }
    };
    match how {
        Tampering::Byte(change) => {
            let mut bytes = lines[at].clone().into_bytes();
            let n = usize::from(byte) % bytes.len();
            bytes[n] ^= change;
            lines[at] = String::from_utf8_lossy(&bytes).into_owned();
        }
        Tampering::Swap(other) => lines.swap(at, pick(other)),
        Tampering::Remove => drop(lines.remove(at)),
        Tampering::Duplicate => lines.insert(at, lines[at].clone()),
        Tampering::Move(to) => {
            let line = lines.remove(at);
            lines.insert((2 + usize::from(to) % (lines.len() - 1)).min(lines.len()), line);
        }
        Tampering::Forge(n) => {
            lines[at] = forged(Some(json!({"n": n}).to_string()))(Line::parse(lines[at].as_bytes()).unwrap());
        }
        Tampering::DropBody => lines[at] = forged(None)(Line::parse(lines[at].as_bytes()).unwrap()),
        Tampering::Cut => lines.truncate(at),
    }
    lines
}

#[test]
fn ten_thousand_edits_swaps_and_cuts_are_found() {
    let setting = Setting::new();
    let kept = setting.last_head();
    let config = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let all = runner.run(&tamperings(), |tampering| {
        let lines = tampered(&setting, tampering);
        let found = check(Some(setting.keys()), &lines, Some(&kept));
        let whole = found.is_ok();
        // Heads say the same thing twice, so one that is missing in the middle takes nothing away.
        let entries = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !line.starts_with("{\"type\":\"head\"")).cloned().collect()
        };
        let heads_are_true = lines.iter().all(|line| setting.lines.contains(line));
        let harmless = heads_are_true && entries(&lines) == entries(&setting.lines);
        prop_assert!(whole == (lines == setting.lines) || (whole && harmless), "{tampering:?} {whole}");
        if let Err(finding) = found {
            // The entry at the first line that is not what it was, or one since the last head before that line.
            let same = lines.iter().zip(&setting.lines).take_while(|(one, other)| one == other).count();
            let (mut entries, mut agreed) = (0, 0);
            for line in &setting.lines[..same] {
                match Line::parse(line.as_bytes()).unwrap() {
                    Line::Entry { seq, .. } => entries = seq,
                    Line::Head { .. } => agreed = entries,
                    _ => {}
                }
            }
            let named = agreed + 1..=entries + 1;
            prop_assert!(named.contains(&finding.first), "{tampering:?} {named:?} {finding}");
        }
        Ok(())
    });
    all.unwrap();
}
