//! Methods that several kinds of sockets have in common, each written once.
//!
//! A TCP stream, a Unix stream and the reading end of a pipe are read in the same way. A user of any of
//! them should find `read` among its own methods, with docs whose links lead to that type, and should
//! not have to import a trait to call it. Only an `impl` block of the type itself can give it such
//! methods, so they are macros that are called in that block. They add nothing but names and docs: each
//! method calls one of [`Registered`](super::source::Registered), where the work is done. Each of these
//! types has a field `registered` of that type.
//!
//! # How a socket's file chooses
//!
//! Its `impl` block calls the macros for what the socket can do, among the methods that it alone has:
//!
//! ```text
//! impl UnixStream {
//!     pub fn pair() -> ... // what only a Unix stream has
//!
//!     into_std!(net::UnixStream);                  // the type of std that it can be turned into
//!     reading!();                                  // read, read_exact, read_lent, try_read, ...
//!     writing!();                                  // write, write_all, try_write, ...
//!     readable!("something to read", try_read);    // what `readable` waits for, and what to call then
//! }
//!
//! async_read!(UnixStream, &UnixStream);            // traits, outside of the block
//! ```
//!
//! A macro uses names such as `io`, `Poll` and `FusedFuture` as they are in the file that calls it,
//! which has to import them. `PipeWriter` writes its methods for writing out by itself, because it may
//! have been closed, and each of them checks that first.

/// Methods that read bytes. The argument is an example, which is added to the docs of `read_lent`.
macro_rules! reading {
    ($(#[$example:meta])*) => {
        /// Waits until there is something to read, reads at most as much as fits into `buf`, and gives the
        /// number of bytes. That is 0 at the end of the stream, when nobody writes any more.
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
        /// Not cancel safe: only this future knows how much it has read into `buf`.
        ///
        /// # Errors
        ///
        /// `UnexpectedEof` if the stream ends before `buf` is full; what the system says.
        #[track_caller]
        pub fn read_exact(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.read_exact(Location::caller(), buf)
        }

        /// [`read`](Self::read) into several buffers, one after the other, by one system call.
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

        /// Waits until there is something to read, and reads it into a buffer that the loop lends then.
        /// So a connection that waits has no buffer. What this gives is empty at the end of the stream.
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

        /// [`read_lent`](Self::read_lent) as a poll function: of the tasks that call it, only the last
        /// one is woken.
        ///
        /// # Errors
        ///
        /// As [`read`](Self::read).
        pub fn poll_read_lent(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lent>> {
            self.registered.poll_read_lent(cx)
        }

        /// [`read`](Self::read) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is nothing to read yet; else as [`read`](Self::read).
        pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.registered.try_read(buf)
        }

        /// [`read_vectored`](Self::read_vectored) without waiting.
        ///
        /// # Errors
        ///
        /// As [`try_read`](Self::try_read).
        pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            self.registered.try_read_vectored(bufs)
        }
    };
}

/// Methods that write bytes.
macro_rules! writing {
    () => {
        /// Waits until there is room, writes as much of `buf` as fits, and gives the number of bytes.
        ///
        /// Cancel safe: if the future is dropped before it is done, nothing was written.
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
        /// Not cancel safe: only this future knows how much it has written.
        ///
        /// # Errors
        ///
        /// As [`write`](Self::write).
        #[track_caller]
        pub fn write_all(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.write_all(Location::caller(), buf)
        }

        /// [`write`](Self::write) from several buffers, one after the other, by one system call.
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

        /// [`write`](Self::write) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is no room; else as [`write`](Self::write).
        pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
            self.registered.try_write(buf)
        }

        /// [`write_vectored`](Self::write_vectored) without waiting.
        ///
        /// # Errors
        ///
        /// As [`try_write`](Self::try_write).
        pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            self.registered.try_write_vectored(bufs)
        }
    };
}

/// Methods that send and receive datagrams. Sending one to an address is not among them, because the
/// address of a UDP socket is looked up first, and that of a Unix socket is a path.
macro_rules! datagrams {
    () => {
        /// Sends a datagram to the address that the socket is connected to, and gives its length.
        ///
        /// Cancel safe: if the future is dropped before it is done, nothing was sent.
        ///
        /// # Errors
        ///
        /// What the system says: `NotConnected` (some systems say `EDESTADDRREQ`); `ConnectionRefused`
        /// if nobody receives at that address (over UDP that is heard later, of a datagram that was sent
        /// before); `EMSGSIZE` if the datagram is too long.
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
        /// What the system says: over a UDP socket that is connected, `ConnectionRefused` if nobody has
        /// received a datagram that was sent before.
        #[track_caller]
        pub fn recv(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
            self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv(buf))
        }

        /// Receives a datagram, and gives its length and the address of its sender.
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

        /// [`recv_from`](Self::recv_from) as a poll function: of the tasks that call it, only the last
        /// one is woken.
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

        /// [`send`](Self::send) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is no room; else as [`send`](Self::send).
        pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
            self.registered.try_io(Direction::Write, |socket| send(socket, buf))
        }

        /// [`recv`](Self::recv) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if no datagram is there; else as [`recv`](Self::recv).
        pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.registered.try_io(Direction::Read, |socket| socket.recv(buf))
        }

        /// [`recv_from`](Self::recv_from) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if no datagram is there; else as [`recv`](Self::recv).
        pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
            self.registered.try_io(Direction::Read, |socket| socket.recv_from(buf))
        }
    };
}

/// Methods that accept connections. The type has a method `wrap_accepted`, which makes a `$Stream` of
/// the socket that was accepted.
macro_rules! accepting {
    ($Stream:ident) => {
        /// Waits for a connection, and gives it with the address of its other end. The stream belongs to
        /// the current loop.
        ///
        /// Cancel safe: no connection is lost.
        ///
        /// # Errors
        ///
        /// What the system says. After `EMFILE` or `ENFILE` (too many open files) the connection still
        /// waits to be accepted: try again after a pause. A connection that its client has given up
        /// meanwhile (`ECONNABORTED`) is no error: it is skipped.
        #[track_caller]
        pub fn accept(&self) -> impl FusedFuture<Output = io::Result<($Stream, SocketAddr)>> {
            let place = Location::caller();
            self.registered.waiting(Direction::Read, place, move |asker| self.poll_accept_by(asker))
        }

        /// [`accept`](Self::accept) as a poll function: of the tasks that call it, only the last one is
        /// woken.
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
                        return Poll::Ready(
                            self.wrap_accepted(stream).map(|stream| (stream, peer)),
                        );
                    }
                    Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }

        /// [`accept`](Self::accept) without waiting.
        ///
        /// # Errors
        ///
        /// `WouldBlock` if there is no connection; else as [`accept`](Self::accept).
        pub fn try_accept(&self) -> io::Result<($Stream, SocketAddr)> {
            loop {
                match self.registered.try_io(Direction::Read, |listener| listener.accept()) {
                    Ok((stream, peer)) => return Ok((self.wrap_accepted(stream)?, peer)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return Err(error),
                }
            }
        }

        /// The connections as a stream, which never ends: each item is what [`accept`](Self::accept)
        /// would give, without the address. There may be several such streams of a listener at once;
        /// each connection goes to one of them.
        #[track_caller]
        pub fn incoming(&self) -> impl Stream<Item = io::Result<$Stream>> {
            let holder = self.registered.ticket_holder(Direction::Read, Location::caller());
            futures::stream::poll_fn(move |cx| {
                let accepted = holder.poll(cx, |asker| self.poll_accept_by(asker));
                accepted.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
            })
        }
    };
}

/// Methods that wait until there may be something to read. The arguments are, for the docs, what there
/// may be to read, and the name of the method that takes it.
macro_rules! readable {
    ($what:literal, $take:ident) => {
        #[doc = concat!(
            "Waits until there may be ", $what, "; then use [`", stringify!($take), "`](Self::",
            stringify!($take), ").",
        )]
        ///
        /// There may be none all the same: then that method answers `WouldBlock`, and from there on this
        /// waits. A new socket may count as readable until such an answer, so the first wait may be over
        /// at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// If it belongs to another loop than the current one.
        #[track_caller]
        pub fn readable(&self) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.ready(Direction::Read, Location::caller())
        }

        /// [`readable`](Self::readable) as a poll function: of the tasks that call it, only the last one
        /// is woken.
        ///
        /// # Errors
        ///
        /// As [`readable`](Self::readable).
        pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.registered.poll_ready(cx, Direction::Read)
        }
    };
}

/// Methods that wait until there may be room to write. The arguments are, for the docs, what there may
/// be room for, and the name of the method that uses it.
macro_rules! writable {
    ($what:literal, $take:ident) => {
        #[doc = concat!(
            "Waits until there may be ", $what, "; then use [`", stringify!($take), "`](Self::",
            stringify!($take), ").",
        )]
        ///
        /// There may be none all the same: then that method answers `WouldBlock`, and from there on this
        /// waits. A new socket may count as writable until such an answer, so the first wait may be over
        /// at once.
        ///
        /// Cancel safe.
        ///
        /// # Errors
        ///
        /// If it belongs to another loop than the current one.
        #[track_caller]
        pub fn writable(&self) -> impl FusedFuture<Output = io::Result<()>> {
            self.registered.ready(Direction::Write, Location::caller())
        }

        /// [`writable`](Self::writable) as a poll function: of the tasks that call it, only the last one
        /// is woken.
        ///
        /// # Errors
        ///
        /// As [`writable`](Self::writable).
        pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.registered.poll_ready(cx, Direction::Write)
        }
    };
}

/// Methods that do a system call for which there is no method, and one that asks for the error which the
/// system has kept of the socket. The argument is an example, which is added to the docs of `async_io`.
macro_rules! system_calls {
    ($(#[$example:meta])*) => {
        /// Does an operation of your own on the socket, once, without waiting. If `operation` answers
        /// `WouldBlock`, the loop notes that the socket is not ready: whoever waits for it next does wait.
        ///
        /// `operation` gets at the socket by its [`AsFd`], and must not block. An operation that does
        /// not read or write this socket must not answer `WouldBlock`: if the socket has something to
        /// read all the same, the selector has reported that already and will not do so again, so
        /// whoever reads next would wait for ever.
        ///
        /// # Errors
        ///
        /// Those of `operation`. Without calling `operation`: `InvalidInput` if `interest` is not one of
        /// [`Interest::READ`] and [`Interest::WRITE`], and an error if the socket belongs to another loop
        /// than the current one.
        pub fn try_io<R>(
            &self,
            interest: Interest,
            operation: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            self.registered.try_user_io(interest, operation)
        }

        /// Does an operation of your own on the socket. As long as `operation` answers `WouldBlock`,
        /// waits until the socket is ready again, and calls it again. As with [`try_io`](Self::try_io),
        /// it gets at the socket by its [`AsFd`], and must not block.
        ///
        /// After `Interrupted` it is called again at once. Cancel safe: the future can only be dropped
        /// between two calls of `operation`, never in one.
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
            self.registered.user_io(interest, Location::caller(), operation)
        }

        /// Takes the error that the system has kept of the socket, if there is one (`SO_ERROR`).
        ///
        /// # Errors
        ///
        /// What the system says.
        pub fn take_error(&self) -> io::Result<Option<io::Error>> {
            self.registered.ask(|socket| socket.take_error())
        }
    };
}

/// The method that turns the socket into one of the standard library.
macro_rules! into_std {
    ($Std:ty) => {
        /// Takes the socket from the loop and gives it as one of the standard library, in blocking mode as
        /// those are.
        ///
        /// # Errors
        ///
        /// If it belongs to another loop than the current one; what the system says. The socket is
        /// closed then.
        pub fn into_std(self) -> io::Result<$Std> {
            let socket = <$Std>::from(self.registered.into_source()?);
            socket.set_nonblocking(false)?;
            Ok(socket)
        }
    };
}

/// Methods that give the two directions of a stream as two values.
macro_rules! halves {
    ($Stream:ident) => {
        /// The two directions as two values that borrow the stream, for two parts of one coroutine.
        pub fn split(&mut self) -> (ReadHalf<'_, $Stream>, WriteHalf<'_, $Stream>) {
            (ReadHalf(self), WriteHalf(self))
        }

        /// The two directions as two values that share the stream, for two coroutines. Dropping the
        /// write half tells the other side that the stream has ended; dropping both halves closes it.
        /// [`reunite`](OwnedReadHalf::reunite) makes them one again.
        pub fn into_split(self) -> (OwnedReadHalf<$Stream>, OwnedWriteHalf<$Stream>) {
            into_split(self)
        }
    };
}

/// Implements [`AsyncRead`](futures::io::AsyncRead), for a type and for references to it.
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

/// Implements [`AsyncWrite`](futures::io::AsyncWrite), for a type and for references to it. `poll_close`
/// shuts down the direction that is written to; the other one can still be read.
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
                Poll::Ready(ok_if_disconnected(self.shutdown(Shutdown::Write)))
            }
        }
    )*};
}

/// Implements the traits that show the fd: `Debug`, `AsFd` and `AsRawFd`.
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
