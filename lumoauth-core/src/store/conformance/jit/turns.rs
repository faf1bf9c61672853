//! Callbacks of several organizations.

use std::{collections::HashSet, time::Duration};

use super::{ALL, asked, now, opened, some_org, some_request};
use crate::{
    jit::{Callback, JitRequest, NewRequest},
    store::JitStore,
};

/// "In turns: first the one of each organization that is due longest, then the next one of each."
pub async fn callbacks_take_turns(store: &dyn JitStore) {
    let (busy, calm) = (some_org(), [some_org(), some_org()]);
    let callback = |request: JitRequest, seconds: u64| {
        let due = Some(now().plus(Duration::from_secs(seconds)));
        JitRequest {
            callback: Some(Callback { url: "https://cb.test".to_owned(), tries: 0, due }),
            ..request
        }
    };
    let mut of_busy = Vec::new();
    for _ in 0..3 {
        let task = opened(store, &busy).await;
        for _ in 0..8 {
            let request = callback(some_request(&task), of_busy.len() as u64);
            assert_eq!(asked(store, &busy, &request, now()).await, NewRequest::Inserted);
            of_busy.push(request);
        }
    }
    let mut of_calm = Vec::new();
    for (n, org) in (0..).zip(&calm) {
        let task = opened(store, org).await;
        let two = [100 + n, 110 + n].map(|seconds| callback(some_request(&task), seconds));
        for request in &two {
            assert_eq!(asked(store, org, request, now()).await, NewRequest::Inserted);
        }
        of_calm.push(two.map(|request| request.id));
    }
    let due = async |max| {
        let due = store.due_callbacks(now().plus(Duration::from_secs(200)), max).await.unwrap();
        assert!(due.len() <= max as usize, "{}", due.len());
        due.into_iter().filter(|(org, _)| *org == busy || calm.contains(org)).map(|(_, one)| one.id.clone())
    };
    let mut expected: Vec<_> = of_busy.iter().map(|request| request.id.clone()).collect();
    for turn in 0..2 {
        let of_turn = of_calm.iter().map(|two| two[turn].clone());
        expected.splice(turn * 3 + 1..turn * 3 + 1, of_turn);
    }
    assert_eq!(due(ALL.limit).await.collect::<Vec<_>>(), expected);
    // Room for one of each organization is enough. Other cases may run on the same store and add some, so there is more.
    let organizations = store.due_callbacks(now().plus(Duration::from_secs(200)), ALL.limit).await.unwrap();
    let organizations: HashSet<_> = organizations.into_iter().map(|(org, _)| org).collect();
    let first = u32::try_from(organizations.len() * 2 + 8).unwrap_or(u32::MAX);
    let first: HashSet<_> = due(first).await.collect();
    assert!(of_calm.iter().all(|two| first.contains(&two[0])));
    assert_eq!(due(0).await.count(), 0);
}
