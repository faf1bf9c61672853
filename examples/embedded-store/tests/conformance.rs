//! The behaviour suite of the ports, on a file.

mod scratch;

use embedded_store::EmbeddedStore;
use scratch::Scratch;

async fn make() -> (Scratch, EmbeddedStore) {
    let file = Scratch::new();
    let store = EmbeddedStore::open(file.path()).expect("a new file");
    (file, store)
}

lumoauth_core::store_conformance!(make);

mod outbox {
    use super::{EmbeddedStore, Scratch};

    async fn make() -> (Scratch, EmbeddedStore) {
        let file = Scratch::new();
        let store = EmbeddedStore::open_with_outbox(file.path()).expect("a new file");
        (file, store)
    }

    lumoauth_core::outbox_conformance!(make);
}
