//! One part of a role's data per organization, each behind its own lock.

use std::{collections::HashMap, sync::RwLock};

use super::{read, write};
use crate::id::OrgId;

/// A `T` for every organization, empty until it is first written.
#[derive(Default)]
pub(in crate::store) struct PerOrg<T>(RwLock<HashMap<OrgId, RwLock<T>>>);

impl<T: Default> PerOrg<T> {
    /// Looks at the part of `org`. An organization without one is not given one: reading takes no memory.
    pub(in crate::store) fn read<R>(&self, org: &OrgId, look: impl FnOnce(&T) -> R) -> R {
        match read(&self.0).get(org) {
            Some(part) => look(&read(part)),
            None => look(&T::default()),
        }
    }

    /// Changes the part of `org`.
    pub(in crate::store) fn write<R>(&self, org: &OrgId, change: impl FnOnce(&mut T) -> R) -> R {
        let parts = read(&self.0);
        if let Some(part) = parts.get(org) {
            return change(&mut write(part));
        }
        drop(parts);
        let mut parts = write(&self.0);
        change(&mut write(parts.entry(org.clone()).or_default()))
    }

    /// Looks at every part, one after the other.
    pub(in crate::store) fn read_each(&self, mut look: impl FnMut(&OrgId, &T)) {
        read(&self.0).iter().for_each(|(org, part)| look(org, &read(part)));
    }

    /// Changes every part, one after the other.
    pub(in crate::store) fn write_each(&self, mut change: impl FnMut(&mut T)) {
        read(&self.0).values().for_each(|part| change(&mut write(part)));
    }
}
