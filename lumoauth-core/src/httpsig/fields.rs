//! Reading and writing the fields (RFC 9651): `Signature-Input` and `Signature`.
//!
//! The parser of the `sfv` crate does it. It keeps the last of two members or parameters of one name, as RFC 9651 says; here
//! they are refused, since whoever reads the fields before or after us may keep the first.

use std::{borrow::Cow, convert::Infallible};

use http::HeaderValue;
use sfv::{
    BareItemFromInput, KeyRef, ListSerializer, Parser, RefBareItem, StringRef,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor},
};

use super::{Component, SignatureError};

/// The longest `Signature-Input` that is read, in bytes.
const MAX_INPUT_BYTES: usize = 4096;
/// The longest `Signature`, in bytes; RSA of 8192 bits takes 1368.
const MAX_SIGNATURE_BYTES: usize = 2048;
/// The most components that a signature may cover.
const MAX_COMPONENTS: usize = 32;

/// One parameter of a signature.
pub(super) type Parameter<'h> = (&'h KeyRef, BareItemFromInput<'h>);

/// What a signature says of itself.
#[derive(Debug, Default)]
pub(super) struct SignatureInput<'h> {
    pub(super) label: &'h str,
    pub(super) components: Vec<Component>,
    /// In the order of the sender, which is part of what is signed.
    pub(super) parameters: Vec<Parameter<'h>>,
}

/// Reads `Signature-Input`.
pub(super) fn signature_input(value: &HeaderValue) -> Result<SignatureInput<'_>, SignatureError> {
    if value.len() > MAX_INPUT_BYTES {
        return Err(SignatureError::TooLong("Signature-Input"));
    }
    let mut reading = Reading { input: SignatureInput::default(), labels: 0, refusal: None };
    let outcome = Parser::new(value.as_bytes()).parse_dictionary_with_visitor(&mut reading);
    if let Some(refusal) = reading.refusal {
        return Err(refusal);
    }
    outcome.map_err(|_| SignatureError::Malformed("Signature-Input"))?;
    if reading.labels == 1 { Ok(reading.input) } else { Err(SignatureError::Labels) }
}

/// Reads `Signature`: its label and the bytes. Standard base64, or the URL alphabet that some senders use against RFC 9651,
/// but not both at once; with or without padding.
pub(super) fn signature(value: &HeaderValue) -> Result<(Box<str>, Vec<u8>), SignatureError> {
    if value.len() > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::TooLong("Signature"));
    }
    let malformed = SignatureError::Malformed("Signature");
    let Ok(text) = value.to_str() else { return Err(malformed) };
    let Some(text) = in_standard_alphabet(text) else { return Err(malformed) };
    let mut members = ByteSequences::default();
    if Parser::new(text.as_bytes()).parse_dictionary_with_visitor(&mut members).is_err() {
        return Err(malformed);
    }
    let Ok([(label, bytes)]) = <[_; 1]>::try_from(members.members) else {
        return Err(SignatureError::Labels);
    };
    bytes.map(|bytes| (label.as_str().into(), bytes)).ok_or(malformed)
}

/// The signature's value, which stands between the first colon and the last, in the standard alphabet. `None` if it mixes
/// alphabets.
fn in_standard_alphabet(text: &str) -> Option<Cow<'_, str>> {
    let (Some(from), Some(to)) = (text.find(':'), text.rfind(':')) else { return Some(text.into()) };
    let value = &text[from..to];
    if !value.contains(['-', '_']) {
        return Some(text.into());
    }
    if value.contains(['+', '/']) {
        return None;
    }
    let value: String = value
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    Some(format!("{}{value}{}", &text[..from], &text[to..]).into())
}

/// The value of `@signature-params`: the list and its parameters as parsed, in the strict form of RFC 9651 section 4.1.
pub(super) fn signature_params<'p>(
    components: &[Component],
    parameters: impl IntoIterator<Item = (&'p KeyRef, RefBareItem<'p>)>,
) -> Result<String, SignatureError> {
    let mut list = ListSerializer::new();
    let mut inner = list.inner_list();
    for component in components {
        let name = StringRef::from_str(component.as_str());
        _ = inner.bare_item(name.map_err(|_| SignatureError::Malformed("Signature-Input"))?).finish();
    }
    let mut serializer = inner.finish();
    for (name, value) in parameters {
        serializer = serializer.parameter(name, value);
    }
    _ = serializer.finish();
    list.finish().ok_or(SignatureError::Malformed("Signature-Input"))
}

/// A visitor ends the parsing; the reason stands in [`Reading::refusal`].
#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(super) struct Refused;

struct Reading<'h> {
    input: SignatureInput<'h>,
    labels: usize,
    refusal: Option<SignatureError>,
}

impl Reading<'_> {
    fn refuse(&mut self, why: SignatureError) -> Refused {
        self.refusal = Some(why);
        Refused
    }
}

impl<'h> DictionaryVisitor<'h> for &mut Reading<'h> {
    type Out = ();
    type Error = Refused;

    fn entry(&mut self, key: &'h KeyRef) -> Result<impl EntryVisitor<'h>, Refused> {
        self.labels += 1;
        if self.labels > 1 {
            return Err(self.refuse(SignatureError::Labels));
        }
        self.input.label = key.as_str();
        Ok(InputEntry(self))
    }

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }
}

struct InputEntry<'r, 'h>(&'r mut Reading<'h>);

impl<'h> EntryVisitor<'h> for InputEntry<'_, 'h> {
    type Error = Refused;

    fn item(self) -> Result<impl ItemVisitor<'h>, Refused> {
        Err::<Ignored, _>(self.0.refuse(SignatureError::Malformed("Signature-Input")))
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'h>, Refused> {
        Ok(self)
    }
}

impl<'h> InnerListVisitor<'h> for InputEntry<'_, 'h> {
    type Error = Refused;

    fn item(&mut self) -> Result<impl ItemVisitor<'h>, Refused> {
        Ok(ComponentItem(self.0))
    }

    fn finish(self) -> Result<impl ParameterVisitor<'h>, Refused> {
        Ok(self)
    }
}

impl<'h> ParameterVisitor<'h> for InputEntry<'_, 'h> {
    type Out = ();
    type Error = Refused;

    fn parameter(&mut self, key: &'h KeyRef, value: BareItemFromInput<'h>) -> Result<(), Refused> {
        let parameters = &mut self.0.input.parameters;
        if parameters.iter().any(|(name, _)| *name == key) {
            return Err(self.0.refuse(SignatureError::ParameterTwice));
        }
        parameters.push((key, value));
        Ok(())
    }

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }
}

struct ComponentItem<'r, 'h>(&'r mut Reading<'h>);

impl<'h> ItemVisitor<'h> for ComponentItem<'_, 'h> {
    type Out = ();
    type Error = Refused;

    fn bare_item(self, item: BareItemFromInput<'h>) -> Result<impl ParameterVisitor<'h, Out = ()>, Refused> {
        let components = &mut self.0.input.components;
        let Some(name) = item.as_string() else {
            return Err(self.0.refuse(SignatureError::Malformed("Signature-Input")));
        };
        let component = match Component::parse(name.as_str()) {
            Ok(component) => component,
            Err(why) => return Err(self.0.refuse(why)),
        };
        if components.contains(&component) {
            return Err(self.0.refuse(SignatureError::CoveredTwice(component.as_str().into())));
        }
        if components.len() == MAX_COMPONENTS {
            return Err(self.0.refuse(SignatureError::TooLong("Signature-Input")));
        }
        components.push(component);
        Ok(self)
    }
}

impl<'h> ParameterVisitor<'h> for ComponentItem<'_, 'h> {
    type Out = ();
    type Error = Refused;

    fn parameter(&mut self, _: &'h KeyRef, _: BareItemFromInput<'h>) -> Result<(), Refused> {
        Err(self.0.refuse(SignatureError::ComponentParameter))
    }

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }
}

/// The members of a dictionary of byte sequences; `None` for a member that is something else. Two of one name are refused.
#[derive(Debug, Default)]
pub(super) struct ByteSequences<'h> {
    pub(super) members: Vec<(&'h KeyRef, Option<Vec<u8>>)>,
}

impl<'h> DictionaryVisitor<'h> for &mut ByteSequences<'h> {
    type Out = ();
    type Error = Refused;

    fn entry(&mut self, key: &'h KeyRef) -> Result<impl EntryVisitor<'h>, Refused> {
        if self.members.iter().any(|(name, _)| *name == key) {
            return Err(Refused);
        }
        self.members.push((key, None));
        Ok(ByteSequence(self))
    }

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }
}

struct ByteSequence<'r, 'h>(&'r mut ByteSequences<'h>);

impl<'h> EntryVisitor<'h> for ByteSequence<'_, 'h> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'h>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'h>, Infallible> {
        Ok(Ignored)
    }
}

impl<'h> ItemVisitor<'h> for ByteSequence<'_, 'h> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'h>,
    ) -> Result<impl ParameterVisitor<'h, Out = ()>, Infallible> {
        if let (Some((_, bytes)), BareItemFromInput::ByteSequence(value)) = (self.0.members.last_mut(), item)
        {
            *bytes = Some(value);
        }
        Ok(Ignored)
    }
}
