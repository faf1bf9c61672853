//! How risky a request is, and whether a person must look at it.
//!
//! The score is the highest of its verbs, more if its type is a sensitive one, and more for what its task did before. An
//! organization may say of a type how risky it is; then the verbs do not count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AuthorizationDetail, History};
use crate::budget::{BudgetPolicy, MicroUsd};

/// How risky a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the four levels of the API")]
pub enum RiskLevel {
    /// Reading ordinary things. Granted at once.
    Low,
    /// Changing them. Granted at once.
    Medium,
    /// A person decides.
    High,
    /// A person decides, and should look twice.
    Critical,
}

impl RiskLevel {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level of a score.
    pub const fn of(score: u32) -> Self {
        match score {
            0..20 => Self::Low,
            20..50 => Self::Medium,
            50..80 => Self::High,
            _ => Self::Critical,
        }
    }

    /// The lowest score of the level.
    const fn score(self) -> u32 {
        match self {
            Self::Low => 0,
            Self::Medium => 20,
            Self::High => 50,
            Self::Critical => 80,
        }
    }

    /// Whether a person has to decide.
    pub fn needs_a_person(self) -> bool {
        self >= Self::High
    }
}

/// What an organization says of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every answer must be handled where risk is assessed")]
pub enum TypeRisk {
    /// Low, whatever is done with it.
    Low,
    /// Medium.
    Medium,
    /// High: a person decides.
    High,
    /// Critical: a person decides.
    Critical,
    /// Nobody gets it.
    Denied,
}

/// What an organization says of types; of all others the table of the server holds.
pub type RiskTable = BTreeMap<String, TypeRisk>;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a score and what follows from it")]
pub struct Assessment {
    /// The sum.
    pub score: u32,
    /// Its level, or a higher one if the amount needs a person.
    pub level: RiskLevel,
    /// Whether the organization lets nobody have this.
    pub denied: bool,
}

/// How risky `detail` is for an organization with this table, in a task with this history, for agents with these budgets.
///
/// An amount (`amount`, in US dollars) above what an agent may spend without being asked needs a person, whatever the level;
/// so does one that cannot be read.
pub fn assess<'a>(
    detail: &AuthorizationDetail,
    table: &RiskTable,
    history: History,
    budgets: impl IntoIterator<Item = &'a BudgetPolicy>,
) -> Assessment {
    let said = table.get(detail.kind());
    let base = match said {
        Some(TypeRisk::Low) => RiskLevel::Low.score(),
        Some(TypeRisk::Medium) => RiskLevel::Medium.score(),
        Some(TypeRisk::High) => RiskLevel::High.score(),
        Some(TypeRisk::Critical | TypeRisk::Denied) => RiskLevel::Critical.score(),
        None => of_verbs(detail) + of_type(detail.kind()),
    };
    let hurry = if history.hurried { 15 } else { 0 };
    let score = base.saturating_add(history.denials.saturating_mul(15)).saturating_add(hurry);
    let mut level = RiskLevel::of(score);
    if needs_approval(detail, budgets) {
        level = level.max(RiskLevel::High);
    }
    Assessment { score, level, denied: said == Some(&TypeRisk::Denied) }
}

/// The worst of what it wants to do. A verb that nobody knows is as bad as the worst, and so is saying nothing.
fn of_verbs(detail: &AuthorizationDetail) -> u32 {
    let verbs = detail.actions().into_iter().chain(detail.privileges());
    verbs.map(of_verb).max().unwrap_or(50)
}

fn of_verb(verb: &str) -> u32 {
    match &*verb.to_ascii_lowercase() {
        "read" | "get" | "list" | "select" | "head" => 0,
        "write" | "put" | "post" | "patch" | "insert" | "update" | "create" => 20,
        // delete, drop, execute, admin, initiate, approve
        _ => 50,
    }
}

/// Types are named by whoever asks, so a sensitive word anywhere in one counts.
fn of_type(kind: &str) -> u32 {
    let kind = kind.to_lowercase();
    let sensitive = ["user_data", "payment", "credential", "secret"];
    if sensitive.iter().any(|word| kind.contains(word)) { 50 } else { 0 }
}

fn needs_approval<'a>(
    detail: &AuthorizationDetail,
    budgets: impl IntoIterator<Item = &'a BudgetPolicy>,
) -> bool {
    let Some(amount) = detail.members().get("amount").filter(|amount| !amount.is_null()) else {
        return false;
    };
    let text = amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned);
    match text.parse::<MicroUsd>() {
        Ok(amount) => budgets.into_iter().any(|budget| budget.needs_approval(amount)),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FRESH: History = History { denials: 0, hurried: false };

    fn detail(value: Value) -> AuthorizationDetail {
        AuthorizationDetail::new(value).unwrap()
    }

    fn level(kind: &str, actions: &[&str], history: History) -> RiskLevel {
        let detail = detail(json!({ "type": kind, "actions": actions }));
        assess(&detail, &RiskTable::new(), history, []).level
    }

    #[test]
    fn the_table_of_the_server() {
        use RiskLevel::{Critical, High, Low, Medium};
        for (kind, actions, expected) in [
            ("file_access", &["read"][..], Low),
            ("file_access", &["list", "GET", "head"], Low),
            ("file_access", &["read", "write"], Medium),
            ("file_access", &["create"], Medium),
            ("file_access", &["read", "delete"], High),
            ("database", &["drop"], High),
            ("database", &["execute"], High),
            ("anything", &["frobnicate"], High),
            ("anything", &["read:*"], High),
            ("anything", &[], High),
            ("user_data", &["read"], High),
            ("credentials", &["read"], High),
            ("payment", &["write"], High),
            ("payment", &["initiate"], Critical),
            ("payment_initiation", &["read"], High),
            ("my.Secret.store", &["read"], High),
            ("secret", &["delete"], Critical),
        ] {
            assert_eq!(level(kind, actions, FRESH), expected, "{kind} {actions:?}");
        }
        let admin = detail(json!({ "type": "file", "actions": ["read"], "privileges": ["admin"] }));
        assert_eq!(assess(&admin, &RiskTable::new(), FRESH, []).level, High);
    }

    #[test]
    fn what_the_task_did_before_counts() {
        let of = |denials, hurried| level("file", &["read"], History { denials, hurried });
        assert_eq!((of(1, false), of(2, false)), (RiskLevel::Low, RiskLevel::Medium));
        assert_eq!((of(0, true), of(1, true)), (RiskLevel::Low, RiskLevel::Medium));
        assert_eq!((of(3, false), of(3, true)), (RiskLevel::Medium, RiskLevel::High));
        let flood = History { denials: u32::MAX, hurried: true };
        assert_eq!(level("secret", &["drop"], flood), RiskLevel::Critical);
    }

    #[test]
    fn organizations_know_their_types() {
        let table = RiskTable::from([
            ("payment".to_owned(), TypeRisk::Low),
            ("file".to_owned(), TypeRisk::Critical),
            ("weapon".to_owned(), TypeRisk::Denied),
        ]);
        let of =
            |kind: &str| assess(&detail(json!({ "type": kind, "actions": ["read"] })), &table, FRESH, []);
        assert_eq!(of("payment").level, RiskLevel::Low);
        assert_eq!(of("file").level, RiskLevel::Critical);
        assert!(of("weapon").denied && !of("file").denied);
        assert_eq!(of("other").level, RiskLevel::Low);
    }

    #[test]
    fn an_amount_above_the_threshold_needs_a_person() {
        let budget: BudgetPolicy = serde_json::from_str(r#"{"require_approval_above_usd":10}"#).unwrap();
        let of = |amount: Value| {
            let detail = detail(json!({ "type": "order", "actions": ["read"], "amount": amount }));
            assess(&detail, &RiskTable::new(), FRESH, [&BudgetPolicy::default(), &budget]).level
        };
        for small in [json!(10), json!("10.000000"), json!(0.5), json!(null)] {
            assert_eq!(of(small.clone()), RiskLevel::Low, "{small}");
        }
        for large in [json!(10.000001), json!("11"), json!(-1), json!("ten"), json!(1e30), json!({})] {
            assert_eq!(of(large.clone()), RiskLevel::High, "{large}");
        }
    }
}
