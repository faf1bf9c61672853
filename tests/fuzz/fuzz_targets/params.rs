//! Parameters of OAuth requests, as a form and as JSON. The form is read a second time by the `url` crate.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lumoauth_core::wire::{InvalidParams, Params};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    form(data);
    object(data);
});

fn form(data: &[u8]) {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(data).into_owned().collect();
    match Params::from_form(data) {
        Ok(params) => {
            assert_same(&params, &pairs);
            let printed = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            let again = Params::from_form(printed.as_bytes()).expect("the same parameters");
            assert_same(&again, &pairs);
        }
        Err(InvalidParams::Repeated) => assert!(is_repeated(&pairs)),
        // What comes after the parameters that are read is not looked at.
        Err(InvalidParams::TooMany) => assert!(pairs.len() > Params::MAX),
        // The other reader puts a sign in place of what is not UTF-8.
        Err(_) => {
            assert!(pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}')))
        }
    }
}

fn object(data: &[u8]) {
    let Ok(params) = Params::from_json(data) else { return };
    let members: Map<String, Value> = serde_json::from_slice(data).expect("JSON");
    let mut pairs = Vec::new();
    for (name, value) in &members {
        match value {
            Value::Null => {}
            Value::String(text) => pairs.push((name.clone(), text.clone())),
            Value::Array(items) => {
                pairs.extend(
                    items.iter().map(|item| (name.clone(), item.as_str().expect("a text").to_owned())),
                );
            }
            other => panic!("{other} is no parameter"),
        }
    }
    assert_same(&params, &pairs);
}

fn assert_same(params: &Params, pairs: &[(String, String)]) {
    assert!(pairs.len() <= Params::MAX && !is_repeated(pairs));
    for (name, _) in pairs {
        let expected: Vec<_> = pairs
            .iter()
            .filter(|(n, value)| n == name && !value.is_empty())
            .map(|(_, value)| &**value)
            .collect();
        assert_eq!(params.all(name).collect::<Vec<_>>(), expected);
        assert_eq!(params.get(name), expected.first().copied());
    }
}

fn is_repeated(pairs: &[(String, String)]) -> bool {
    pairs.iter().enumerate().any(|(at, (name, _))| {
        !matches!(&**name, "resource" | "audience") && pairs[..at].iter().any(|(before, _)| before == name)
    })
}
