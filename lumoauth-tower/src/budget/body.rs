//! The body of an answer that is paid for.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Account;

pin_project! {
    /// The body of an answer behind a [`BudgetLayer`](crate::BudgetLayer): what the call used is settled before its end is
    /// shown, and when it is dropped. It is `Send` and not `Sync`: what boxes bodies keeps it with `UnsyncBoxBody`.
    #[project = Projected]
    pub struct MeteredBody<B: Body> {
        #[pin]
        body: B,
        account: Option<Account>,
        settling: Option<BoxFuture<'static, ()>>,
        // The last frame: whoever reads it has seen the end, since nobody asks for more than was announced.
        last: Option<Frame<B::Data>>,
        ended: bool,
    }
}

impl<B: Body> MeteredBody<B> {
    /// A body that `account` is settled with.
    pub(crate) fn new(body: B, account: Account) -> Self {
        Self { account: Some(account), ..Self::free(body) }
    }

    /// A body that nobody pays for.
    pub(crate) fn free(body: B) -> Self {
        Self { body, account: None, settling: None, last: None, ended: false }
    }
}

impl<B> From<Bytes> for MeteredBody<B>
where
    B: Body + From<Bytes>,
{
    fn from(bytes: Bytes) -> Self {
        Self::free(B::from(bytes))
    }
}

impl<B> Default for MeteredBody<B>
where
    B: Body + Default,
{
    fn default() -> Self {
        Self::free(B::default())
    }
}

impl<B> fmt::Debug for MeteredBody<B>
where
    B: Body + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl<B: Body> Body for MeteredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Projected { mut body, account, settling, last, ended } = self.project();
        loop {
            if let Some(future) = settling {
                ready!(future.as_mut().poll(cx));
                *settling = None;
            }
            if let Some(frame) = last.take() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if *ended {
                return Poll::Ready(None);
            }
            match ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) if body.is_end_stream() => (*last, *ended) = (Some(frame), true),
                Some(frame) => return Poll::Ready(Some(frame)),
                None => *ended = true,
            }
            *settling = account.take().and_then(|mut account| account.settle());
        }
    }

    fn is_end_stream(&self) -> bool {
        let settled = self.account.is_none() && self.settling.is_none();
        settled && self.last.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(data) = self.last.as_ref().and_then(Frame::data_ref) {
            let waiting = data.remaining() as u64;
            let upper = hint.upper().map(|upper| upper.saturating_add(waiting));
            hint = {
                let mut with = SizeHint::new();
                if let Some(upper) = upper {
                    with.set_upper(upper);
                }
                with.set_lower(hint.lower().saturating_add(waiting));
                with
            };
        }
        hint
    }
}
