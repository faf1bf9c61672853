//! Cases of [`ChangeFeed`], on the feeds of two servers that share a store.
//!
//! Others may publish on it at the same time, so each case listens for changes in an organization of its own. A notice
//! may be doubled.

use std::{pin::pin, time::Duration};

use futures_timer::Delay;
use futures_util::future::{Either, select};

use super::some_org;
use crate::{
    id::{AgentId, ClientId, ConsentId, OrgId, UserId},
    store::{Change, ChangeFeed, ChangedRecord, Notice},
};

/// How long a notice may take on a busy machine. A feed that hears nothing would wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);

async fn next(feed: &dyn ChangeFeed) -> Notice {
    match select(pin!(feed.next()), Delay::new(PATIENCE)).await {
        Either::Left((notice, _)) => notice.unwrap(),
        Either::Right(_) => panic!("no notice within {PATIENCE:?}"),
    }
}

/// The next change in `org`.
async fn next_of(feed: &dyn ChangeFeed, org: &OrgId) -> ChangedRecord {
    loop {
        match next(feed).await {
            Notice::Changed(change) if change.org == *org => return change.record,
            Notice::Changed(_) => {}
            Notice::Gap => panic!("a gap in the middle"),
        }
    }
}

/// "The first one, and the first after an error, is [`Notice::Gap`]."
pub async fn begins_with_a_gap(feeds: [&dyn ChangeFeed; 2]) {
    for feed in feeds {
        assert_eq!(next(feed).await, Notice::Gap);
    }
}

/// "Tells every server that listens, this one as well."
pub async fn every_server_hears(feeds: [&dyn ChangeFeed; 2]) {
    begins_with_a_gap(feeds).await;
    let records = [
        ChangedRecord::Organization,
        ChangedRecord::Agent(AgentId::generate()),
        ChangedRecord::Client(ClientId::generate_for_agent()),
        ChangedRecord::Consent(ConsentId::generate()),
        ChangedRecord::User(UserId::generate()),
    ];
    for (record, publisher) in records.into_iter().zip(feeds.into_iter().cycle()) {
        let change = Change { org: some_org(), record };
        publisher.publish(&change).await.unwrap();
        for feed in feeds {
            assert_eq!(next_of(feed, &change.org).await, change.record);
        }
    }
}

/// "What one server publishes one after the other is heard in that order."
pub async fn order_is_kept(feeds: [&dyn ChangeFeed; 2]) {
    begins_with_a_gap(feeds).await;
    let org = some_org();
    let records: Vec<_> = (0..20).map(|_| ChangedRecord::Agent(AgentId::generate())).collect();
    for record in &records {
        feeds[0].publish(&Change { org: org.clone(), record: record.clone() }).await.unwrap();
    }
    for feed in feeds {
        let mut heard = Vec::with_capacity(records.len());
        while heard.len() < records.len() {
            let record = next_of(feed, &org).await;
            if heard.last() != Some(&record) {
                heard.push(record);
            }
        }
        assert_eq!(heard, records);
    }
}
