//! What a signature must cover and say to be accepted: profiles as data.

use std::time::Duration;

use http::{HeaderName, header};

use super::{Component, Message, SignatureError, base, message::one};

/// `Content-Digest` (RFC 9530 section 2).
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// `Signature-Key`: whose key it is, where a sender says that.
pub(super) const SIGNATURE_KEY: HeaderName = HeaderName::from_static("signature-key");

/// A set of rules for signatures. There are two, [`Profile::LUMO_SDK`] and [`Profile::LUMO_RFC`].
///
/// Which one a signature is under is decided by the form of its covered list and the names of its parameters alone, so that no
/// signature is ever tried under one set of rules after another. The label decides nothing: any will do under either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    name: &'static str,
    coverage: Coverage,
    authority: Authority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    /// These, in this order; then `@query` may follow if there is a query. The parameters are `created` and `nonce`, in
    /// this order. An absent field of `absent_as_empty` is signed as the empty text.
    Exactly { list: &'static [&'static str], absent_as_empty: &'static [&'static str] },
    /// Everything that the meaning of a request hangs on, in any order, and more if the sender likes.
    ByMeaning,
}

/// Which text of the authority is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// The one that the sender wrote.
    AsReceived,
    /// The normalized one of RFC 9421 section 2.2.3.
    Normalized,
}

impl Profile {
    /// As the LumoAuth SDKs sign: seven components in one order, and `created` and `nonce` and nothing else. The same list with
    /// other parameters is no SDK's, and under [`Profile::LUMO_RFC`] where that is accepted.
    ///
    /// It departs from RFC 9421: `signature-key` and `authorization` are covered also if they are absent, as the empty text
    /// (so the two must not be present and empty), and `@authority` is signed as the sender wrote it. Every request has
    /// `Content-Digest` and `Content-Type`, also one without content. `@query` may follow the seven if there is a query;
    /// without it the query is not signed, which [`Signature::covers_query`](super::Signature::covers_query) tells.
    pub const LUMO_SDK: Self = Self {
        name: "lumo-sdk",
        coverage: Coverage::Exactly {
            list: &[
                "@method",
                "@authority",
                "@path",
                "signature-key",
                "content-digest",
                "content-type",
                "authorization",
            ],
            absent_as_empty: &["signature-key", "authorization"],
        },
        authority: Authority::AsReceived,
    };

    /// RFC 9421 as it stands, with what must be covered decided by meaning: the method; authority and path, or the target
    /// URI; the query if there is one; `Content-Digest` and `Content-Type` if there is content; `Authorization` and
    /// `Signature-Key` if they are there. A nonce is required, as a parameter or in a covered `Nonce` field.
    pub const LUMO_RFC: Self =
        Self { name: "lumo-rfc", coverage: Coverage::ByMeaning, authority: Authority::Normalized };

    /// How far `created` may lie back or ahead.
    pub const WINDOW: Duration = Duration::from_secs(60);

    /// A stable name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn authority(&self) -> Authority {
        self.authority
    }

    /// The one of `accepted` whose form a signature with these components and parameters has. An exact form comes before one by
    /// meaning.
    pub(super) fn of<'p>(
        components: &[Component],
        parameters: impl Iterator<Item = &'p str> + Clone,
        accepted: &[Self],
    ) -> Option<Self> {
        let listed = accepted.iter().find(|profile| profile.has_form(components));
        let by_meaning = || accepted.iter().find(|profile| profile.coverage == Coverage::ByMeaning);
        let exact = listed.filter(|profile| profile.check_parameters(parameters).is_ok());
        // A list that fits with parameters that do not is refused for these where nothing else is accepted.
        exact.or_else(by_meaning).or(listed).copied()
    }

    fn has_form(&self, components: &[Component]) -> bool {
        let Coverage::Exactly { list, .. } = self.coverage else { return false };
        let Some((first, rest)) = components.split_at_checked(list.len()) else { return false };
        first.iter().map(Component::as_str).eq(list.iter().copied())
            && matches!(rest, [] | [Component::Query])
    }

    /// Whether an absent field is signed as the empty text.
    pub(super) fn is_empty_if_absent(&self, field: &HeaderName) -> bool {
        match self.coverage {
            Coverage::Exactly { absent_as_empty, .. } => absent_as_empty.contains(&field.as_str()),
            Coverage::ByMeaning => false,
        }
    }

    /// Whether the parameters of a signature may be these.
    pub(super) fn check_parameters<'p>(
        &self,
        mut names: impl Iterator<Item = &'p str>,
    ) -> Result<(), SignatureError> {
        match self.coverage {
            Coverage::Exactly { .. } => {
                let exact = names.next() == Some("created") && names.next() == Some("nonce");
                if exact && names.next().is_none() { Ok(()) } else { Err(SignatureError::Parameters) }
            }
            Coverage::ByMeaning => Ok(()),
        }
    }

    /// Whether `components` cover of `message` what they must.
    pub(super) fn check_coverage(
        &self,
        components: &[Component],
        message: &Message<'_>,
    ) -> Result<(), SignatureError> {
        if self.coverage != Coverage::ByMeaning {
            // The form says all but this.
            let about_nothing = components.contains(&Component::Query) && message.query.is_none();
            return if about_nothing { Err(SignatureError::NoQuery) } else { Ok(()) };
        }
        let require = |condition: bool, name: &'static str| {
            let covered = components.iter().any(|component| component.as_str() == name);
            if !condition || covered { Ok(()) } else { Err(SignatureError::NotCovered(name)) }
        };
        let uri = components.contains(&Component::TargetUri);
        let target = uri || components.contains(&Component::RequestTarget);
        require(true, "@method")?;
        require(!uri, "@authority")?;
        require(!target, "@path")?;
        require(!target && message.query.is_some(), "@query")?;
        let has_content = !message.content.is_empty();
        require(has_content, "content-digest")?;
        require(has_content, "content-type")?;
        require(message.headers.contains_key(header::AUTHORIZATION), "authorization")?;
        require(message.headers.contains_key(SIGNATURE_KEY), "signature-key")
    }

    /// What a signer under this profile covers of `message`.
    pub(super) fn components(&self, message: &Message<'_>) -> Vec<Component> {
        let field = Component::Field;
        let mut components = vec![Component::Method, Component::Authority, Component::Path];
        match self.coverage {
            Coverage::Exactly { .. } => {
                components.extend(
                    [SIGNATURE_KEY, CONTENT_DIGEST, header::CONTENT_TYPE, header::AUTHORIZATION].map(field),
                );
                components.extend(message.query.map(|_| Component::Query));
            }
            Coverage::ByMeaning => {
                // Not where there is none: some verifiers take an absent query for the empty text, and not for `?`.
                components.extend(message.query.map(|_| Component::Query));
                if !message.content.is_empty() {
                    components.extend([CONTENT_DIGEST, header::CONTENT_TYPE].map(field));
                }
                let present = |name: &HeaderName| message.headers.contains_key(name);
                components
                    .extend([header::AUTHORIZATION, SIGNATURE_KEY].into_iter().filter(present).map(field));
            }
        }
        components
    }

    /// Whether a signer adds `Content-Digest`.
    pub(super) fn digests(&self, message: &Message<'_>) -> bool {
        self.coverage != Coverage::ByMeaning || !message.content.is_empty()
    }
}

/// The nonce of a signature that has none of its own: the text of a covered `Nonce` field.
pub(super) fn nonce_field<'m>(
    components: &[Component],
    message: &Message<'m>,
) -> Result<Option<&'m str>, SignatureError> {
    const NONCE: HeaderName = HeaderName::from_static("nonce");
    if !components.contains(&Component::Field(NONCE)) {
        return Ok(None);
    }
    one(message.headers, &NONCE)?.map(|value| base::text(&NONCE, value)).transpose()
}
