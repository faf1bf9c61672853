//! The body of a signed request.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use lumoauth_core::httpsig::{Content, Digester, Promised, SignatureError};
use pin_project_lite::pin_project;

/// Why the body of a signed request breaks off.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckedBodyError {
    /// It is not the content that was signed. Whatever was done with the part that was read must be undone.
    Signature(SignatureError),
    /// It did not arrive.
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for CheckedBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature(_) => f.write_str("the body is not what was signed"),
            Self::Body(_) => f.write_str("the body broke off"),
        }
    }
}

impl std::error::Error for CheckedBodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Signature(error) => Some(error),
            Self::Body(error) => Some(&**error),
        }
    }
}

pin_project! {
    /// The body that a service behind an [`AAuthLayer`](crate::AAuthLayer) gets: as it was received, all of it seen and found to
    /// be what was signed; or, behind one that lets it flow, still to be seen. Trailers are left out, since nothing signs them.
    ///
    /// Of a body that flows, the last part is handed on when all of it was found to be what was signed. If it is not, there is
    /// an error in its place: who has seen the end has seen the content that was signed.
    #[project = Projected]
    pub struct CheckedBody<B> {
        #[pin]
        body: Option<B>,
        flow: Option<Flow>,
        // What is to be handed on next.
        next: Option<Bytes>,
    }
}

/// A body on its way.
struct Flow {
    promised: Promised,
    digester: Digester,
}

impl<B> CheckedBody<B> {
    /// A body that was seen.
    pub(super) fn whole(content: Bytes) -> Self {
        Self { body: None, flow: None, next: Some(content).filter(|content| !content.is_empty()) }
    }

    /// A body that is to be seen.
    pub(super) fn flowing(body: B, promised: Promised) -> Self {
        Self { body: Some(body), flow: Some(Flow { promised, digester: Digester::new() }), next: None }
    }
}

impl<B> fmt::Debug for CheckedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedBody").field("flowing", &self.flow.is_some()).finish_non_exhaustive()
    }
}

impl<B> Body for CheckedBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = CheckedBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CheckedBodyError>>> {
        let Projected { mut body, flow, next } = self.project();
        while let (Some(flowing), Some(body)) = (flow.as_mut(), body.as_mut().as_pin_mut()) {
            match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    let data = data.copy_to_bytes(data.remaining());
                    if data.is_empty() {
                        continue;
                    }
                    flowing.digester.update(&data);
                    if let Some(ready) = next.replace(data) {
                        return Poll::Ready(Some(Ok(Frame::data(ready))));
                    }
                }
                Some(Err(error)) => {
                    (*flow, *next) = (None, None);
                    return Poll::Ready(Some(Err(CheckedBodyError::Body(error.into()))));
                }
                None => {
                    let Some(Flow { promised, digester }) = flow.take() else { break };
                    if let Err(error) = promised.check(Content::Digested(&digester.finish())) {
                        tracing::debug!(%error, "a body is not what was signed");
                        *next = None;
                        return Poll::Ready(Some(Err(CheckedBodyError::Signature(error))));
                    }
                }
            }
        }
        Poll::Ready(next.take().map(|last| Ok(Frame::data(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.flow.is_none() && self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = self.next.as_ref().map_or(0, |next| next.len() as u64);
        match (&self.flow, &self.body) {
            (Some(_), Some(body)) => {
                let rest = body.size_hint();
                let mut hint = SizeHint::new();
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(waiting));
                }
                hint.set_lower(rest.lower().saturating_add(waiting));
                hint
            }
            _ => SizeHint::with_exact(waiting),
        }
    }
}
