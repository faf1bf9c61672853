//! The rights that the documentation gives to the server are for every table there is, and for the log no more than it
//! needs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

const OPERATIONS: &str = include_str!("../docs/operations.md");
const SCHEMA: &str = include_str!("../migrations/0001_roles.sql");

/// The names in a list.
fn names(list: &str) -> BTreeSet<&str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_table_has_its_rights() {
    let tables: BTreeSet<_> = SCHEMA
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next())
        .collect();
    let (_, rights) = OPERATIONS.split_once("```sql\nGRANT").expect("the rights");
    let (rights, _) = rights.split_once("```").expect("their end");
    let mut granted = BTreeMap::<_, BTreeSet<_>>::new();
    for grant in rights.split("GRANT").filter(|grant| !grant.trim().is_empty()) {
        let (what, list) = grant.split_once(" ON ").expect("what on");
        let (list, _) = list.split_once(" TO lumoauth;").expect("whom to");
        for table in names(list) {
            granted.entry(table).or_default().insert(what.trim());
        }
    }
    // The state of the schema is made by the migration itself.
    assert_eq!(granted.remove("schema_state"), Some(BTreeSet::from(["SELECT"])));
    assert!(tables.len() > 20);
    assert_eq!(granted.keys().copied().collect::<BTreeSet<_>>(), tables);
    // What was signed, and what it is about, is added to and read. Retention takes what was said.
    let (append, drop_bodies) = ("SELECT, INSERT", "UPDATE (body, actor_id, target_id)");
    for (table, rights) in granted {
        let wanted = match table {
            "audit_log" => BTreeSet::from([append, drop_bodies]),
            "audit_block" | "audit_checkpoint" => BTreeSet::from([append]),
            _ => BTreeSet::from(["SELECT, INSERT, UPDATE, DELETE"]),
        };
        assert_eq!(rights, wanted, "{table}");
    }
}
