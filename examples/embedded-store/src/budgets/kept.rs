//! What is kept under the id of a charge, and the rows that lead to it.

use lumoauth_core::{
    budget::{Hold, HoldState},
    clock::Timestamp,
    store::StoreError,
};

use crate::{
    batch::{Batch, encode},
    snapshot::{decode, malformed},
    tables::{Table, expiry_key, live_key, parked_key},
};

/// What is kept under the id of a charge.
pub(crate) struct Kept {
    pub(crate) keep_until: Timestamp,
    pub(crate) request_hash: [u8; 32],
    pub(crate) hold: Option<Hold>,
}

impl Kept {
    /// What a row of [`Table::Charges`] says: until when, the hash, the hold as JSON if there is one.
    pub(crate) fn of(row: &[u8]) -> Result<Self, StoreError> {
        let parts = row.split_first_chunk().and_then(|(keep_until, row)| {
            let (request_hash, hold) = row.split_first_chunk()?;
            Some((Timestamp::from_unix_millis(u64::from_be_bytes(*keep_until)), *request_hash, hold))
        });
        let (keep_until, request_hash, hold) = parts.ok_or_else(|| malformed(Table::Charges))?;
        let hold = if hold.is_empty() { None } else { Some(decode(Table::Charges, hold)?) };
        Ok(Self { keep_until, request_hash, hold })
    }

    fn is_parked(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.state == HoldState::Parked)
    }

    /// Whether it counts. What is parked does until somebody has freed it.
    pub(crate) fn is_known(&self, now: Timestamp) -> bool {
        now < self.keep_until || self.is_parked()
    }

    /// Writes it under `key`, in place of `before`.
    pub(crate) fn write(
        &self,
        batch: &mut Batch<'_>,
        key: &[u8],
        before: Option<&Self>,
    ) -> Result<(), StoreError> {
        if let Some(before) = before {
            before.remove_index(batch, key)?;
        }
        let hold = self.hold.as_ref().map(|hold| encode(Table::Charges, hold)).transpose()?;
        let row = [
            &self.keep_until.unix_millis().to_be_bytes()[..],
            &self.request_hash,
            hold.as_deref().unwrap_or_default(),
        ];
        batch.put(Table::Charges, key, &row.concat())?;
        self.index_rows(key).iter().try_for_each(|(table, row)| batch.put(*table, row, key))?;
        if !self.is_parked() {
            batch.expires(Table::Charges, key, None, self.keep_until)?;
        }
        Ok(())
    }

    /// Removes every row that leads to it.
    pub(crate) fn remove_index(&self, batch: &mut Batch<'_>, key: &[u8]) -> Result<(), StoreError> {
        for (table, row) in self.index_rows(key) {
            batch.remove(table, &row)?;
        }
        // While it is parked there is no such row, so it is not purged.
        if let Some(expiry) = expiry_key(self.keep_until, Table::Charges, key) {
            batch.remove(Table::Expiries, &expiry)?;
        }
        Ok(())
    }

    /// The rows that lead to it as long as it holds something.
    fn index_rows(&self, key: &[u8]) -> Vec<(Table, Vec<u8>)> {
        let Some(hold) = &self.hold else { return Vec::new() };
        match hold.state {
            HoldState::Held => {
                live_key(key, hold.ends).map(|row| (Table::LiveHolds, row)).into_iter().collect()
            }
            HoldState::Parked => {
                let live = live_key(key, Timestamp::from_unix_millis(u64::MAX));
                let parked = (Table::ParkedHolds, parked_key(hold.ends, key));
                live.map(|row| (Table::LiveHolds, row)).into_iter().chain([parked]).collect()
            }
            HoldState::Settled(_) | HoldState::Released | HoldState::Denied | HoldState::Expired => {
                Vec::new()
            }
        }
    }
}
