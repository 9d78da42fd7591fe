//! A gate before the UDP sockets. Not part of netwatch as published: see README.md.
//!
//! Sockets that are bound while a future runs within [`scope`] ask its [`Gate`] before each datagram, for as long as they live, also after they were bound again. Sockets bound
//! elsewhere are as they always were.

use std::{
    cell::RefCell,
    fmt::Debug,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Decides which datagrams leave.
pub trait Gate: Debug + Send + Sync {
    /// Asked before each datagram; one that may not leave is dropped, as the network drops datagrams.
    fn may_send(&self, destination: SocketAddr) -> bool;
    /// A datagram came in.
    fn received(&self, source: SocketAddr);
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Gate>>> = const { RefCell::new(None) };
}

/// The gate of the scope that runs on this thread.
pub(crate) fn current() -> Option<Arc<dyn Gate>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// What a sender gets whose datagram may not leave.
pub(crate) fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "no flow for this destination")
}

/// Runs a future; sockets that it binds itself (not in tasks that it spawns) ask the gate.
pub fn scope<F: Future>(gate: Arc<dyn Gate>, future: F) -> Scope<F> {
    Scope {
        gate,
        future: Box::pin(future),
    }
}

/// See [`scope`].
#[derive(Debug)]
pub struct Scope<F> {
    gate: Arc<dyn Gate>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = Entered(CURRENT.with(|current| current.replace(Some(self.gate.clone()))));
        self.future.as_mut().poll(cx)
    }
}

/// Puts the scope around this one back, also when the future panics.
struct Entered(Option<Arc<dyn Gate>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.0.take();
        CURRENT.with(|current| *current.borrow_mut() = outer);
    }
}
