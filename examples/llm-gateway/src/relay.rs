//! A streamed answer: passed on line by line as it comes, and read on the way.

use std::mem;

use futures_util::{Stream, stream};
use lumoauth_tower::UsageMeter;
use reqwest::{Response, Result};
use serde_json::Value;

use crate::chat::Call;

struct Relay {
    answer: Response,
    call: Call,
    meter: UsageMeter,
    /// The beginning of a line.
    pending: Vec<u8>,
    /// How much text came so far, in bytes, of which each may be a token; `None` once the provider tells what was used.
    streamed: Option<u64>,
}

/// The lines of `answer`. At each moment `meter` shows what was used so far: an estimate, until the provider tells.
pub(crate) fn lines(answer: Response, call: Call, meter: UsageMeter) -> impl Stream<Item = Result<Vec<u8>>> {
    meter.record(call.price.of(call.prompt, 0));
    let relay = Relay { answer, call, meter, pending: Vec::new(), streamed: Some(0) };
    stream::try_unfold(relay, async |mut relay| {
        while let Some(chunk) = relay.answer.chunk().await? {
            relay.pending.extend_from_slice(&chunk);
            let whole = relay.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let rest = relay.pending.split_off(whole);
            let whole = mem::replace(&mut relay.pending, rest);
            let lines = whole.split_inclusive(|byte| *byte == b'\n').filter(|line| relay.passes(line));
            let shown = lines.collect::<Vec<_>>().concat();
            if !shown.is_empty() {
                return Ok(Some((shown, relay)));
            }
        }
        let rest = mem::take(&mut relay.pending);
        Ok((!rest.is_empty() && relay.passes(&rest)).then_some((rest, relay)))
    })
}

impl Relay {
    /// Records what `line` tells; whether it is shown.
    fn passes(&mut self, line: &[u8]) -> bool {
        let data = line.strip_prefix(b"data:").unwrap_or_default();
        let Ok(data) = serde_json::from_slice::<Value>(data) else { return true };
        let choices = data["choices"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(used) = self.call.price.told(&data) {
            self.meter.record(used);
            self.streamed = None;
            return !(self.call.hides_usage && choices.is_empty());
        }
        if let Some(streamed) = &mut self.streamed {
            let members = choices.iter().filter_map(|choice| choice["delta"].as_object()).flatten();
            let text = members.filter(|(name, value)| *name != "role" && !value.is_null());
            *streamed += text.map(|(_, value)| value.to_string().len() as u64).sum::<u64>();
            self.meter.record(self.call.price.of(self.call.prompt, *streamed));
        }
        true
    }
}
