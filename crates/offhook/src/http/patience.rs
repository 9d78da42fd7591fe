//! A listener that bounds how many connections there are, and ends those whose other side does not take what it is sent, or says nothing for long.
//!
//! A reader that stops reading holds up only its own connection: what it follows is in the log, and it comes back with the last number that it has.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; others wait to be accepted.
    pub(crate) connections: usize,
    /// Without a byte taken while there are some to send.
    pub(crate) stuck: Duration,
    /// Without a byte in either direction.
    pub(crate) idle: Duration,
}

impl Limits {
    /// Event streams say something every 15 s, so idle means nobody is there.
    pub(crate) const USUAL: Self = Self {
        connections: 256,
        stuck: Duration::from_secs(20),
        idle: Duration::from_secs(120),
    };
}

/// A listener with limits.
pub(crate) struct Patient<L> {
    listener: L,
    limits: Limits,
    places: Arc<Semaphore>,
}

impl<L> Patient<L> {
    pub(crate) fn new(listener: L, limits: Limits) -> Self {
        Self {
            listener,
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
        }
    }
}

impl<L: Listener> Listener for Patient<L> {
    type Io = PatientIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (PatientIo::new(io, self.limits, place), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with limits.
pub(crate) struct PatientIo<T> {
    io: T,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    last: Instant,
    /// Since when a write waits.
    stuck_since: Option<Instant>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T> PatientIo<T> {
    fn new(io: T, limits: Limits, place: Option<OwnedSemaphorePermit>) -> Self {
        let now = Instant::now();
        Self {
            io,
            limits,
            timer: Box::pin(sleep_until(now + limits.idle)),
            last: now,
            stuck_since: None,
            _place: place,
        }
    }

    fn moved(&mut self) {
        self.last = Instant::now();
    }

    /// Pending, or the end of patience.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let idle = self.last + self.limits.idle;
        let end = self
            .stuck_since
            .map_or(idle, |since| idle.min(since + self.limits.stuck));
        if self.timer.deadline() != end {
            self.timer.as_mut().reset(end);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn wrote<R>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match result {
            Poll::Ready(done) => {
                self.stuck_since = None;
                self.moved();
                Poll::Ready(done)
            }
            Poll::Pending => {
                self.stuck_since.get_or_insert_with(Instant::now);
                self.wait(context).map(Err)
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PatientIo<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_read(context, buffer) {
            Poll::Ready(done) => {
                this.moved();
                Poll::Ready(done)
            }
            Poll::Pending => this.wait(context).map(Err),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PatientIo<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(context, bytes);
        this.wrote(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.wrote(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    const SHORT: Limits = Limits {
        connections: 1,
        stuck: Duration::from_millis(100),
        idle: Duration::from_secs(30),
    };

    #[tokio::test]
    async fn whoever_does_not_read_is_cut_off() {
        let (near, mut far) = duplex(64);
        let mut near = PatientIo::new(near, SHORT, None);
        let error = near.write_all(&[7; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut first = [0; 64];
        far.read_exact(&mut first).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_reads_slowly_is_not() {
        let (near, mut far) = duplex(64);
        let mut near = PatientIo::new(near, SHORT, None);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            while all.len() < 512 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut some = [0; 64];
                let count = far.read(&mut some).await.unwrap();
                all.extend_from_slice(&some[..count]);
            }
            all.len()
        });
        near.write_all(&[7; 512]).await.unwrap();
        assert_eq!(reader.await.unwrap(), 512);
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_not_kept() {
        let (near, _far) = duplex(64);
        let limits = Limits {
            idle: Duration::from_millis(50),
            ..SHORT
        };
        let mut near = PatientIo::new(near, limits, None);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
