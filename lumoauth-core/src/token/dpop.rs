//! DPoP (RFC 9449): proof that whoever sends a request holds the key that its token is bound to.
//!
//! A proof is a JWT of its own for each request. [`read`] makes all checks of section 4.3 that need nothing but the request:
//!
//! 1. There is exactly one `DPoP` header, of at most 8 KiB; header and claims are strict JSON. `typ` is `dpop+jwt`, `alg` one
//!    of [`JwsAlgorithm`] (all asymmetric), and `crit`, `b64` and `zip` are refused.
//! 2. `jwk` is a usable public key without private members, fits `alg`, and made the signature.
//! 3. `htm` and `htu` are method and address of this request. Addresses are compared without query and fragment, schemes
//!    and hosts in lower case and without their default port, paths as they were sent.
//! 4. `iat` is at most a minute away, either way. `exp` and `nbf`, if they are there, hold.
//! 5. With a token, `ath` is its digest. Whether the key is the token's is for whoever knows the token to say.
//!
//! What that gives can be used once ([`Proof::once`]): its `jti` is remembered for its key until its time is over, after
//! everything else has passed, so nobody else can use it up. Servers give no nonces (section 8).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};

use super::{InvalidToken, jwt::split};
use crate::{
    clock::Timestamp,
    id::OrgId,
    json,
    jwks::{JwsAlgorithm, PublicKey, Thumbprint},
    secret::sha256,
    store::{Remembered, ReplayStore, StoreError},
};

/// The longest proof, in bytes: one with an RSA key of 8192 bits fits.
const MAX_BYTES: usize = 8 * 1024;

/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;

/// How far from ours the clock of whoever made the proof may be, and how long a proof may take to arrive, in seconds.
const WINDOW: u64 = 60;

/// The values of `dpop_signing_alg_values_supported` (section 5.1).
pub const DPOP_ALGORITHMS: [JwsAlgorithm; 9] = JwsAlgorithm::ALL;

/// A request as it arrived, as far as a proof is about it.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "transports build it")]
pub struct DpopRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, as it arrived: the server puts its public URL before it.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
}

impl<'a> DpopRequest<'a> {
    /// Whether the request has a proof, or something in the place of one.
    pub fn has_proof(&self) -> bool {
        self.headers.contains_key("dpop")
    }

    /// The one `DPoP` header.
    fn proof(&self) -> Result<&'a str, InvalidProof> {
        let mut proofs = self.headers.get_all("dpop").iter().map(HeaderValue::to_str);
        match (proofs.next(), proofs.next()) {
            (Some(Ok(proof)), None) => Ok(proof),
            (None, _) => Err(InvalidProof::Missing),
            (Some(_), _) => Err(InvalidProof::Header),
        }
    }
}

/// Proofs are no secrets, but they are as good as one for a minute.
impl std::fmt::Debug for DpopRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DpopRequest")
            .field("method", self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Why a proof proves nothing. For the log; clients only learn that it is not acceptable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidProof {
    #[error("there is no DPoP header")]
    Missing,
    #[error("the DPoP header is there twice, or not text")]
    Header,
    #[error("the proof is not acceptable: {0}")]
    Token(#[from] InvalidToken),
    #[error("the proof has no usable public key")]
    Key,
    #[error("the proof is for another method")]
    Method,
    #[error("the proof is for another address")]
    Address,
    #[error("the proof is for another token")]
    OtherToken,
    #[error("the proof is not of this minute")]
    Time,
    #[error("the proof has no usable jti")]
    Jti,
    #[error("the proof is by another key than the token's")]
    OtherKey,
    #[error("the proof was used before")]
    Replayed,
    #[error("the proof may have been used before this server began to remember")]
    TooOld,
    /// The only one that is no refusal.
    #[error("store")]
    Store(#[from] StoreError),
}

/// A proof that has passed everything but the question whether it was used before.
#[derive(Debug)]
#[must_use]
pub(crate) struct Proof {
    key: Thumbprint,
    jti: String,
    issued_at: u64,
}

/// The proof that `request`, which arrived at `public_url`, carries: for `token`, if there is one already.
///
/// # Errors
/// [`InvalidProof`] says which check failed.
pub(crate) fn read(
    request: DpopRequest<'_>,
    public_url: &str,
    token: Option<&str>,
    now: Timestamp,
) -> Result<Proof, InvalidProof> {
    let text = request.proof()?;
    if text.len() > MAX_BYTES {
        return Err(InvalidToken::TooLong.into());
    }
    let (signed, header, payload, signature) = split(text)?;
    let (algorithm, key) = signer(&header)?;
    let claims: Map<String, Value> = json::parse(&payload).map_err(|_| InvalidToken::Malformed)?;
    let claimed = |name: &str| claims.get(name).and_then(Value::as_str);
    if claimed("htm") != Some(request.method.as_str()) {
        return Err(InvalidProof::Method);
    }
    let address = format!("{public_url}{}", request.path);
    if claimed("htu").and_then(place).is_none_or(|place| Some(place) != self::place(&address)) {
        return Err(InvalidProof::Address);
    }
    if token.is_some_and(|token| claimed("ath") != Some(&*URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())))) {
        return Err(InvalidProof::OtherToken);
    }
    let issued_at = check_times(&claims, now.unix_seconds())?;
    let jti = claimed("jti").filter(|jti| !jti.is_empty() && jti.len() <= MAX_JTI_BYTES);
    let jti = jti.ok_or(InvalidProof::Jti)?.to_owned();
    if !key.verify(algorithm, signed.as_bytes(), &signature) {
        return Err(InvalidToken::Signature.into());
    }
    Ok(Proof { key: key.thumbprint(), jti, issued_at })
}

/// What the header of a proof says it is signed by.
fn signer(header: &[u8]) -> Result<(JwsAlgorithm, PublicKey), InvalidProof> {
    let header: Map<String, Value> = json::parse(header).map_err(|_| InvalidToken::Malformed)?;
    if header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
        return Err(InvalidToken::WrongType.into());
    }
    if ["crit", "b64", "zip"].iter().any(|name| header.contains_key(*name)) {
        return Err(InvalidToken::Header.into());
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(JwsAlgorithm::from_wire);
    let algorithm = algorithm.ok_or(InvalidToken::Algorithm)?;
    let key = header.get("jwk").and_then(PublicKey::from_jwk);
    let key = key.filter(|key| key.verifies_by(algorithm)).ok_or(InvalidProof::Key)?;
    Ok((algorithm, key))
}

/// The `iat`, if its time is now.
fn check_times(claims: &Map<String, Value>, now: u64) -> Result<u64, InvalidProof> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(InvalidProof::Time),
    };
    let (iat, exp, nbf) = (time("iat")?.ok_or(InvalidProof::Time)?, time("exp")?, time("nbf")?);
    let over = exp.is_some_and(|exp| exp <= now);
    let early = nbf.is_some_and(|nbf| nbf > now + WINDOW);
    if iat.abs_diff(now) > WINDOW || over || early {
        return Err(InvalidProof::Time);
    }
    Ok(iat)
}

/// Origin and path of an address, the origin in its one form (RFC 3986 section 6.2.3); `None` if it is no address of HTTP.
fn place(address: &str) -> Option<(String, &str)> {
    let address = &address[..address.find(['?', '#']).unwrap_or(address.len())];
    let (scheme, rest) = address.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let port = match &*scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let host = host.strip_suffix(port).or_else(|| host.strip_suffix(':')).unwrap_or(&host);
    Some((format!("{scheme}://{host}"), if path.is_empty() { "/" } else { path }))
}

impl Proof {
    /// The same, if this key made it.
    ///
    /// # Errors
    /// [`InvalidProof::OtherKey`] if another one did.
    pub(crate) fn by(self, key: Thumbprint) -> Result<Self, InvalidProof> {
        if self.key == key { Ok(self) } else { Err(InvalidProof::OtherKey) }
    }

    /// Uses it up, and gives the key that made it.
    ///
    /// # Errors
    /// [`InvalidProof::Replayed`] or [`InvalidProof::TooOld`] if it may have been used before, [`InvalidProof::Store`] if
    /// nobody can say.
    pub(crate) async fn once(
        self,
        store: &dyn ReplayStore,
        org: &OrgId,
        now: Timestamp,
    ) -> Result<Thumbprint, InvalidProof> {
        let mark = sha256(&[&self.key.as_bytes()[..], self.jti.as_bytes()].concat());
        let earliest = Timestamp::from_unix_seconds(self.issued_at.saturating_sub(WINDOW));
        // The last second of its window is a whole one.
        let until = Timestamp::from_unix_seconds(self.issued_at + WINDOW + 1);
        match store.remember(org, "dpop", &mark, earliest, until, now).await? {
            Remembered::First => Ok(self.key),
            Remembered::Replay => Err(InvalidProof::Replayed),
            Remembered::TooOld => Err(InvalidProof::TooOld),
        }
    }
}
