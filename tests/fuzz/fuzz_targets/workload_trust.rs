//! What administrators say about whom to trust. What is accepted is shown in a form that says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lumoauth_core::{json, workload::WorkloadTrust};
use lumoauth_fuzz::has_floats;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = json::parse::<Value>(data) else { return };
    let Ok(trust) = WorkloadTrust::parse(&value) else { return };
    let shown = trust.view();
    if !has_floats(&value) {
        assert_eq!(WorkloadTrust::parse(&shown).as_ref(), Ok(&trust), "{shown}");
    }
    assert!(!trust.to_string().contains('*'), "{trust}");
});
