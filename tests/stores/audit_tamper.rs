//! Whoever has the database edits the audit log; what is exported then names the first bad entry.

use std::sync::Arc;

use lumoauth_core::{
    audit_export::{Finding, Report, Verifier},
    id::OrgId,
    jwks::PublicKey,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    merkle::{Frontier, verify_inclusion},
    server::AuthorizationServer,
    store::{
        AuditStore, Stores, TreeLevel,
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
    store: Arc<PostgresStore>,
    ring: Arc<KeyRing>,
    server: AuthorizationServer,
    org: OrgId,
    /// What an auditor fetched before anything happened.
    keys: Vec<PublicKey>,
    kept: String,
}

fn server_on(store: &Arc<PostgresStore>, ring: &Arc<KeyRing>) -> AuthorizationServer {
    let stores = Stores::all(store.clone());
    AuthorizationServer::builder("https://auth.example", stores, ring.clone()).build().unwrap()
}

impl Setting {
    async fn new() -> Self {
        let database = fresh().await;
        let store: Arc<PostgresStore> = Arc::new(store_at(database.url()).await);
        let ring = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let ring = Arc::new(ring);
        let server = server_on(&store, &ring);
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
        Self { database, store, ring, server, org, keys, kept }
    }

    /// The same after its start: it knows only what is stored.
    fn restarted(self) -> Self {
        Self { server: server_on(&self.store, &self.ring), ..self }
    }

    /// Makes the head of the log that of its first `size` entries.
    async fn forge_head(&self, size: u64) {
        let mut tree = Frontier::default();
        for leaf in self.store.nodes(&self.org, TreeLevel::Leaves, 0..size).await.unwrap() {
            tree.push(leaf);
        }
        let peaks: String = tree.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.sql(&format!("UPDATE audit_head SET size = {size}, peaks = '\\x{peaks}' WHERE ORG"));
    }

    /// Changes what an entry says, and everything that is computed from it.
    async fn rewrite(&self, seq: u64) {
        let change = "body = replace(body::text, 'something', 'otherthing')::json";
        self.sql(&format!("UPDATE audit_log SET {change} WHERE ORG AND seq = {seq}"));
        let entry = self.store.raw(&self.org, seq - 1, 1).await.unwrap().pop().unwrap();
        let leaf = entry.recomputed(&self.org).unwrap();
        assert_ne!(leaf, entry.leaf);
        self.sql(&format!("UPDATE audit_log SET leaf = '\\x{leaf}' WHERE ORG AND seq = {seq}"));
        self.forge_head(self.store.head(&self.org).await.unwrap().tree.size()).await;
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
            "UPDATE audit_log SET leaf = sha256(leaf) WHERE ORG AND seq = 9",
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

fn is_cut_off(finding: &Finding, first: u64) {
    assert_eq!(finding.first, first, "{finding}");
    assert!(finding.problem.contains("cut off"), "{finding}");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_by_what_was_signed() {
    let setting = Setting::new().await;
    let size = setting.verify(false).await.unwrap().entries;
    setting.sql("DELETE FROM audit_log WHERE ORG AND seq > 20");
    let finding = setting.verify(false).await.unwrap_err();
    is_cut_off(&finding, 21);
    assert_eq!(finding.last, size);

    // The head of the log is made that of what is left, and the signed heads stay: the server signs nothing.
    setting.forge_head(20).await;
    is_cut_off(&setting.verify(false).await.unwrap_err(), 21);
    assert!(setting.server.audit_head(&setting.org).await.is_err());

    // Without them, it remembers, and after its start only a head that was kept elsewhere does.
    setting.sql("DELETE FROM audit_checkpoint WHERE ORG AND size > 20");
    setting.store.append(&setting.org, &[some_event()]).await.unwrap();
    assert!(setting.server.audit_head(&setting.org).await.is_err());
    let setting = setting.restarted();
    assert_eq!(setting.verify(false).await.unwrap().entries, 21);
    is_cut_off(&setting.verify(true).await.unwrap_err(), 22);
}

#[tokio::test]
async fn a_log_that_was_written_anew_contradicts_what_was_signed() {
    let setting = Setting::new().await;
    setting.rewrite(17).await;
    let finding = setting.verify(false).await.unwrap_err();
    assert!((finding.first..=finding.last).contains(&17) && finding.last < 20, "{finding}");

    setting.store.append(&setting.org, &[some_event()]).await.unwrap();
    assert!(setting.server.audit_head(&setting.org).await.is_err(), "the newest head says otherwise");
    assert!(server_on(&setting.store, &setting.ring).audit_head(&setting.org).await.is_err());
    setting.sql("DELETE FROM audit_checkpoint WHERE ORG AND size > 16");
    assert!(setting.server.audit_head(&setting.org).await.is_err(), "it signed something else");
    assert!(setting.server.audit_head(&setting.org).await.is_err());

    // What only a head that was kept elsewhere shows.
    let setting = setting.restarted();
    setting.verify(false).await.unwrap();
    let finding = setting.verify(true).await.unwrap_err();
    assert!((finding.first..=finding.last).contains(&17), "{finding}");
}

#[tokio::test]
async fn contents_that_were_taken_away_need_a_reason_that_the_server_signed() {
    let setting = Setting::new().await;
    setting.sql("UPDATE audit_log SET body = NULL, actor_id = '', target_id = NULL WHERE ORG AND seq <= 9");
    setting.sql("UPDATE audit_head SET dropped = 9 WHERE ORG");
    let finding = setting.verify(false).await.unwrap_err();
    assert_eq!((finding.first, finding.last), (1, 9), "{finding}");
    let forged = some_event().with("up_to", 9).with("signed", setting.kept.as_str());
    let forged =
        serde_json::to_string(&forged).unwrap().replace(some_event().kind.as_str(), "audit.bodies_dropped");
    let id = serde_json::from_str::<serde_json::Value>(&forged).unwrap()["id"].as_str().unwrap().to_owned();
    setting.sql(&format!(
        "INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) VALUES ('{}', '{id}', 1, 0, 1, '{forged}')",
        setting.org
    ));
    // It is numbered and signed, and explains nothing.
    let finding = setting.verify(false).await.unwrap_err();
    assert_eq!((finding.first, finding.last), (1, 9), "{finding}");
    let size = setting.server.audit_head(&setting.org).await.unwrap().0.size;
    let last = setting.store.raw(&setting.org, size - 1, 1).await.unwrap().pop().unwrap();
    assert!(last.body.unwrap().contains("audit.bodies_dropped"));
}

#[tokio::test]
async fn columns_that_searches_go_by_are_compared_with_the_event() {
    let setting = Setting::new().await;
    for (column, value) in
        [("kind", "agent.revoked"), ("outcome", "failure"), ("actor_id", "x"), ("target_id", "x")]
    {
        setting.sql(&format!("UPDATE audit_log SET {column} = '{value}' WHERE ORG AND seq = 7"));
        let all = setting.server.audit_export(&setting.org, 0, u32::MAX, usize::MAX).await;
        let error = all.unwrap_err();
        let mut cause = std::error::Error::source(&error);
        let mut said = error.to_string();
        while let Some(next) = cause {
            said.push_str(&next.to_string());
            cause = next.source();
        }
        assert!(said.contains("entry 7 "), "{said}");
        let facts = "outcome = body ->> 'outcome', kind = body ->> 'kind', actor_id = body #>> '{actor,id}', \
                     target_id = body #>> '{target,id}'";
        setting.sql(&format!("UPDATE audit_log SET {facts} WHERE ORG AND seq = 7"));
        setting.verify(true).await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_of_another_organization_is_not_ones_own() {
    let setting = Setting::new().await;
    let other = some_org();
    let events: Vec<_> = (0..ENTRIES).map(|_| some_event()).collect();
    setting.store.append(&other, &events).await.unwrap();
    setting.store.sequence(&other, 1000).await.unwrap();
    setting.sql("DELETE FROM audit_log WHERE ORG AND seq = 12");
    let take =
        format!("UPDATE audit_log SET org_id = '{}' WHERE org_id = '{other}' AND seq = 12", setting.org);
    setting.sql(&take);
    setting.forge_head(setting.store.head(&setting.org).await.unwrap().tree.size()).await;
    setting.sql("DELETE FROM audit_checkpoint WHERE ORG");
    let setting = setting.restarted();
    let finding = setting.verify(false).await.unwrap_err();
    assert_eq!((finding.first, finding.last), (12, 12), "{finding}");
}

#[tokio::test]
async fn proofs_from_forged_hashes_do_not_hold() {
    let setting = Setting::new().await;
    let (head, _) = setting.server.audit_head(&setting.org).await.unwrap();
    setting.sql("UPDATE audit_log SET leaf = sha256(leaf) WHERE ORG AND seq = 9");
    for seq in 1..=head.size {
        let proof = setting.server.audit_inclusion(&setting.org, seq, Some(head.size)).await.unwrap();
        let holds = verify_inclusion(proof.of, seq - 1, head.size, &proof.nodes, head.root);
        assert!(!holds, "{seq}");
    }
}
