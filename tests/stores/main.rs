//! The behaviour suite on every backend in one run, on real services, and races of threads on each of them.
//!
//! The name of a module is the name of a backend, which is a column of the table that `tests/run` prints.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit_edits;
mod cached;
mod leased;
mod postgres;
mod postgres_hang_up;
mod races;
mod redis;
mod redis_cluster;
mod redis_loss;

mod memory {
    use std::sync::Arc;

    use lumoauth_core::store::MemoryStore;

    lumoauth_core::store_conformance!(async || ((), MemoryStore::new()));

    #[tokio::test]
    async fn edits_of_an_exported_log_are_found() {
        crate::audit_edits::are_found(Arc::new(MemoryStore::new())).await;
    }

    mod outbox {
        use lumoauth_core::store::MemoryStore;

        lumoauth_core::outbox_conformance!(async || ((), MemoryStore::with_outbox()));
    }

    mod races {
        use super::{Arc, MemoryStore};

        async fn make() -> ((), [Arc<MemoryStore>; 2]) {
            let store = Arc::new(MemoryStore::new());
            ((), [store.clone(), store])
        }

        async fn one() -> ((), Vec<Arc<MemoryStore>>) {
            ((), vec![Arc::new(MemoryStore::new())])
        }

        crate::races::races!(make; recorded);
        crate::races::races!(make; hot);
        crate::races::races!(make; tasks: jit_purge);
        crate::races::races!(one; caps);
        crate::races::races!(one; edges);
    }
}

mod embedded {
    use std::{env, fs, path::PathBuf, sync::Arc};

    use embedded_store::EmbeddedStore;
    use lumoauth_tests::unique;

    /// The folder of one store.
    pub(crate) struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder() -> (Folder, PathBuf) {
        let folder = env::temp_dir().join(unique("lumoauth-store"));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("data");
        (Folder(folder), file)
    }

    pub(crate) async fn make() -> (Folder, EmbeddedStore) {
        let (folder, file) = folder();
        (folder, EmbeddedStore::open(&file).unwrap())
    }

    lumoauth_core::store_conformance!(make);

    #[tokio::test]
    async fn edits_of_an_exported_log_are_found() {
        let (_folder, store) = make().await;
        crate::audit_edits::are_found(Arc::new(store)).await;
    }

    mod outbox {
        use super::{EmbeddedStore, Folder, folder};

        async fn make() -> (Folder, EmbeddedStore) {
            let (folder, file) = folder();
            (folder, EmbeddedStore::open_with_outbox(&file).unwrap())
        }

        lumoauth_core::outbox_conformance!(make);
    }

    mod races {
        use super::{Arc, EmbeddedStore, Folder};

        async fn make() -> (Folder, [Arc<EmbeddedStore>; 2]) {
            // The file belongs to one process and one store in it.
            let (folder, store) = super::make().await;
            let store = Arc::new(store);
            (folder, [store.clone(), store])
        }

        async fn one() -> (Folder, Vec<Arc<EmbeddedStore>>) {
            let (folder, store) = super::make().await;
            (folder, vec![Arc::new(store)])
        }

        crate::races::races!(make; recorded);
        crate::races::races!(make; hot);
        crate::races::races!(make; tasks: jit_purge);
        crate::races::races!(one; caps);
        crate::races::races!(one; edges);
    }
}
