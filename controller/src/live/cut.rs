//! Cutting connections, so that the server frees the place at once.
//!
//! The kernel is asked first (`SOCK_DESTROY`): it tells server and client. A connection that is none of this host's
//! sockets, because the server sits in a container, is cut by a reset to both sides with the sequence numbers the
//! engine knows; over IPv4 only, since raw IPv6 sockets choose their own source. Listing a busy host's connections
//! takes milliseconds, so all this happens on a thread of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result};
use floodwall_engine::{
    command::Prefix,
    stream::{Ends, FlowKey},
};
use floodwall_wire::Address;
use pnet::{
    packet::{
        ip::IpNextHeaderProtocols,
        ipv4::{self, MutableIpv4Packet},
        tcp::{self, MutableTcpPacket, TcpFlags},
    },
    transport::{TransportChannelType, TransportSender, transport_channel},
};

use super::sockets::{self, Connected};

/// Orders waiting to be carried out; beyond that they are refused and counted.
const ORDERS_MAX: usize = 1_024;
const IPV4_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const SEND_BUFFER_BYTES: usize = 4_096;

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
                Ok(true) => &counts.reset,
                Ok(false) => &counts.failed,
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

/// A reset to both sides. Answers whether that was possible.
fn reset(ends: &Ends) -> Result<bool> {
    let FlowKey { client, server, client_port, server_port } = ends.key;
    let (Some(client), Some(server)) = (client.as_v4(), server.as_v4()) else { return Ok(false) };
    let protocol = TransportChannelType::Layer3(IpNextHeaderProtocols::Tcp);
    let (mut sender, _) =
        transport_channel(SEND_BUFFER_BYTES, protocol).context("failed to open a raw socket")?;
    let (client, server) = (Ipv4Addr::from(client), Ipv4Addr::from(server));
    send_reset(&mut sender, (client, client_port), (server, server_port), ends.client_next)?;
    send_reset(&mut sender, (server, server_port), (client, client_port), ends.server_next)?;
    Ok(true)
}

fn send_reset(
    sender: &mut TransportSender,
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    sequence: u32,
) -> Result<()> {
    let mut bytes = [0; IPV4_BYTES + TCP_BYTES];
    let (head, body) = bytes.split_at_mut(IPV4_BYTES);
    let mut segment = MutableTcpPacket::new(body).context("no room for a segment")?;
    segment.set_source(source_port);
    segment.set_destination(destination_port);
    segment.set_sequence(sequence);
    segment.set_data_offset(5);
    segment.set_flags(TcpFlags::RST);
    segment.set_checksum(tcp::ipv4_checksum(&segment.to_immutable(), &source, &destination));
    let mut packet = MutableIpv4Packet::new(head).context("no room for a packet")?;
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length((IPV4_BYTES + TCP_BYTES) as u16);
    packet.set_ttl(64);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
    packet.set_source(source);
    packet.set_destination(destination);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    let packet = ipv4::Ipv4Packet::new(&bytes).context("no room for a packet")?;
    sender.send_to(packet, IpAddr::V4(destination)).context("failed to send a reset")?;
    Ok(())
}
