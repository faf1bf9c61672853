//! Whoever has the database edits the audit log; what is exported then names the first bad entry.

use std::sync::Arc;

use lumoauth_core::{
    audit_export::{Finding, Report, Verifier},
    id::OrgId,
    jwks::PublicKey,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    server::AuthorizationServer,
    store::{
        AuditStore, Stores,
        conformance::{some_event, some_org},
    },
};
use lumoauth_store_postgres::PostgresStore;
use lumoauth_tests::services::{Database, query};

use super::{fresh, store_at};

/// How many entries the log has.
const ENTRIES: u64 = 30;

struct Setting {
    database: Database,
    server: AuthorizationServer,
    org: OrgId,
    /// What an auditor fetched before anything happened.
    keys: Vec<PublicKey>,
    kept: String,
}

impl Setting {
    async fn new() -> Self {
        let database = fresh().await;
        let store: Arc<PostgresStore> = Arc::new(store_at(database.url()).await);
        let stores = Stores::all(store.clone());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let server =
            AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap();
        let org = some_org();
        // The key, whose making is an entry as well, and a head in the middle.
        server.audit_keys(&org).await.unwrap();
        while server.audit_head(&org).await.unwrap().0.size < ENTRIES {
            store.append(&org, &[some_event(), some_event()]).await.unwrap();
        }
        let keys = server.audit_keys(&org).await.unwrap();
        let keys = keys.iter().map(|key| serde_json::to_value(key).unwrap());
        let keys = keys.map(|key| PublicKey::from_jwk(&key).unwrap()).collect();
        let (_, kept) = server.audit_head(&org).await.unwrap();
        Self { database, server, org, keys, kept }
    }

    fn sql(&self, statement: &str) {
        query(self.database.url(), &statement.replace("ORG", &format!("org_id = '{}'", self.org)));
    }

    async fn verify(&self, with_kept: bool) -> Result<Report, Finding> {
        let text = self.server.audit_export(&self.org, 0, u32::MAX, usize::MAX).await.unwrap();
        let mut verifier = Verifier::new(Some(self.keys.clone()));
        if with_kept {
            verifier.expect(&self.kept)?;
        }
        text.lines().try_for_each(|line| verifier.line(line.as_bytes()))?;
        verifier.finish()
    }
}

#[tokio::test]
async fn edits_of_rows_are_found_and_named() {
    let setting = Setting::new().await;
    let whole = setting.verify(true).await.unwrap();
    assert!(whole.entries >= ENTRIES && whole.heads > 10, "{whole:?}");
    for (edit, undo, first) in [
        (
            "UPDATE audit_log SET body = replace(body::text, 'something', 'otherthing')::json WHERE ORG AND seq = 7",
            "UPDATE audit_log SET body = replace(body::text, 'otherthing', 'something')::json WHERE ORG AND seq = 7",
            7,
        ),
        (
            "UPDATE audit_log SET at = at + 1 WHERE ORG AND seq >= 12",
            "UPDATE audit_log SET at = at - 1 WHERE ORG AND seq >= 12",
            12,
        ),
        (
            "UPDATE audit_log SET leaf = sha256(leaf) WHERE ORG AND seq = 9; ",
            "UPDATE audit_log SET leaf = leaf WHERE false AND ORG",
            9,
        ),
    ] {
        setting.sql(edit);
        let finding = setting.verify(true).await.unwrap_err();
        assert_eq!((finding.first, finding.last), (first, first), "{finding}");
        setting.sql(undo);
    }
}

#[tokio::test]
async fn rows_that_are_gone_moved_or_added_are_found() {
    let setting = Setting::new().await;
    // Two entries change their places.
    setting.sql("UPDATE audit_log SET seq = -1 WHERE ORG AND seq = 20");
    setting.sql("UPDATE audit_log SET seq = 20 WHERE ORG AND seq = 21");
    setting.sql("UPDATE audit_log SET seq = 21 WHERE ORG AND seq = -1");
    assert_eq!(setting.verify(true).await.unwrap_err().first, 20);
    setting.sql("DELETE FROM audit_log WHERE ORG AND seq = 5");
    let finding = setting.verify(true).await.unwrap_err();
    assert_eq!((finding.first, finding.last), (5, 5));
    setting.sql("UPDATE audit_log SET seq = seq - 1 WHERE ORG AND seq = 6");
    assert_eq!(setting.verify(true).await.unwrap_err().first, 5);
}

#[tokio::test]
async fn a_cut_tail_contradicts_the_head_that_was_kept() {
    let setting = Setting::new().await;
    setting.sql("DELETE FROM audit_log WHERE ORG AND seq > 20");
    setting.sql("DELETE FROM audit_checkpoint WHERE ORG AND size > 20");
    let head =
        "UPDATE audit_head SET size = 20, signed = 0, peaks = decode(repeat('00', 64), 'hex') WHERE ORG";
    setting.sql(head);
    let finding = setting.verify(true).await.unwrap_err();
    assert!(finding.first <= 21, "{finding}");
}
