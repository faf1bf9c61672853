//! The rights that the documentation gives to the server are for every table there is.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

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
    let mut granted = BTreeSet::new();
    for grant in rights.split("GRANT").filter(|grant| !grant.trim().is_empty()) {
        let (_, list) = grant.split_once(" ON ").expect("what on");
        let (list, _) = list.split_once(" TO lumoauth;").expect("whom to");
        granted.extend(names(list));
    }
    // The state of the schema is made by the migration itself.
    granted.remove("schema_state");
    assert!(tables.len() > 20);
    assert_eq!(granted, tables);
}
