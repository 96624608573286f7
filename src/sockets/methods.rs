//! What sockets have in common: methods that are the same on several types, each declared once.
//!
//! A TCP stream, a Unix stream and the reading end of a pipe are read in the same way, and whoever looks
//! at one of them should find that among its own methods: with its own links, and callable without a
//! trait to import. A function or a trait of ours cannot put inherent methods on a type, so these are
//! macros. All that they add to a type is names and docs: what is done stands in
//! [`Registered`](super::source::Registered), which each of these types has in a field `registered`.
//!
//! The file of a type says which of them it has; what only it has stands there. The names in here
//! (`io`, `Poll`, `FusedFuture`) are those that the file imports. `PipeWriter` has its own methods for
//! writing, since each asks first whether it was closed.

/// Reading bytes. What is given is added to the docs of `read_lent`: an example.
macro_rules! reading {
    ($(#[$example:meta])*) => {
        /// Reads what is there, at most as much as fits; 0 is the end: nobody writes any more.
        ///
        /// Cancel safe: no byte is lost.
        ///
        /// # Errors
        ///
        /// What the system says: over sockets, `ConnectionReset` and the like.
        #[track_caller]
        pub fn read(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.read(Location::caller(), buf)
        }

        /// Reads until `buf` is full.
        ///
        /// Not cancel safe: what was read into `buf` by then is known only to this future.
        ///
        /// # Errors
        ///
        /// `UnexpectedEof` if the end comes before; what the system says.
        #[track_caller]
        pub fn read_exact(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.read_exact(Location::caller(), buf)
        }

        /// Reads what is there into several buffers at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// As [`read`](Self::read).
        #[track_caller]
        pub fn read_vectored(
            &self,
            bufs: &mut [IoSliceMut<'_>],
        ) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.read_vectored(Location::caller(), bufs)
        }

        /// Reads what is there into a buffer that the loop lends for it, so that who waits owns no buffer.
        /// Empty at the end.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// As [`read`](Self::read).
        ///
        $(#[$example])*
        #[track_caller]
        pub fn read_lent(&self) -> impl FusedFuture<Output = io::Result<Lent>> {
            self.registered.read_lent(Location::caller())
        }

        /// [`read_lent`](Self::read_lent) as a poll function: of the tasks that call it, the last one is
        /// woken.
        ///
        /// # Errors
        ///
        /// As [`read`](Self::read).
        pub fn poll_read_lent(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lent>> {
            self.registered.poll_read_lent(cx)
        }

        /// Reads if there is something, without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is nothing; as [`read`](Self::read).
        pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.registered.try_read(buf)
        }

        /// Reads into several buffers if there is something, without waiting.
        ///
        /// # Errors
        ///
        /// As [`try_read`](Self::try_read).
        pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            self.registered.try_read_vectored(bufs)
        }
    };
}

/// Writing bytes.
macro_rules! writing {
    () => {
        /// Writes as much as there is room for.
        ///
        /// Cancel safe: if it is dropped before it is done, nothing was written.
        ///
        /// # Errors
        ///
        /// What the system says: `BrokenPipe`, `ConnectionReset` and the like.
        #[track_caller]
        pub fn write(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.write(Location::caller(), buf)
        }

        /// Writes all of `buf`.
        ///
        /// Not cancel safe: how much was written by then is known only to this future.
        ///
        /// # Errors
        ///
        /// As [`write`](Self::write).
        #[track_caller]
        pub fn write_all(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.write_all(Location::caller(), buf)
        }

        /// Writes from several buffers at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// As [`write`](Self::write).
        #[track_caller]
        pub fn write_vectored(
            &self,
            bufs: &[IoSlice<'_>],
        ) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.write_vectored(Location::caller(), bufs)
        }

        /// Writes if there is room, without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is none; as [`write`](Self::write).
        pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
            self.registered.try_write(buf)
        }

        /// Writes from several buffers if there is room, without waiting.
        ///
        /// # Errors
        ///
        /// As [`try_write`](Self::try_write).
        pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            self.registered.try_write_vectored(bufs)
        }
    };
}

/// Datagrams. Sending one to an address is not among it, since addresses differ too much.
macro_rules! datagrams {
    () => {
        /// Sends a datagram to where the socket is connected, and gives its length.
        ///
        /// Cancel safe: if it is dropped before it is done, nothing was sent.
        ///
        /// # Errors
        ///
        /// What the system says: `NotConnected` (or its `EDESTADDRREQ`), `ConnectionRefused` if nobody
        /// receives there (UDP hears that of a datagram sent before), a datagram that is too long
        /// (`EMSGSIZE`).
        #[track_caller]
        pub fn send(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered
                .io(Direction::Write, Location::caller(), move |socket| send(socket, buf))
        }

        /// Receives a datagram, and gives its length.
        ///
        /// Cancel safe: no datagram is lost.
        ///
        /// # Errors
        ///
        /// What the system says: over UDP, `ConnectionRefused` of a datagram sent before, if connected.
        #[track_caller]
        pub fn recv(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv(buf))
        }

        /// Receives a datagram, and gives its length and where it came from.
        ///
        /// Cancel safe: no datagram is lost.
        ///
        /// # Errors
        ///
        /// As [`recv`](Self::recv).
        #[track_caller]
        pub fn recv_from(
            &self,
            buf: &mut [u8],
        ) -> impl FusedFuture<Output = io::Result<(usize, SocketAddr)>> {
            self.registered
                .io(Direction::Read, Location::caller(), move |socket| socket.recv_from(buf))
        }

        /// [`recv_from`](Self::recv_from) as a poll function: of the tasks that call it, the last one is
        /// woken.
        ///
        /// # Errors
        ///
        /// As [`recv`](Self::recv).
        pub fn poll_recv_from(
            &self,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<(usize, SocketAddr)>> {
            self.registered.poll_io(cx, Direction::Read, |socket| socket.recv_from(buf))
        }

        /// Sends a datagram to where the socket is connected, if there is room.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is none; as [`send`](Self::send).
        pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
            self.registered.try_io(Direction::Write, |socket| send(socket, buf))
        }

        /// Receives a datagram if one is there.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is none; as [`recv`](Self::recv).
        pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.registered.try_io(Direction::Read, |socket| socket.recv(buf))
        }

        /// Receives a datagram if one is there, and tells where it came from.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is none; as [`recv`](Self::recv).
        pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
            self.registered.try_io(Direction::Read, |socket| socket.recv_from(buf))
        }
    };
}

/// Accepting connections, of which the type's own `taken_over` makes a stream.
macro_rules! accepting {
    ($Stream:ident) => {
        /// Waits for a connection. The stream belongs to the current loop.
        ///
        /// Cancel safe: a connection is not lost.
        ///
        /// # Errors
        ///
        /// What the system says; a connection that was given up again by its client (`ECONNABORTED`) is
        /// skipped. `EMFILE` and `ENFILE` leave the connection waiting: accept again after a pause.
        #[track_caller]
        pub fn accept(&self) -> impl FusedFuture<Output = io::Result<($Stream, SocketAddr)>> {
            let place = Location::caller();
            self.registered.waiting(Direction::Read, place, move |asker| self.poll_accept_by(asker))
        }

        /// [`accept`](Self::accept) as a poll function: of the tasks that call it, the last one is woken.
        ///
        /// # Errors
        ///
        /// As [`accept`](Self::accept).
        pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<($Stream, SocketAddr)>> {
            self.poll_accept_by(cx.into())
        }

        fn poll_accept_by(&self, asker: Asker<'_>) -> Poll<io::Result<($Stream, SocketAddr)>> {
            loop {
                match self.registered.poll_io(asker, Direction::Read, |listener| listener.accept())
                {
                    Poll::Ready(Ok((stream, peer))) => {
                        return Poll::Ready(self.taken_over(stream).map(|stream| (stream, peer)));
                    }
                    Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }

        /// Accepts a connection if one is waiting, else `WouldBlock`.
        ///
        /// # Errors
        ///
        /// As [`accept`](Self::accept).
        pub fn try_accept(&self) -> io::Result<($Stream, SocketAddr)> {
            loop {
                match self.registered.try_io(Direction::Read, |listener| listener.accept()) {
                    Ok((stream, peer)) => return Ok((self.taken_over(stream)?, peer)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return Err(error),
                }
            }
        }

        /// Connections as a stream, which never ends. There may be several at once.
        #[track_caller]
        pub fn incoming(&self) -> impl Stream<Item = io::Result<$Stream>> {
            let waits = self.registered.waits(Direction::Read, Location::caller());
            futures::stream::poll_fn(move |cx| {
                let accepted = waits.poll(cx, |asker| self.poll_accept_by(asker));
                accepted.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
            })
        }
    };
}

/// Waiting until there may be something to read: what that is, and which method takes it.
macro_rules! readable {
    ($what:literal, $take:ident) => {
        #[doc = concat!(
            "Waits until there may be ", $what, "; then use [`", stringify!($take), "`](Self::",
            stringify!($take), ").",
        )]
        ///
        /// Only `WouldBlock` from there tells that there is none. What is new here may count as ready until
        /// then, so the first wait may be over at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// If it belongs to another loop.
        #[track_caller]
        pub fn readable(&self) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.ready(Direction::Read, Location::caller())
        }

        /// [`readable`](Self::readable) as a poll function: of the tasks that call it, the last one is
        /// woken.
        ///
        /// # Errors
        ///
        /// As [`readable`](Self::readable).
        pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.registered.poll_ready(cx, Direction::Read)
        }
    };
}

/// Waiting until there may be room: for what, and which method takes it.
macro_rules! writable {
    ($what:literal, $take:ident) => {
        #[doc = concat!(
            "Waits until there may be ", $what, "; then use [`", stringify!($take), "`](Self::",
            stringify!($take), ").",
        )]
        ///
        /// Only `WouldBlock` from there tells that there is none. What is new here may count as ready until
        /// then, so the first wait may be over at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// If it belongs to another loop.
        #[track_caller]
        pub fn writable(&self) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.ready(Direction::Write, Location::caller())
        }

        /// [`writable`](Self::writable) as a poll function: of the tasks that call it, the last one is
        /// woken.
        ///
        /// # Errors
        ///
        /// As [`writable`](Self::writable).
        pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.registered.poll_ready(cx, Direction::Write)
        }
    };
}

/// System calls for which there is no method, and the error that the system keeps of one. What is given
/// is added to the docs of `async_io`: an example.
macro_rules! system_calls {
    ($(#[$example:meta])*) => {
        /// Does an operation of your own on the socket, once, without waiting. If it answers `WouldBlock`,
        /// the socket waits from now on.
        ///
        /// `operation` gets at the socket by its [`AsFd`], and must not block. One that does not read or
        /// write this socket must not answer `WouldBlock`: who waits then would wait for what is there
        /// already.
        ///
        /// # Errors
        ///
        /// Those of `operation`; `InvalidInput` if `interest` is not one of [`Interest::READ`] and
        /// [`Interest::WRITE`]; that the socket belongs to another loop. `operation` is not called in those
        /// two cases.
        pub fn try_io<R>(
            &self,
            interest: Interest,
            operation: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            self.registered.try_own(interest, operation)
        }

        /// Does an operation of your own on the socket, again each time that is ready, until it answers
        /// something else than `WouldBlock`. As with [`try_io`](Self::try_io), it gets at the socket by its
        /// [`AsFd`], and must not block.
        ///
        /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of
        /// `operation`, never in one.
        ///
        /// # Errors
        ///
        /// As [`try_io`](Self::try_io).
        ///
        $(#[$example])*
        #[track_caller]
        pub fn async_io<R>(
            &self,
            interest: Interest,
            operation: impl FnMut() -> io::Result<R>,
        ) -> impl FusedFuture<Output = io::Result<R>> {
            self.registered.own(interest, Location::caller(), operation)
        }

        /// The error that the socket has kept, if any (`SO_ERROR`).
        ///
        /// # Errors
        ///
        /// What the system says.
        pub fn take_error(&self) -> io::Result<Option<io::Error>> {
            self.registered.ask(|socket| socket.take_error())
        }
    };
}

/// The way back to the standard library's socket.
macro_rules! into_std {
    ($Std:ty) => {
        /// Gives the socket up, in blocking mode as std's are.
        ///
        /// # Errors
        ///
        /// If it does not belong to the current loop; it is closed then.
        pub fn into_std(self) -> io::Result<$Std> {
            let socket = <$Std>::from(self.registered.into_source()?);
            socket.set_nonblocking(false)?;
            Ok(socket)
        }
    };
}

/// The two directions of a stream as two values.
macro_rules! halves {
    ($Stream:ident) => {
        /// The two directions, for two parts of one coroutine.
        pub fn split(&mut self) -> (ReadHalf<'_, $Stream>, WriteHalf<'_, $Stream>) {
            (ReadHalf(self), WriteHalf(self))
        }

        /// The two directions, for two coroutines. Dropping the write half ends the stream for the other
        /// side; dropping both closes it. [`reunite`](OwnedReadHalf::reunite) makes them one again.
        pub fn into_split(self) -> (OwnedReadHalf<$Stream>, OwnedWriteHalf<$Stream>) {
            into_split(self)
        }
    };
}

/// [`AsyncRead`](futures::io::AsyncRead), for a type and for references to it.
macro_rules! async_read {
    ($($Reader:ty),*) => {$(
        impl AsyncRead for $Reader {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.registered.poll_read(cx, buf)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                self.registered.poll_read_vectored(cx, bufs)
            }
        }
    )*};
}

/// [`AsyncWrite`](futures::io::AsyncWrite), for a type and for references to it; closing it ends what it
/// writes.
macro_rules! async_write {
    ($($Writer:ty),*) => {$(
        impl AsyncWrite for $Writer {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.registered.poll_write(cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.registered.poll_write_vectored(cx, bufs)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(is_closed_by(self.shutdown(Shutdown::Write)))
            }
        }
    )*};
}

/// What shows the fd: `Debug`, `AsFd` and `AsRawFd`.
macro_rules! shows_fd {
    ($($Socket:ty),*) => {$(
        impl fmt::Debug for $Socket {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.registered.fmt(f)
            }
        }

        impl AsFd for $Socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.registered.as_fd()
            }
        }

        impl AsRawFd for $Socket {
            fn as_raw_fd(&self) -> RawFd {
                self.registered.as_raw_fd()
            }
        }
    )*};
}

pub(super) use {
    accepting, async_read, async_write, datagrams, halves, into_std, readable, reading, shows_fd,
    system_calls, writable, writing,
};
