//! The kernel's counters of a TCP connection: `struct tcp_info` of `linux/tcp.h`, read with `getsockopt`.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// A TCP connection's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// Bytes that arrived, whether the process has read them or not.
    pub received: u64,
    /// Bytes that the other side has acknowledged.
    pub acknowledged: u64,
    /// Milliseconds since data last arrived.
    pub idle_ms: u32,
}

/// The kernel's layout up to `tcpi_bytes_received`; newer kernels only add fields at the end.
#[repr(C)]
#[derive(Default)]
struct Raw {
    flags: [u8; 8],
    before_last_data_recv: [u32; 11],
    last_data_recv: u32,
    after_last_data_recv: [u32; 12],
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
}

const _: () = assert!(std::mem::offset_of!(Raw, last_data_recv) == 52);
const _: () = assert!(std::mem::offset_of!(Raw, bytes_acked) == 120);
const _: () = assert!(std::mem::offset_of!(Raw, bytes_received) == 128);

impl TcpInfo {
    /// Reads the counters of a socket. Returns `None` if it is not TCP, or before Linux 4.1, which does not count
    /// bytes.
    pub fn of(socket: impl AsFd) -> Option<TcpInfo> {
        let mut raw = Raw::default();
        let mut len = libc::socklen_t::try_from(size_of::<Raw>()).ok()?;
        // SAFETY: the kernel writes at most `len` bytes to `raw`, in which every bit pattern is valid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut raw).cast::<libc::c_void>(),
                &raw mut len,
            )
        };
        let complete = result == 0 && len as usize == size_of::<Raw>();
        complete.then_some(TcpInfo {
            received: raw.bytes_received,
            acknowledged: raw.bytes_acked,
            idle_ms: raw.last_data_recv,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn counts_what_a_connection_received() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(b"abcd").expect("sent");
        server.read_exact(&mut [0; 4]).expect("received");
        let both = (TcpInfo::of(&server).expect("TCP"), TcpInfo::of(&client).expect("TCP"));
        assert_eq!((both.0.received, both.1.received), (4, 0));
        assert!(both.0.idle_ms < 60_000, "{both:?}");
    }
}
