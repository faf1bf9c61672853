//! `audit verify`: whether an exported audit log is what was signed. It needs no server, no store and no network.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use lumoauth_core::{
    audit_export::{Finding, Report, Verifier},
    jwks::{JwkSet, PublicKey},
};
use serde_json::Value;

use crate::{cli::AuditVerb, failure::Failure};

/// The longest line that is read: an event is a few kilobytes.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// The longest answer with earlier heads that is read: a thousand of them are half a megabyte. Exports may be longer.
const MAX_HEADS: u64 = 16 * 1024 * 1024;

/// Does it, and prints what came of it.
///
/// # Errors
/// [`Failure`] if the log is not what was signed, or a file cannot be read.
pub(crate) fn run(verb: AuditVerb) -> Result<(), Failure> {
    let AuditVerb::Verify { files, head, jwks, no_jwks: _ } = verb;
    let keys = jwks.as_deref().map(keys_in).transpose()?;
    let earlier = head.as_deref().map(heads_in).transpose()?.unwrap_or_default();
    let text = shown(&verify(&files, keys, &earlier)?, earlier.len());
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::because("cannot print", error))
}

fn verify(
    files: &[impl AsRef<Path>],
    keys: Option<Vec<PublicKey>>,
    earlier: &[String],
) -> Result<Report, Failure> {
    let own_keys = keys.is_none();
    let mut verifier = Verifier::new(keys);
    let mut earlier = Some(earlier);
    let expect = |verifier: &mut Verifier, heads: &[String]| {
        let mut heads = heads.iter();
        heads.try_for_each(|head| verifier.expect(head)).map_err(|finding| bad_head(&finding, own_keys))
    };
    for file in files {
        let file = file.as_ref();
        let mut lines = BufReader::new(opened(file)?);
        while let Some(line) = next_line(&mut lines, file)? {
            // Where the file brings the keys, they come before the first entry.
            if !line.starts_with(br#"{"type":"log""#)
                && !line.starts_with(br#"{"type":"key""#)
                && let Some(heads) = earlier.take()
            {
                expect(&mut verifier, heads)?;
            }
            verifier.line(&line).map_err(bad)?;
        }
    }
    if let Some(heads) = earlier {
        expect(&mut verifier, heads)?;
    }
    verifier.finish().map_err(bad)
}

fn bad(finding: Finding) -> Failure {
    Failure::new(format!("the log is not what was signed: {finding}"))
}

/// Where the file brings the keys, those that come after its first entry are not known yet.
fn bad_head(finding: &Finding, own_keys: bool) -> Failure {
    let hint = if own_keys { " (of those before the first entry; `--jwks` brings all)" } else { "" };
    Failure::new(format!("the earlier head: {}{hint}", finding.problem))
}

fn shown(report: &Report, earlier: usize) -> String {
    let mut text = format!(
        "whole: {} entries of `{}`, {} signed heads agree\nroot {}\n",
        report.entries, report.org, report.heads, report.root
    );
    if report.dropped > 0 {
        text.push_str(&format!(
            "the contents of the first {} were dropped by retention; of them only number and hash are checked\n",
            report.dropped
        ));
    }
    if earlier == 0 {
        text.push_str(
            "note: without an earlier head (--head) nobody can tell whether entries were changed, removed or put there \
             together with the heads about them\n",
        );
    }
    if report.own_keys {
        text.push_str(
            "warning: the keys come from the file itself, so this says nothing about who signed it\n",
        );
    }
    text
}

/// The keys of a JWK set: what `.well-known/audit-jwks.json` serves.
fn keys_in(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    let mut text = Vec::new();
    let limit = u64::try_from(JwkSet::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    opened(path)?.take(limit).read_to_end(&mut text).map_err(|error| unreadable(path, error))?;
    let unusable = || format!("`{}` is not a set of keys", path.display());
    let set = JwkSet::parse(&text).map_err(|error| Failure::because(unusable(), error))?;
    let keys: Vec<_> = set.keys.iter().filter_map(PublicKey::from_jwk).collect();
    if keys.is_empty() { Err(Failure::new(unusable())) } else { Ok(keys) }
}

/// The signed heads of a file: bare, one a line, or in what `tree/head` and `tree/checkpoints` answer, or an older export.
fn heads_in(path: &Path) -> Result<Vec<String>, Failure> {
    let mut file = BufReader::new(opened(path)?);
    let mut heads = Vec::new();
    let begin = file.fill_buf().map_err(|error| unreadable(path, error))?;
    if begin.starts_with(br#"{"type":""#) {
        // An export, of any length.
        while let Some(line) = next_line(&mut file, path)? {
            if line.starts_with(br#"{"type":"head""#) {
                let value = serde_json::from_slice::<Value>(&line);
                let value = value.map_err(|error| Failure::because(unusable(path), error))?;
                collect(&value, &mut heads);
            }
        }
    } else {
        let mut text = String::new();
        let read = file.take(MAX_HEADS + 1).read_to_string(&mut text);
        if read.map_err(|error| unreadable(path, error))? as u64 > MAX_HEADS {
            return Err(Failure::new(format!("`{}` is too long for signed heads", path.display())));
        }
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            collect(&value, &mut heads);
        } else {
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                match serde_json::from_str::<Value>(line) {
                    Ok(value) => collect(&value, &mut heads),
                    Err(_) => heads.push(line.to_owned()),
                }
            }
        }
    }
    if heads.is_empty() {
        return Err(Failure::new(unusable(path)));
    }
    Ok(heads)
}

fn unusable(path: &Path) -> String {
    format!("`{}` has no signed head", path.display())
}

/// The next line, without its line break.
fn next_line(file: &mut impl BufRead, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = file.take(MAX_LINE).read_until(b'\n', &mut line);
    if read.map_err(|error| unreadable(path, error))? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(Failure::new(format!("`{}` ends within a line, or has too long a one", path.display())));
    }
    Ok(Some(line))
}

fn collect(value: &Value, heads: &mut Vec<String>) {
    let data = value.get("data").unwrap_or(value);
    match data {
        Value::Array(all) => all.iter().for_each(|one| collect(one, heads)),
        one => heads.extend(
            ["head", "jws"].iter().filter_map(|name| one.get(*name)?.as_str().map(ToOwned::to_owned)),
        ),
    }
}

fn opened(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::because(format!("cannot read `{}`", path.display()), error)
}
