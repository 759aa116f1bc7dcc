//! Cutting connections, so that the server frees the place at once.
//!
//! The kernel is asked first (`SOCK_DESTROY`): it tells server and client. A connection that is none of this host's
//! sockets, because the server sits in a container, is cut by a reset to both sides with the sequence numbers the
//! engine knows. Those may be out of date: what was on its way when the order was given moves them on, and a reset that is
//! one byte off is only answered (RFC 5961 section 3.2). So every order is repeated with the numbers of the next seconds.
//! Listing a busy host's connections takes milliseconds, so all this happens on a thread of its own.

use std::{
    collections::HashMap,
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
    Span, Timestamp,
    command::Prefix,
    signal::FlowId,
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
/// Longer than an order is repeated.
const REMEMBERED: Span = Span::from_secs(10);
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const HOPS: u8 = 64;
/// `IPPROTO_RAW`: whoever sends writes the IP header too (raw(7), ipv6(7)).
const OWN_HEADERS: i32 = 255;

/// Whose connections are to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Every connection of a prefix to a guarded port.
    Prefix(Prefix),
    /// One connection.
    Flow(FlowId),
}

impl Victim {
    /// Whether a connection is meant.
    pub(crate) fn owns(self, ends: &Ends) -> bool {
        match self {
            Self::Prefix(subject) => subject.contains(ends.key.client),
            Self::Flow(id) => ends.id == id,
        }
    }
}

/// What is to be cut.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// When it was given.
    pub(crate) at: Timestamp,
    pub(crate) victims: Vec<Victim>,
    /// TCP ports that are guarded.
    pub(crate) ports: Arc<[u16]>,
    /// Those of its connections that the engine knows.
    pub(crate) ends: Vec<Ends>,
}

/// Carries cuts out on its own thread.
#[derive(Clone, Debug)]
pub(crate) struct Cutter {
    orders: SyncSender<Order>,
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
    pub(crate) fn cut(&self, order: Order) {
        match self.orders.try_send(order) {
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

fn work(orders: &Receiver<Order>, counts: &Counts) {
    let mut done = Done::default();
    while let Ok(first) = orders.recv() {
        let mut batch = vec![first];
        batch.extend(orders.try_iter().take(ORDERS_MAX));
        let newest = batch.iter().map(|order| order.at).max().unwrap_or(Timestamp::EPOCH);
        done.retain(|_, (at, _)| newest.since(*at) < REMEMBERED);
        if let Err(error) = cut_all(&batch, counts, &mut done) {
            counts.failed.fetch_add(batch.len() as u64, Ordering::Relaxed);
            tracing::warn!(error = format!("{error:#}"), "Connections could not be cut");
        }
    }
}

/// What the kernel was told already, and when: orders are repeated, connections are counted once.
type Done = HashMap<FlowKey, (Timestamp, How)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Destroyed,
    Reset,
}

fn cut_all(batch: &[Order], counts: &Counts, done: &mut Done) -> Result<()> {
    let connected = sockets::connected()?;
    for Order { at, victims, ports, ends } in batch {
        let is_meant = |one: &&Connected| {
            victims.iter().any(|victim| match victim {
                Victim::Prefix(subject) => is_from(one, *subject, ports),
                Victim::Flow(_) => ends.iter().any(|ends| victim.owns(ends) && is_flow(one, &ends.key)),
            })
        };
        for one in connected.iter().filter(is_meant) {
            if sockets::destroy(one)? {
                done.insert(flow_of(one), (*at, How::Destroyed));
                counts.destroyed.fetch_add(1, Ordering::Relaxed);
            }
        }
        for ends in ends.iter().filter(|ends| !connected.iter().any(|one| is_flow(one, &ends.key))) {
            let before = done.get(&ends.key).map(|(_, how)| *how);
            if before == Some(How::Destroyed) {
                continue;
            }
            if let Err(error) = reset(ends) {
                tracing::warn!(error = format!("{error:#}"), "A connection could not be reset");
                counts.failed.fetch_add(1, Ordering::Relaxed);
            } else if before.is_none() {
                done.insert(ends.key, (*at, How::Reset));
                counts.reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn flow_of(one: &Connected) -> FlowKey {
    FlowKey {
        client: Address::from(one.remote.ip()),
        server: Address::from(one.local.ip()),
        client_port: one.remote.port(),
        server_port: one.local.port(),
    }
}

fn is_from(one: &Connected, subject: Prefix, ports: &[u16]) -> bool {
    ports.contains(&one.local.port()) && subject.contains(Address::from(one.remote.ip()))
}

fn is_flow(one: &Connected, key: &FlowKey) -> bool {
    flow_of(one) == *key
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
