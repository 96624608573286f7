//! `Expect: 100-continue`: a body that is sent only when the server wants it.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use futures::channel::oneshot;
use http_body::{Frame, SizeHint};

use crate::coroutine::{Sleep, sleep};
use crate::http::body::Body;
use crate::http::error::BodyError;

/// How long a server may take to say that it wants the body. Some never say it, so then it is sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a request asks the server first.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Holds the body of a request back until the server says `100 Continue`, or nothing for a second. If it gives
/// its answer first, the body is never sent.
pub(super) fn hold_back(request: Request<Body>) -> Request<Body> {
    let (wanted, gate) = oneshot::channel();
    let wanted = Mutex::new(Some(wanted));
    let mut request = request.map(|body| {
        let patience = sleep(PATIENCE);
        Body::streamed(HeldBack { gate: Some((gate, patience)), body })
    });
    // hyper drops this together with the sender when it has the answer.
    ::hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            let wanted = wanted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            // If nobody waits for it, the body is sent already.
            wanted.map(|wanted| wanted.send(()));
        }
    });
    request
}

struct HeldBack {
    /// `None` once the body is sent.
    gate: Option<(oneshot::Receiver<()>, Sleep)>,
    body: Body,
}

impl http_body::Body for HeldBack {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((gate, patience)) = &mut self.gate {
            match Pin::new(gate).poll(cx) {
                Poll::Ready(Ok(())) => {}
                // The answer has come. This ends when hyper has gone through with that.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => ready!(Pin::new(patience).poll(cx)),
            }
            self.gate = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.gate.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
