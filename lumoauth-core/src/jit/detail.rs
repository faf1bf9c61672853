//! What a permission is for: RFC 9396 authorization details, and which of them another one allows.

use std::{collections::HashMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    approval::{Lines, is_plain, is_plain_json, shows_nothing},
    secret::sha256,
};

/// One element of `authorization_details` (RFC 9396 section 2): an object with a `type`, and whatever that type needs.
///
/// It is kept as it was sent, every member of it: what a person is shown, what is hashed, what stands in a token and what a
/// service reads is one value. Text in it that looks like something else (control characters, marks that turn its direction)
/// is refused, not cleaned.
///
/// ```
/// use lumoauth_core::jit::AuthorizationDetail;
/// use serde_json::json;
///
/// let detail = AuthorizationDetail::new(json!({"type": "file_access", "actions": ["read"], "identifier": "q4.pdf"}))?;
/// assert_eq!(detail.kind(), "file_access");
/// assert_eq!(detail.actions(), ["read"]);
/// assert!(AuthorizationDetail::new(json!({"actions": ["read"]})).is_err());
/// # Ok::<_, lumoauth_core::jit::InvalidDetail>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct AuthorizationDetail(Map<String, Value>);

/// It is not an authorization detail that is accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDetail(&'static str);

impl AuthorizationDetail {
    /// The longest, in bytes of JSON.
    pub const MAX_BYTES: usize = 8192;
    /// The longest `type`, in bytes.
    pub const MAX_TYPE: usize = 256;
    /// The most items of a list that RFC 9396 names.
    pub const MAX_ITEMS: usize = 64;

    /// The detail that this JSON is.
    ///
    /// # Errors
    /// [`InvalidDetail`] with a sentence that is safe to show.
    pub fn new(value: Value) -> Result<Self, InvalidDetail> {
        let Value::Object(members) = value else { return Err(InvalidDetail("must be an object")) };
        match members.get("type") {
            Some(Value::String(kind)) if !shows_nothing(kind) && kind.len() <= Self::MAX_TYPE => {}
            _ => return Err(InvalidDetail("needs a type, which is text of at most 256 bytes")),
        }
        for name in LISTS {
            match members.get(name) {
                // Absent and `null` are the same, also where it is read.
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) => {
                    let is_word = |item: &Value| item.as_str().is_some_and(|text| !shows_nothing(text));
                    if items.len() > Self::MAX_ITEMS || !items.iter().all(is_word) {
                        return Err(InvalidDetail(
                            "has actions, locations, datatypes or privileges that are no list of at most 64 texts",
                        ));
                    }
                }
                Some(_) => {
                    return Err(InvalidDetail(
                        "has actions, locations, datatypes or privileges that are no list of texts",
                    ));
                }
            }
        }
        if members
            .get("identifier")
            .is_some_and(|identifier| !identifier.is_string() && !identifier.is_null())
        {
            return Err(InvalidDetail("has an identifier that is not text"));
        }
        if !members.iter().all(|(name, value)| is_plain(name, Lines::One) && is_plain_json(value)) {
            return Err(InvalidDetail("contains control characters"));
        }
        let detail = Self(members);
        if detail.to_json().to_string().len() > Self::MAX_BYTES {
            return Err(InvalidDetail("is longer than 8192 bytes"));
        }
        Ok(detail)
    }

    /// Its `type`.
    pub fn kind(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// Its `actions`; empty if it says nothing about them.
    pub fn actions(&self) -> Vec<&str> {
        self.list("actions")
    }

    /// Where it is to be used; empty if it says nothing about that.
    pub fn locations(&self) -> Vec<&str> {
        self.list("locations")
    }

    /// Its `datatypes`.
    pub fn datatypes(&self) -> Vec<&str> {
        self.list("datatypes")
    }

    /// Its `privileges`.
    pub fn privileges(&self) -> Vec<&str> {
        self.list("privileges")
    }

    /// The one thing it is about.
    pub fn identifier(&self) -> Option<&str> {
        self.text("identifier")
    }

    /// Every member, those included that only its type knows.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The whole detail as JSON.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member).and_then(Value::as_str)
    }

    fn list(&self, member: &str) -> Vec<&str> {
        let items = self.0.get(member).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// The members that RFC 9396 section 2.2 defines as lists of texts.
const LISTS: [&str; 4] = ["actions", "locations", "datatypes", "privileges"];

impl TryFrom<Value> for AuthorizationDetail {
    type Error = InvalidDetail;

    fn try_from(value: Value) -> Result<Self, InvalidDetail> {
        Self::new(value)
    }
}

impl From<AuthorizationDetail> for Value {
    fn from(detail: AuthorizationDetail) -> Self {
        Self::Object(detail.0)
    }
}

/// Names what exactly was asked for: the SHA-256 of JSON with sorted members and without white space. Two have the same
/// only if nothing in what they name differs, the order of a list included.
///
/// ```
/// use lumoauth_core::jit::ActionHash;
/// use serde_json::json;
///
/// let asked = ActionHash::of(&json!({"actions": ["read"], "type": "file"}));
/// assert_eq!(asked, ActionHash::of(&json!({"type": "file", "actions": ["read"]})));
/// assert_ne!(asked, ActionHash::of(&json!({"type": "file", "actions": ["read", "write"]})));
/// assert_eq!(asked.as_str().len(), 64);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionHash(Arc<str>);

impl ActionHash {
    /// The hash of this JSON.
    pub fn of(action: &Value) -> Self {
        let mut text = String::new();
        write_canonical(action, &mut text);
        let digest = sha256(text.as_bytes());
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            // Sorted here: whether the map is depends on a feature that any crate of the host's tree may switch on.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|one, other| one.0.cmp(other.0));
            text.push('{');
            for (n, (name, value)) in members.into_iter().enumerate() {
                if n > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// Whether one detail allows another of its type. A host may know more about a type than that every member of it counts.
pub trait Containment: fmt::Debug + Send + Sync + 'static {
    /// Whether whoever was granted `granted` may do `wanted`. Both are of the type that the rule was registered for.
    fn allows(&self, granted: &AuthorizationDetail, wanted: &AuthorizationDetail) -> bool;
}

/// What holds for every type without a rule of its own: some of the actions, at some of the locations, and everything else
/// exactly as it was granted. Texts are compared byte by byte: there are no patterns, no paths and no case in them.
///
/// A detail without actions or locations does not mean all of them; it allows only a detail without them.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to set")]
pub struct ExactButForLists;

impl Containment for ExactButForLists {
    fn allows(&self, granted: &AuthorizationDetail, wanted: &AuthorizationDetail) -> bool {
        const SHRINKING: [&str; 2] = ["actions", "locations"];
        let fits = SHRINKING.iter().all(|member| {
            let (granted_list, wanted_list) = (granted.list(member), wanted.list(member));
            match (granted.0.contains_key(*member), wanted.0.contains_key(*member)) {
                (false, false) => true,
                (true, true) => {
                    wanted_list.iter().all(|item| granted_list.contains(item))
                        && (!wanted_list.is_empty() || granted_list.is_empty())
                }
                (true, false) | (false, true) => false,
            }
        });
        let rest = |detail: &AuthorizationDetail| {
            let mut members = detail.0.clone();
            members.retain(|name, _| !SHRINKING.contains(&name.as_str()));
            members
        };
        fits && rest(granted) == rest(wanted)
    }
}

/// The rules by which details allow others, by type.
///
/// ```
/// use lumoauth_core::jit::{AuthorizationDetail, DetailRules};
/// use serde_json::json;
///
/// let rules = DetailRules::default();
/// let detail = |value| AuthorizationDetail::new(value).unwrap();
/// let granted = [detail(json!({"type": "file", "actions": ["read", "list"], "identifier": "a"}))];
/// assert!(rules.allow(&granted, &detail(json!({"type": "file", "actions": ["read"], "identifier": "a"}))));
/// assert!(!rules.allow(&granted, &detail(json!({"type": "file", "actions": ["write"], "identifier": "a"}))));
/// assert!(!rules.allow(&granted, &detail(json!({"type": "file", "actions": ["read"], "identifier": "A"}))));
/// ```
#[derive(Clone, Debug, Default)]
pub struct DetailRules {
    by_type: HashMap<String, Arc<dyn Containment>>,
}

impl DetailRules {
    /// The same, with `rule` for details of this type.
    #[must_use]
    pub fn with_type(mut self, kind: &str, rule: impl Containment) -> Self {
        self.by_type.insert(kind.to_owned(), Arc::new(rule));
        self
    }

    /// Whether one of `granted` allows `wanted`. Details of different types allow each other nothing.
    pub fn allow(&self, granted: &[AuthorizationDetail], wanted: &AuthorizationDetail) -> bool {
        let rule: &dyn Containment =
            self.by_type.get(wanted.kind()).map_or(&ExactButForLists, |rule| &**rule);
        granted.iter().any(|granted| granted.kind() == wanted.kind() && rule.allows(granted, wanted))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn detail(value: Value) -> AuthorizationDetail {
        AuthorizationDetail::new(value).unwrap()
    }

    fn allows(granted: Value, wanted: Value) -> bool {
        DetailRules::default().allow(&[detail(granted)], &detail(wanted))
    }

    #[test]
    fn what_is_no_detail_is_refused() {
        let long = "x".repeat(AuthorizationDetail::MAX_BYTES);
        for bad in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "type": "" }),
            json!({ "type": " " }),
            json!({ "type": 1 }),
            json!({ "type": "x".repeat(257) }),
            json!({ "type": "a", "actions": "read" }),
            json!({ "type": "a", "actions": [1] }),
            json!({ "type": "a", "actions": [""] }),
            json!({ "type": "a", "locations": {} }),
            json!({ "type": "a", "actions": vec!["a"; 65] }),
            json!({ "type": "a", "identifier": 7 }),
            json!({ "type": "a\u{202e}b" }),
            json!({ "type": "a", "note": ["x\u{0}"] }),
            json!({ "type": "a", "x\u{200b}": 1 }),
            json!({ "type": "a", "text": long }),
        ] {
            assert!(AuthorizationDetail::new(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_member_is_kept() {
        let value = json!({ "type": "payment", "amount": "12.50", "creditor": { "iban": "x" }, "n": null });
        assert_eq!(detail(value.clone()).to_json(), value);
        let text = serde_json::to_string(&detail(value.clone())).unwrap();
        assert_eq!(serde_json::from_str::<AuthorizationDetail>(&text).unwrap(), detail(value));
    }

    #[test]
    fn a_number_is_the_same_after_any_number_of_readings() {
        for number in
            ["122.558238113021936", "9.970685969649458e-10", "0.1", "1e23", "-0.0", "18446744073709551616"]
        {
            let text = format!(r#"{{"type":"transfer","rate":{number}}}"#);
            let once: AuthorizationDetail = serde_json::from_str(&text).unwrap();
            let again: AuthorizationDetail = serde_json::from_str(&once.to_json().to_string()).unwrap();
            assert_eq!(ActionHash::of(&once.to_json()), ActionHash::of(&again.to_json()), "{number}");
            assert_eq!(once, again, "{number}");
        }
    }

    #[test]
    fn tricks_with_what_was_granted_are_seen() {
        let granted = json!({ "type": "file", "actions": ["read"], "identifier": "docs/q4.pdf",
                              "locations": ["https://files.test/a"], "amount": 10 });
        assert!(allows(granted.clone(), granted.clone()));
        for (member, value) in [
            ("actions", json!(["read", "write"])),
            ("actions", json!(["Read"])),
            ("actions", json!(["*"])),
            ("actions", json!([])),
            ("identifier", json!("docs/*")),
            ("identifier", json!("docs/../q4.pdf")),
            ("identifier", json!("docs/./q4.pdf")),
            ("identifier", json!("docs/Q4.pdf")),
            ("identifier", json!("docs/q4.pdf/")),
            ("identifier", json!("docs%2Fq4.pdf")),
            ("locations", json!(["https://files.test/a/"])),
            ("locations", json!(["https://files.test"])),
            ("locations", json!(["https://FILES.test/a"])),
            ("locations", json!([])),
            ("amount", json!(11)),
            ("amount", json!("10")),
            ("privileges", json!(["admin"])),
            ("type", json!("File")),
            ("extra", json!(null)),
        ] {
            let mut wanted = granted.clone();
            wanted[member] = value.clone();
            assert!(!allows(granted.clone(), wanted), "{member} {value}");
        }
        for member in ["actions", "identifier", "locations", "amount"] {
            let mut wanted = granted.clone();
            wanted.as_object_mut().unwrap().remove(member);
            assert!(!allows(granted.clone(), wanted.clone()), "{member}");
            assert!(!allows(wanted, granted.clone()), "{member}");
        }
    }

    #[test]
    fn a_type_may_have_a_rule_of_its_own() {
        #[derive(Debug)]
        struct Prefix;
        impl Containment for Prefix {
            fn allows(&self, granted: &AuthorizationDetail, wanted: &AuthorizationDetail) -> bool {
                let path = |detail: &AuthorizationDetail| detail.identifier().unwrap_or_default().to_owned();
                path(wanted).strip_prefix(&path(granted)).is_some_and(|rest| rest.starts_with('/'))
            }
        }
        let rules = DetailRules::default().with_type("tree", Prefix);
        let granted = [detail(json!({ "type": "tree", "identifier": "a" }))];
        assert!(rules.allow(&granted, &detail(json!({ "type": "tree", "identifier": "a/b" }))));
        assert!(!rules.allow(&granted, &detail(json!({ "type": "tree", "identifier": "ab" }))));
        assert!(!rules.allow(&granted, &detail(json!({ "type": "file", "identifier": "a/b" }))));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_back_has_the_same_hash(value in json_value(), number in any::<f64>()) {
            let value = json!([value, number]);
            let again: Value = serde_json::from_str(&value.to_string()).unwrap();
            prop_assert_eq!(ActionHash::of(&value), ActionHash::of(&again));
        }

        #[test]
        fn only_equal_values_have_one_hash(one in json_value(), other in json_value()) {
            prop_assert_eq!(one == other, ActionHash::of(&one) == ActionHash::of(&other));
        }

        #[test]
        fn what_is_allowed_never_has_more(
            granted in prop::collection::vec("[a-c]", 1..4),
            wanted in prop::collection::vec("[a-d]", 0..4),
        ) {
            let of = |actions: &[String]| json!({ "type": "t", "actions": actions });
            let allowed = allows(of(&granted), of(&wanted));
            prop_assert_eq!(allowed, !wanted.is_empty() && wanted.iter().all(|it| granted.contains(it)));
        }
    }
}
