//! A streamed answer: passed on event by event as it comes, and read on the way.

use std::mem;

use axum::body::Bytes;
use futures_util::{Stream, stream};
use lumoauth_tower::UsageMeter;
use serde_json::Value;

use crate::chat::{Call, tokens_in};

const LONGEST_EVENT: usize = 1 << 20;

struct Relay {
    answer: reqwest::Response,
    call: Call,
    meter: UsageMeter,
    /// The beginning of an event.
    pending: Vec<u8>,
    /// How much text came so far, in bytes.
    streamed: usize,
    is_told: bool,
}

/// The events of `answer`. At each moment `meter` shows what was used so far: an estimate, until the provider tells.
pub(crate) fn events(
    answer: reqwest::Response,
    call: Call,
    meter: UsageMeter,
) -> impl Stream<Item = Result<Vec<u8>, crate::Failure>> {
    meter.record(call.price.of(call.prompt, 0));
    let relay = Relay { answer, call, meter, pending: Vec::new(), streamed: 0, is_told: false };
    stream::try_unfold(relay, async |mut relay| {
        while let Some(chunk) = relay.answer.chunk().await.map_err(reqwest::Error::without_url)? {
            let shown = relay.take(&chunk);
            if relay.pending.len() > LONGEST_EVENT {
                return Err("an event is too long".into());
            }
            if !shown.is_empty() {
                return Ok(Some((shown, relay)));
            }
        }
        let rest = mem::take(&mut relay.pending);
        Ok((!rest.is_empty() && relay.passes(&rest)).then_some((rest, relay)))
    })
}

impl Relay {
    /// The events that are whole with `chunk`, as they came.
    fn take(&mut self, chunk: &Bytes) -> Vec<u8> {
        self.pending.extend_from_slice(chunk);
        let mut shown = Vec::new();
        while let Some(end) = end_of_event(&self.pending) {
            let event: Vec<u8> = self.pending.drain(..end).collect();
            if self.passes(&event) {
                shown.extend(event);
            }
        }
        shown
    }

    /// Records what `event` tells; whether it is shown.
    fn passes(&mut self, event: &[u8]) -> bool {
        let lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
        let data: Value = serde_json::from_slice(&lines.collect::<Vec<_>>().concat()).unwrap_or_default();
        let choices = data["choices"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(used) = self.call.price.told(&data) {
            self.meter.record(used);
            self.is_told = true;
            return !(self.call.hides_usage && choices.is_empty());
        }
        let members = choices.iter().filter_map(|choice| choice["delta"].as_object()).flatten();
        let said = members.filter(|(name, value)| *name != "role" && !value.is_null());
        self.streamed += said
            .map(|(_, value)| value.as_str().map_or_else(|| value.to_string().len(), str::len))
            .sum::<usize>();
        if !self.is_told {
            self.meter.record(self.call.price.of(self.call.prompt, tokens_in(self.streamed)));
        }
        true
    }
}

/// Where the first event ends: after an empty line.
fn end_of_event(text: &[u8]) -> Option<usize> {
    let after = |end: &[u8]| text.windows(end.len()).position(|part| part == end).map(|at| at + end.len());
    [after(b"\n\n"), after(b"\r\n\r\n")].into_iter().flatten().min()
}
