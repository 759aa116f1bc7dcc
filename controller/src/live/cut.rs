//! Cutting connections, so that the server frees the place at once.
//!
//! The kernel is asked first (`SOCK_DESTROY`): it tells server and client. A connection that is none of this host's
//! sockets, because the server sits in a container, is cut by a reset to both sides with the sequence numbers the
//! engine knows. Listing a busy host's connections takes milliseconds, so all this happens on a thread of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use floodwall_engine::{
    command::Prefix,
    stream::{Ends, FlowKey},
};
use floodwall_wire::Address;
use pnet::packet::{
    Packet,
    ip::IpNextHeaderProtocols,
    ipv4::{self, MutableIpv4Packet},
    ipv6::MutableIpv6Packet,
    tcp::{self, MutableTcpPacket, TcpFlags},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::sockets::{self, Connected};

/// Orders waiting to be carried out; beyond that they are refused and counted.
const ORDERS_MAX: usize = 1_024;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const HOPS: u8 = 64;
/// `IPPROTO_RAW`: whoever sends writes the IP header too (raw(7), ipv6(7)).
const OWN_HEADERS: i32 = 255;

/// What is to be cut.
#[derive(Clone, Debug)]
pub(crate) enum Victims {
    /// Every connection of a prefix to a guarded port.
    Prefix {
        subject: Prefix,
        /// TCP ports that are guarded.
        ports: Arc<[u16]>,
        /// Those the engine knows.
        ends: Vec<Ends>,
    },
    /// One connection.
    One(Ends),
}

/// Carries cuts out on its own thread.
#[derive(Clone, Debug)]
pub(crate) struct Cutter {
    orders: SyncSender<Victims>,
    counts: Arc<Counts>,
}

/// What became of connections that were to be cut.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By the kernel.
    pub(crate) destroyed: AtomicU64,
    /// By resets to both sides.
    pub(crate) reset: AtomicU64,
    /// Not at all.
    pub(crate) failed: AtomicU64,
}

impl Cutter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start() -> Result<Self> {
        let (orders, receiver) = sync_channel(ORDERS_MAX);
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        thread::Builder::new()
            .name("cutter".into())
            .spawn(move || work(&receiver, &theirs))
            .context("failed to start the thread that cuts connections")?;
        Ok(Self { orders, counts })
    }

    /// Has connections cut; never waits.
    pub(crate) fn cut(&self, victims: Victims) {
        match self.orders.try_send(victims) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What has been cut so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn work(orders: &Receiver<Victims>, counts: &Counts) {
    while let Ok(first) = orders.recv() {
        let mut batch = vec![first];
        batch.extend(orders.try_iter().take(ORDERS_MAX));
        if let Err(error) = cut_all(&batch, counts) {
            counts.failed.fetch_add(batch.len() as u64, Ordering::Relaxed);
            tracing::warn!(error = format!("{error:#}"), "Connections could not be cut");
        }
    }
}

fn cut_all(batch: &[Victims], counts: &Counts) -> Result<()> {
    let connected = sockets::connected()?;
    for victims in batch {
        let (mine, theirs) = match victims {
            Victims::Prefix { subject, ports, ends } => (
                connected.iter().filter(|one| is_from(one, *subject, ports)).collect::<Vec<_>>(),
                ends.as_slice(),
            ),
            Victims::One(ends) => {
                (connected.iter().filter(|one| is_flow(one, &ends.key)).collect(), std::slice::from_ref(ends))
            }
        };
        for one in &mine {
            if sockets::destroy(one)? {
                counts.destroyed.fetch_add(1, Ordering::Relaxed);
            }
        }
        for ends in theirs.iter().filter(|ends| !connected.iter().any(|one| is_flow(one, &ends.key))) {
            let counter = match reset(ends) {
                Ok(()) => &counts.reset,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "A connection could not be reset");
                    &counts.failed
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn is_from(one: &Connected, subject: Prefix, ports: &[u16]) -> bool {
    ports.contains(&one.local.port()) && subject.contains(Address::from(one.remote.ip()))
}

fn is_flow(one: &Connected, key: &FlowKey) -> bool {
    let is = |end: SocketAddr, address: Address, port: u16| {
        end.port() == port && Address::from(end.ip()) == address
    };
    is(one.remote, key.client, key.client_port) && is(one.local, key.server, key.server_port)
}

/// A reset to both sides, each in the other's name.
fn reset(ends: &Ends) -> Result<()> {
    let FlowKey { client, server, client_port, server_port } = ends.key;
    let (client, server) =
        (SocketAddr::new(client.to_ip(), client_port), SocketAddr::new(server.to_ip(), server_port));
    send_reset(client, server, ends.client_next)?;
    send_reset(server, client, ends.server_next)
}

fn send_reset(from: SocketAddr, to: SocketAddr, sequence: u32) -> Result<()> {
    let (domain, bytes) = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (Domain::IPV4, {
            let mut segment = segment(from.port(), to.port(), sequence)?;
            segment.set_checksum(tcp::ipv4_checksum(&segment.to_immutable(), &source, &destination));
            let mut packet =
                MutableIpv4Packet::owned(vec![0; IPV4_BYTES + TCP_BYTES]).context("no room for a packet")?;
            packet.set_version(4);
            packet.set_header_length(5);
            packet.set_total_length((IPV4_BYTES + TCP_BYTES) as u16);
            packet.set_ttl(HOPS);
            packet.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(segment.packet());
            packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
            packet.packet().to_vec()
        }),
        (IpAddr::V6(source), IpAddr::V6(destination)) => (Domain::IPV6, {
            let mut segment = segment(from.port(), to.port(), sequence)?;
            segment.set_checksum(tcp::ipv6_checksum(&segment.to_immutable(), &source, &destination));
            let mut packet =
                MutableIpv6Packet::owned(vec![0; IPV6_BYTES + TCP_BYTES]).context("no room for a packet")?;
            packet.set_version(6);
            packet.set_payload_length(TCP_BYTES as u16);
            packet.set_hop_limit(HOPS);
            packet.set_next_header(IpNextHeaderProtocols::Tcp);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(segment.packet());
            packet.packet().to_vec()
        }),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("two families in one connection")
        }
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(OWN_HEADERS)))
        .context("failed to open a raw socket")?;
    // A raw socket has no ports: the kernel refuses one in the address.
    socket.send_to(&bytes, &SocketAddr::new(to.ip(), 0).into()).context("failed to send a reset")?;
    Ok(())
}

/// A reset, without its checksum.
fn segment(from: u16, to: u16, sequence: u32) -> Result<MutableTcpPacket<'static>> {
    let mut segment = MutableTcpPacket::owned(vec![0; TCP_BYTES]).context("no room for a segment")?;
    segment.set_source(from);
    segment.set_destination(to);
    segment.set_sequence(sequence);
    segment.set_data_offset(5);
    segment.set_flags(TcpFlags::RST);
    Ok(segment)
}
