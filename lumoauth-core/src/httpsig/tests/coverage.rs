//! What must be covered, and what may be. Every request here is validly signed over what it covers.

use super::support::{AUTHORITY, CREATED, Request, at};
use crate::httpsig::{Accept, Profile, SignatureError, read};

const SDK: Profile = Profile::LUMO_SDK;
const RFC: Profile = Profile::LUMO_RFC;

const SEVEN: [&str; 7] =
    ["@method", "@authority", "@path", "signature-key", "content-digest", "content-type", "authorization"];

fn full() -> Request {
    Request::new().with("authorization", "Bearer t").with("signature-key", "https://agent.example#key-1")
}

#[test]
fn the_sdks_list_is_accepted_with_both_fields_with_one_and_with_none() {
    for request in [
        Request::new(),
        Request::new().with("authorization", "Bearer t"),
        Request::new().with("signature-key", "k"),
        full(),
    ] {
        let verified = request.signed(SDK).check().unwrap();
        assert_eq!(verified.signature().profile(), SDK);
    }
}

#[test]
fn each_of_the_seven_left_out_is_refused() {
    for left_out in SEVEN {
        let list: Vec<_> = SEVEN.into_iter().filter(|name| *name != left_out).collect();
        // The list has the form of the RFC now, where every field is there and must be covered.
        let request = full().covering(RFC, &list);
        refused!(request.check(), SignatureError::NotCovered(name) if name == left_out);
        let only_sdk = Accept::at([AUTHORITY]).with_profiles(&[SDK]);
        refused!(read(&request.message(), &only_sdk, at(CREATED)), SignatureError::Form);
    }
}

#[test]
fn a_covered_field_that_is_absent_is_empty_in_the_sdks_list_only() {
    let mut swapped = SEVEN;
    swapped.swap(3, 6);
    for list in [&swapped[..], &["@authority", "@method", "@path", "authorization"]] {
        // Signed as the SDK signs absent fields; the list is not the SDK's.
        let request = Request::new().covering(SDK, list);
        refused!(request.check(), SignatureError::Absent(_) | SignatureError::NotCovered(_));
    }
    let eighth = Request::new().with("date", "now").covering(SDK, &[&SEVEN[..], &["date"]].concat());
    refused!(eighth.check(), SignatureError::Absent(_));
    for absent in ["content-digest", "content-type"] {
        let request = full().signed(SDK).without(absent);
        refused!(request.check(), SignatureError::Absent(_));
    }
}

#[test]
fn a_field_that_is_present_and_empty_is_not_absent() {
    for name in ["signature-key", "authorization"] {
        let request = Request::new().signed(SDK);
        assert!(request.check().is_ok());
        refused!(request.clone().with(name, "").check(), SignatureError::Empty(_));
        refused!(request.clone().with(name, " \t ").check(), SignatureError::Empty(_));
        refused!(request.with(name, "Bearer t").check(), SignatureError::Invalid);
        let stripped = full().signed(SDK).without(name);
        refused!(stripped.check(), SignatureError::Invalid);
    }
}

#[test]
fn the_sdks_list_may_go_on_with_the_query_if_there_is_one() {
    let with_query = Request::new().query("a=b").signed(SDK);
    assert!(with_query.get("signature-input").contains("\"authorization\" \"@query\")"));
    let verified = with_query.check().unwrap();
    assert_eq!(verified.signature().profile(), SDK);
    assert!(verified.signature().covers_query());
    refused!(with_query.clone().query("a=c").check(), SignatureError::Invalid);
    let gone = Request { query: None, ..with_query };
    refused!(gone.check(), SignatureError::NoQuery);

    // As the Python SDK does it: valid, and the handler is told.
    let without = Request::new().signed(SDK).query("a=b").check().unwrap();
    assert!(!without.signature().covers_query());
}

#[test]
fn by_meaning_any_order_and_more_will_do() {
    let request = || full().query("a=b").with("x-other", "1").with("date", "now");
    for list in [
        &[
            "@query",
            "authorization",
            "content-type",
            "content-digest",
            "@path",
            "@authority",
            "@method",
            "signature-key",
        ][..],
        &["@method", "@target-uri", "content-digest", "content-type", "authorization", "signature-key"],
        &[
            "@method",
            "@authority",
            "@request-target",
            "content-digest",
            "content-type",
            "authorization",
            "signature-key",
        ],
        &[
            "x-other",
            "@method",
            "@scheme",
            "@target-uri",
            "@query",
            "@path",
            "@authority",
            "date",
            "content-digest",
            "content-type",
            "authorization",
            "signature-key",
        ],
    ] {
        let verified = request().covering(RFC, list).check().unwrap();
        assert_eq!(verified.signature().profile(), RFC);
        assert!(verified.signature().covers_query());
        assert_eq!(verified.signature().components().len(), list.len());
        assert!(verified.signature().covers(&http::header::AUTHORIZATION));
    }
    let bare = Request { body: Vec::new(), ..Request::new() };
    let bare = bare.covering(RFC, &["@method", "@authority", "@path"]);
    assert!(bare.check().is_ok(), "no content, no digest");
}

#[test]
fn by_meaning_each_part_left_out_is_refused() {
    let whole = [
        "@method",
        "@authority",
        "@path",
        "@query",
        "content-digest",
        "content-type",
        "authorization",
        "signature-key",
    ];
    for left_out in whole {
        let list: Vec<_> = whole.into_iter().filter(|name| *name != left_out).collect();
        let request = full().query("a=b").covering(RFC, &list);
        refused!(request.check(), SignatureError::NotCovered(name) if name == left_out);
    }
    let request =
        Request::new().covering(RFC, &["@method", "@request-target", "content-digest", "content-type"]);
    refused!(request.check(), SignatureError::NotCovered("@authority"));
    refused!(Request::new().covering(RFC, &[]).check(), SignatureError::NotCovered("@method"));
    // A field that was not there when it was signed.
    let signed = Request::new().signed(RFC);
    refused!(signed.clone().with("authorization", "").check(), SignatureError::NotCovered("authorization"));
    refused!(signed.with("signature-key", "k").check(), SignatureError::NotCovered("signature-key"));
}

#[test]
fn the_profile_is_chosen_by_the_form_and_not_tried() {
    // The seven in order, with a parameter that no SDK sends.
    let alg = sfv::RefBareItem::from(sfv::StringRef::from_str("ed25519").unwrap());
    let created = sfv::RefBareItem::try_from(i64::try_from(CREATED).unwrap()).unwrap();
    let nonce = sfv::RefBareItem::from(sfv::StringRef::from_str(super::support::NONCE).unwrap());
    let parameters = [("created", created), ("nonce", nonce), ("alg", alg)];
    let request = full().saying(RFC, &SEVEN, &parameters);
    assert_eq!(request.check().unwrap().signature().profile(), RFC);
    let only_sdk = Accept::at([AUTHORITY]).with_profiles(&[SDK]);
    refused!(read(&request.message(), &only_sdk, at(CREATED)), SignatureError::Parameters);
    // Nothing is taken for empty then.
    let lacking = Request::new().with("authorization", "Bearer t").saying(SDK, &SEVEN, &parameters);
    refused!(lacking.check(), SignatureError::Absent(_));
    let only_rfc = Accept::at([AUTHORITY]).with_profiles(&[RFC]);
    assert!(read(&request.message(), &only_rfc, at(CREATED)).is_ok());
    let absent = Request::new().signed(SDK);
    refused!(read(&absent.message(), &only_rfc, at(CREATED)), SignatureError::Absent(_));
    let none = Accept::at([AUTHORITY]).with_profiles(&[]);
    refused!(read(&request.message(), &none, at(CREATED)), SignatureError::Form);
}

#[test]
fn what_is_signed_under_a_profile_is_accepted_under_it() {
    for profile in [SDK, RFC] {
        for request in [Request::new(), full(), full().query(""), Request { body: Vec::new(), ..full() }] {
            // The SDKs' list without `@query` does not say whether there was one that somebody took away.
            let shown = profile == RFC || request.query.is_some();
            let verified = request.signed(profile).check().unwrap();
            assert_eq!(verified.signature().profile(), profile);
            assert_eq!(verified.signature().covers_query(), shown);
        }
    }
}

#[test]
fn a_query_that_was_taken_away_or_added_is_noticed() {
    let request = || Request { body: Vec::new(), ..Request::new() };
    let covered = request().query("dry_run=1").signed(RFC);
    refused!(Request { query: None, ..covered }.check(), SignatureError::Invalid);
    refused!(request().signed(RFC).query("dry_run=1").check(), SignatureError::NotCovered("@query"));
    // A signer who does not cover the query that it sends is refused from the first request on.
    let lax = request().query("dry_run=1").covering(RFC, &["@method", "@authority", "@path"]);
    refused!(lax.check(), SignatureError::NotCovered("@query"));
}

#[test]
fn any_label_will_do_under_either_profile() {
    for profile in [SDK, RFC] {
        let mut request = full().signed(profile);
        for name in ["signature-input", "signature"] {
            let value = request.get(name).replacen("sig1=", "x=", 1);
            request = request.with(name, &value);
        }
        let verified = request.check().unwrap();
        assert_eq!((verified.signature().profile(), verified.signature().label()), (profile, "x"));
    }
}

#[test]
fn nothing_printed_for_debugging_has_a_credential() {
    for profile in [SDK, RFC] {
        let mut request = full().query("code=secret").signed(profile).with("authorization", "Bearer secret");
        request.body = b"secret".to_vec();
        let request = request.signed(profile);
        let printed = format!("{:?} {:?}", request.message(), request.read().unwrap());
        assert!(printed.contains(AUTHORITY) && printed.contains("sig1"), "{printed}");
        assert!(!printed.contains("secret") && !printed.contains("115, 101, 99"), "{printed}");
    }
}
