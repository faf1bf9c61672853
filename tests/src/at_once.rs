//! Callers that begin at the same time.

use std::{sync::Barrier, thread};

/// What `count` callers get, in order, of whom none begins before all are there. Each is told its place.
///
/// # Panics
/// When one of them does.
pub fn at_once<T: Send>(count: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let ready = Barrier::new(count);
    let (call, ready) = (&call, &ready);
    thread::scope(|scope| {
        let caller = |place| {
            scope.spawn(move || {
                ready.wait();
                call(place)
            })
        };
        let callers: Vec<_> = (0..count).map(caller).collect();
        callers.into_iter().map(|caller| caller.join().expect("no caller panics")).collect()
    })
}
