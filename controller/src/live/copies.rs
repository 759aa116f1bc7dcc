//! Copies of packets from libpcap: all there is where XDP cannot be attached, and beside XDP the links between servers
//! that the gate, which looks at guarded ports only, does not mirror.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use floodwall_engine::Timestamp;
use pcap::{Active, BreakLoop, Capture, Direction};
use tokio::sync::mpsc;

/// Bytes kept of a packet: a whole jumbo frame, so that control channels are read to the end.
const SNAP_BYTES: i32 = 65_535;
/// The kernel's buffer between the interface and us.
const BUFFER_BYTES: i32 = 16 * 1024 * 1024;
/// Packets on their way from the capturing threads to the wall; beyond that they are lost and counted.
const FRAMES_MAX: usize = 8_192;
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// One captured packet.
pub(super) struct Frame {
    /// UTC, as the kernel stamped it.
    pub(super) at: Timestamp,
    pub(super) bytes: Vec<u8>,
}

/// Captures at some interfaces, a thread each. They end with the value.
pub(super) struct Copies {
    frames: mpsc::Receiver<Frame>,
    threads: Vec<(JoinHandle<()>, BreakLoop)>,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Copies {
    /// Captures what a filter of libpcap lets through. Nothing of the host is changed.
    pub(super) fn start(interfaces: &[String], filter: &str) -> Result<Self> {
        // Every interface is opened before any is read: one that cannot be is said at once.
        let captures =
            interfaces.iter().map(|interface| open(interface, filter)).collect::<Result<Vec<_>>>()?;
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut copies = Self { frames, threads: Vec::new(), stop, lost };
        for mut capture in captures {
            let waker = capture.breakloop_handle();
            let (sender, stop, lost) = (sender.clone(), Arc::clone(&copies.stop), Arc::clone(&copies.lost));
            let thread = thread::Builder::new().name("capture".to_owned());
            copies.threads.push((thread.spawn(move || read(capture, &sender, &stop, &lost))?, waker));
        }
        Ok(copies)
    }

    /// The next packet; none when no interface can be read any longer.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// Packets that came faster than they were taken.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.frames.close();
        for (thread, waker) in self.threads.drain(..) {
            // Where nothing comes in, the time-out never begins to run.
            waker.breakloop();
            if thread.join().is_err() {
                tracing::error!("A capturing thread failed");
            }
        }
    }
}

fn open(interface: &str, filter: &str) -> Result<Capture<Active>> {
    let mut capture = Capture::from_device(interface)?
        .promisc(false)
        .snaplen(SNAP_BYTES)
        .buffer_size(BUFFER_BYTES)
        .timeout(i32::try_from(READ_TIMEOUT.as_millis())?)
        .open()
        .with_context(|| format!("cannot capture at {interface}"))?;
    capture.direction(Direction::InOut)?;
    // The kernel discards what is not asked for before it is copied.
    capture.filter(filter, true).with_context(|| format!("cannot filter at {interface}"))?;
    Ok(capture)
}

fn read(mut capture: Capture<Active>, frames: &mpsc::Sender<Frame>, stop: &AtomicBool, lost: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let frame = match capture.next_packet() {
            Ok(packet) => {
                let seconds = u64::try_from(packet.header.ts.tv_sec).unwrap_or(0);
                let micros = u64::try_from(packet.header.ts.tv_usec).unwrap_or(0);
                let nanos = seconds.saturating_mul(1_000_000_000).saturating_add(micros * 1_000);
                Frame { at: Timestamp::from_nanos(nanos), bytes: packet.data.to_vec() }
            }
            Err(pcap::Error::TimeoutExpired) => continue,
            Err(_woken) if stop.load(Ordering::Relaxed) => return,
            Err(error) => {
                tracing::error!(%error, "An interface cannot be read any longer");
                return;
            }
        };
        match frames.try_send(frame) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => drop(lost.fetch_add(1, Ordering::Relaxed)),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}
