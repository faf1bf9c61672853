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
    keys::LocalSigner,
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

/// The shortest of some rounds over `work`, per call: the time without what else the machine does.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(rounds: usize, mut prepare: impl FnMut() -> Vec<Box<dyn FnOnce()>>) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let work = prepare();
        let count = u32::try_from(work.len()).unwrap();
        let started = Instant::now();
        for call in work {
            call();
        }
        best = best.min(started.elapsed() / count);
    }
    best
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
    sign.bench_function("bare ed25519", |b| b.iter(|| bare.sign(black_box(text))));
    let headers = Setting::fields();
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        sign.bench_function(profile.name(), |b| b.iter(|| setting.sign(&profile, black_box(&headers))));
    }
    sign.finish();
    criterion.final_summary();

    // Beside each other and by the same clock, for the ratio.
    const CALLS: usize = 500;
    let repeat = |call: fn(&'static Setting, &'static SigningKey, &'static [u8])| {
        time(20, || {
            (0..CALLS).map(|_| Box::new(move || call(setting, bare, text)) as Box<dyn FnOnce()>).collect()
        })
    };
    let bare_verify = time(20, || {
        (0..CALLS)
            .map(|_| {
                let check = move || bare.verifying_key().verify_strict(black_box(text), &signature).unwrap();
                Box::new(check) as Box<dyn FnOnce()>
            })
            .collect()
    });
    let bare_sign = repeat(|_, bare, text| _ = black_box(bare.sign(black_box(text))));
    let whole_sign =
        repeat(|setting, _, _| _ = black_box(setting.sign(&Profile::LUMO_SDK, &Setting::fields())));
    let store: &'static MemoryStore = Box::leak(Box::new(MemoryStore::new()));
    let whole_verify = time(20, || {
        (0..CALLS)
            .map(|_| {
                let headers = setting.signed(&Profile::LUMO_SDK);
                Box::new(move || setting.verify(&headers, store)) as Box<dyn FnOnce()>
            })
            .collect()
    });
    let ratio = |whole: Duration, bare: Duration| whole.as_secs_f64() / bare.as_secs_f64();
    println!(
        "verify: whole {whole_verify:?}, bare {bare_verify:?}, ratio {:.2}",
        ratio(whole_verify, bare_verify)
    );
    println!("sign: whole {whole_sign:?}, bare {bare_sign:?}, ratio {:.2}", ratio(whole_sign, bare_sign));
}
