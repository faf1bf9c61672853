//! A signed request, verified and made, beside the bare Ed25519 operation that it cannot do without.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the ratio is what it is for")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion};
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::FutureExt;
use http::{HeaderMap, Method};
use lumoauth_core::{
    clock::Timestamp,
    httpsig::{self, Accept, Content, Message, Profile, SignWith},
    id::{KeyId, OrgId},
    jwks::PublicKey,
    keys::{LocalSigner, Signer},
    store::MemoryStore,
};

const SEED: [u8; 32] = [7; 32];
/// As early as the signature may be received: then a memory that was made just now remembers all there is.
const NOW: u64 = 1_750_000_000;
const CREATED: u64 = NOW + 60;

/// A request with 600 bytes of content and the fields that such requests have.
struct Setting {
    signer: LocalSigner,
    key: PublicKey,
    body: Vec<u8>,
    accept: Accept,
    org: OrgId,
}

impl Setting {
    fn new() -> Self {
        let signer = LocalSigner::from_ed25519_seed(KeyId::parse("k").unwrap(), &SEED).unwrap();
        let key = signer.public_key().unwrap();
        let accept = Accept::at(["auth.acme.test"]);
        Self { signer, key, body: vec![b'x'; 600], accept, org: OrgId::parse("acme-corp").unwrap() }
    }

    fn message<'a>(&'a self, headers: &'a HeaderMap) -> Message<'a> {
        Message {
            method: &Method::POST,
            scheme: "https",
            authority: "auth.acme.test",
            path: "/orgs/acme-corp/api/v1/aauth/agent/token",
            query: None,
            headers,
            content: Content::Bytes(&self.body),
        }
    }

    fn fields() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("authorization", format!("Bearer {}", "t".repeat(400)).parse().unwrap());
        headers
    }

    /// The fields of a request with a nonce of its own.
    fn signed(&self, profile: &Profile) -> HeaderMap {
        let mut headers = Self::fields();
        self.sign(profile, &headers.clone()).insert_into(&mut headers);
        headers
    }

    fn sign(&self, profile: &Profile, headers: &HeaderMap) -> httpsig::SignedHeaders {
        let message = self.message(headers);
        let with = SignWith::now(Timestamp::from_unix_seconds(CREATED));
        httpsig::sign(&self.signer, profile, &message, with).now_or_never().unwrap().unwrap()
    }

    fn verify(&self, headers: &HeaderMap, store: &MemoryStore) {
        let now = Timestamp::from_unix_seconds(NOW);
        let verified =
            httpsig::read(&self.message(headers), &self.accept, now).unwrap().verify(&self.key).unwrap();
        let request = verified.once(store, &self.org, now).now_or_never().unwrap().unwrap();
        black_box(request.thumbprint());
    }
}

/// A signature by the very key that signs requests.
fn sign_bare(setting: &Setting, text: &[u8]) -> Vec<u8> {
    setting.signer.sign(text).now_or_never().unwrap().unwrap()
}

/// Calls that are ready to be timed.
type Calls = Vec<Box<dyn FnOnce()>>;

/// Calls in a round.
const CALLS: usize = 500;

fn calls<F: FnOnce() + 'static>(mut prepare: impl FnMut() -> F) -> Calls {
    (0..CALLS).map(|_| Box::new(prepare()) as Box<dyn FnOnce()>).collect()
}

/// Prints the shortest round of the bare operation and of the whole, per call, taken in turns: so what else the machine does
/// slows both.
fn compare(name: &str, bare: impl Fn() -> Calls, whole: impl Fn() -> Calls) {
    let (mut by_bare, mut by_whole) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        by_bare = by_bare.min(time(bare()));
        by_whole = by_whole.min(time(whole()));
    }
    let ratio = by_whole.as_secs_f64() / by_bare.as_secs_f64();
    println!("{name}: whole {by_whole:?}, bare {by_bare:?}, ratio {ratio:.2}");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(calls: Calls) -> Duration {
    let started = Instant::now();
    for call in calls {
        call();
    }
    started.elapsed() / u32::try_from(CALLS).unwrap()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let setting: &'static Setting = Box::leak(Box::new(Setting::new()));
    let bare: &'static SigningKey = Box::leak(Box::new(SigningKey::from_bytes(&SEED)));
    // As long as the text that is signed of the request.
    let text: &'static [u8] = vec![b'x'; 900].leak();
    let signature = bare.sign(text);

    let mut verify = criterion.benchmark_group("httpsig verify");
    verify.bench_function("bare ed25519", |b| {
        b.iter(|| bare.verifying_key().verify_strict(black_box(text), &signature).unwrap());
    });
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let store = MemoryStore::new();
        verify.bench_function(profile.name(), |b| {
            b.iter_batched(
                || setting.signed(&profile),
                |headers| setting.verify(&headers, &store),
                BatchSize::SmallInput,
            );
        });
    }
    verify.finish();

    let mut sign = criterion.benchmark_group("httpsig sign");
    sign.bench_function("bare ed25519", |b| b.iter(|| sign_bare(setting, black_box(text))));
    let headers = Setting::fields();
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        sign.bench_function(profile.name(), |b| b.iter(|| setting.sign(&profile, black_box(&headers))));
    }
    sign.finish();
    criterion.final_summary();

    let store: &'static MemoryStore = Box::leak(Box::new(MemoryStore::new()));
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let check = move || bare.verifying_key().verify_strict(black_box(text), &signature).unwrap();
        compare(
            &format!("verify {}", profile.name()),
            || calls(|| check),
            || {
                calls(|| {
                    let headers = setting.signed(&profile);
                    move || setting.verify(&headers, store)
                })
            },
        );
        compare(
            &format!("sign {}", profile.name()),
            || calls(|| || _ = black_box(sign_bare(setting, black_box(text)))),
            || {
                calls(|| {
                    let headers = Setting::fields();
                    move || _ = black_box(setting.sign(&profile, &headers))
                })
            },
        );
    }
}
