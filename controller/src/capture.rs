//! Packets from capture files: classic pcap directly, everything else (pcapng, old variants) through libpcap,
//! `.gz` and `.zst` through a pipe.
//!
//! Every frame is handed on as Ethernet: raw IP and loopback captures get a header in front, so that there is
//! one gate and not one per link type.

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow, bail};
use floodwall_engine::Timestamp;
use pcap::{Capture, Linktype, Offline, Precision};

use crate::{
    input::{self, Compression, Counted, read_full},
    output::shown,
};

mod classic;

use classic::{ClassicCapture, Record};

const ETHERNET_BYTES: usize = 14;

/// One frame of a capture, Ethernet header first.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) at: Timestamp,
    pub(crate) bytes: &'a [u8],
    /// Length on the wire, which a snapped capture cuts.
    pub(crate) wire_bytes: u32,
}

/// A capture file being read.
pub(crate) struct CaptureFile {
    path: PathBuf,
    reader: Reader,
    link: Link,
    buffer: Vec<u8>,
    packets: u64,
    consumed: Arc<AtomicU64>,
    counts_own_bytes: bool,
    own_bytes: u64,
    decompressor: Option<JoinHandle<io::Result<()>>>,
    /// Keeps the pipe's reading end open while libpcap opens its own.
    _pipe: Option<io::PipeReader>,
}

/// Who reads the file.
enum Reader {
    Classic(ClassicCapture),
    Library(Capture<Offline>),
}

impl Reader {
    fn linktype(&self) -> Linktype {
        match self {
            Self::Classic(capture) => Linktype(capture.linktype()),
            Self::Library(capture) => capture.get_datalink(),
        }
    }

    fn next(&mut self) -> Result<Option<Record<'_>>> {
        match self {
            Self::Classic(capture) => capture.next(),
            Self::Library(capture) => match capture.next_packet() {
                Ok(packet) => Ok(Some(Record {
                    at: timestamp(packet.header),
                    wire_bytes: packet.header.len,
                    bytes: packet.data,
                })),
                Err(pcap::Error::NoMorePackets) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// What stands in front of the IP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    Ethernet,
    /// Nothing.
    RawIp,
    /// Four bytes of address family, in either byte order.
    Loopback,
    /// Linux "any" device: the EtherType at this offset, the payload at the next.
    Cooked {
        ethertype: usize,
        payload: usize,
    },
}

impl Link {
    fn of(linktype: Linktype) -> Option<Self> {
        match linktype.0 {
            1 => Some(Self::Ethernet),
            0 | 108 => Some(Self::Loopback),
            12 | 14 | 101 | 228 | 229 => Some(Self::RawIp),
            113 => Some(Self::Cooked { ethertype: 14, payload: 16 }),
            276 => Some(Self::Cooked { ethertype: 0, payload: 20 }),
            _ => None,
        }
    }

    /// The EtherType and the offset of what it announces; `None` for a frame too short.
    fn network(self, bytes: &[u8]) -> Option<(u16, usize)> {
        match self {
            Self::Ethernet => None,
            Self::RawIp => Some((ip_ethertype(*bytes.first()?), 0)),
            Self::Loopback => Some((ip_ethertype(*bytes.get(4)?), 4)),
            Self::Cooked { ethertype, payload } => {
                let high = *bytes.get(ethertype)?;
                let low = *bytes.get(ethertype + 1)?;
                Some((u16::from_be_bytes([high, low]), payload))
            }
        }
    }
}

const fn ip_ethertype(first: u8) -> u16 {
    match first >> 4 {
        4 => 0x0800,
        6 => 0x86dd,
        _ => 0,
    }
}

impl CaptureFile {
    /// Opens a capture.
    ///
    /// # Errors
    /// When it cannot be read, is no capture, or has a link type that is not understood.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let shown = shown(path);
        let consumed = Arc::new(AtomicU64::new(0));
        let (mut input, is_seekable) = input::open(path).with_context(|| format!("cannot read {shown}"))?;
        let mut magic = [0; 4];
        let (got, failure) = read_full(&mut input, &mut magic);
        if let Some(failure) = failure {
            return Err(failure).with_context(|| format!("cannot read {shown}"));
        }
        if got == 0 {
            bail!("{shown} is empty: not a capture");
        }
        let compression = Compression::of(magic.get(..got).unwrap_or_default());
        // Standard input and pipes cannot be wound back.
        let beginning = io::Cursor::new(magic.get(..got).unwrap_or_default().to_vec());
        let input: Box<dyn Read + Send> = Box::new(beginning.chain(input));
        let mut decompressor = None;
        let mut pipe = None;
        let is_direct = compression == Compression::None;
        let reader = if is_direct && ClassicCapture::recognises(magic) {
            Reader::Classic(ClassicCapture::open(input).with_context(|| shown.clone())?)
        } else if is_direct && is_seekable {
            Reader::Library(open_path(path, path)?)
        } else {
            let (reader, writer) = io::pipe().context("cannot make a pipe")?;
            let counted = Counted::new(input, Arc::clone(&consumed));
            decompressor = Some(std::thread::spawn(move || unpack(compression, counted, writer)));
            let descriptor = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
            pipe = Some(reader);
            Reader::Library(open_path(&descriptor, path)?)
        };
        let linktype = reader.linktype();
        let Some(link) = Link::of(linktype) else {
            let name = linktype.get_name().unwrap_or_else(|_| linktype.0.to_string());
            bail!("{shown}: link type {name} is not understood; capture on an Ethernet interface");
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            link,
            buffer: Vec::new(),
            packets: 0,
            consumed,
            counts_own_bytes: pipe.is_none(),
            own_bytes: 0,
            decompressor,
            _pipe: pipe,
        })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// Names file and packet number when the capture is truncated or corrupt.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Self { reader, packets, path, decompressor, .. } = self;
        let number = *packets + 1;
        let place = || format!("{}: packet {number}", shown(path));
        let Record { at, wire_bytes, bytes } = match reader.next() {
            Ok(Some(record)) => record,
            Ok(None) => return finish(decompressor.take()).map(|()| None).with_context(place),
            Err(error) => return Err(error).with_context(place),
        };
        *packets = number;
        if self.counts_own_bytes {
            // This thread alone writes it, so it need not be added to atomically.
            self.own_bytes += 16 + bytes.len() as u64;
            self.consumed.store(self.own_bytes, Ordering::Relaxed);
        }
        if self.link == Link::Ethernet {
            return Ok(Some(Frame { at, bytes, wire_bytes }));
        }
        // An unreadable link header leaves an empty frame: counted as undecoded, like any frame without IP.
        let (ethertype, offset) = self.link.network(bytes).unwrap_or((0, bytes.len()));
        self.buffer.clear();
        self.buffer.resize(ETHERNET_BYTES - 2, 0);
        self.buffer.extend_from_slice(&ethertype.to_be_bytes());
        self.buffer.extend_from_slice(bytes.get(offset..).unwrap_or_default());
        Ok(Some(Frame { at, bytes: &self.buffer, wire_bytes }))
    }

    /// Bytes of the file read so far; may be asked from another thread.
    pub(crate) fn consumed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.consumed)
    }
}

/// The end of a compressed capture is only the end if it unpacked to it.
fn finish(decompressor: Option<JoinHandle<io::Result<()>>>) -> Result<()> {
    let Some(thread) = decompressor else { return Ok(()) };
    match thread.join() {
        Ok(outcome) => outcome.context("cannot unpack"),
        Err(_) => bail!("the unpacking thread died"),
    }
}

/// What can be read.
const EXPECTED: &str =
    "a capture is a file as tcpdump and Wireshark write it, pcap or pcapng, plain or compressed (.gz, .zst)";

fn open_path(path: &Path, named: &Path) -> Result<Capture<Offline>> {
    Capture::from_file_with_precision(path, Precision::Nano)
        .map_err(|error| anyhow!("{}: {error}: {EXPECTED}", shown(named)))
}

#[expect(clippy::cast_sign_loss, reason = "clamped to what is not negative")]
fn timestamp(header: &pcap::PacketHeader) -> Timestamp {
    let seconds = header.ts.tv_sec.max(0) as u64;
    // With nanosecond precision the field that is called microseconds holds nanoseconds.
    let nanos = header.ts.tv_usec.max(0) as u64;
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Through a pipe, for those who read from a descriptor alone.
fn unpack(compression: Compression, from: Counted, mut to: io::PipeWriter) -> io::Result<()> {
    match compression.unpacked(from).and_then(|mut from| io::copy(&mut from, &mut to)) {
        Ok(_) => to.flush(),
        // The reader stopped early, for a reason it reports itself.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error),
    }
}
