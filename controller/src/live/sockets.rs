//! The kernel's socket tables: who is connected, and cutting it (`sock_diag(7)`). And the number of its packet filter's ruleset
//! (`linux/netfilter/nf_tables.h`), which is asked for in the same way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use netlink_sys::{
    Socket, SocketAddr as NetlinkAddress,
    protocols::{NETLINK_NETFILTER, NETLINK_SOCK_DIAG},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `NFT_MSG_GETGEN` and `NFT_MSG_NEWGEN` of the subsystem of nftables.
const GET_GENERATION: u16 = 10 << 8 | 16;
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Every state in which two ends hold a connection: all but listening and closed.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `TCP_ESTABLISHED`.
pub(crate) const ESTABLISHED: u8 = 1;
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_sockid`.
const ID_BYTES: usize = 48;
const ENOENT: i32 = 2;

/// One connection of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Connected {
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    family: u8,
    id: [u8; ID_BYTES],
}

/// Every TCP connection of this host, in this network namespace.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn connected() -> Result<Vec<Connected>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut request = Vec::with_capacity(8 + ID_BYTES);
        request.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
        request.extend_from_slice(&CONNECTED.to_ne_bytes());
        request.extend_from_slice(&[0; ID_BYTES]);
        exchange(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &request, |_, body| {
            found.extend(Connected::read(body));
        })
        .context("failed to list this host's connections")?;
    }
    Ok(found)
}

/// Cuts a connection: the server's socket reports an error, the peer gets a reset. Answers whether it was still there.
///
/// # Errors
/// When the kernel refuses, for example because it was built without `CONFIG_INET_DIAG_DESTROY`.
pub(crate) fn destroy(connected: &Connected) -> Result<bool> {
    let mut request = Vec::with_capacity(8 + ID_BYTES);
    request.extend_from_slice(&[connected.family, IPPROTO_TCP, 0, 0]);
    request.extend_from_slice(&u32::MAX.to_ne_bytes());
    request.extend_from_slice(&connected.id);
    match exchange(NETLINK_SOCK_DIAG, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &request, |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(ENOENT) => Ok(false),
            _ => Err(error.context("failed to cut a connection")),
        },
    }
}

/// The number of nftables' ruleset in this network namespace. Every change of whatever table counts it up by one.
///
/// # Errors
/// When the kernel does not tell, for example because it has no nftables.
pub(crate) fn ruleset_generation() -> Result<u32> {
    let mut generation = None;
    // `struct nfgenmsg`.
    exchange(NETLINK_NETFILTER, GET_GENERATION, NLM_F_REQUEST | NLM_F_ACK, &[0; 4], |kind, body| {
        if kind == NEW_GENERATION {
            let mut rest = body.get(4..).unwrap_or_default();
            while let (Some(length), Some(kind)) = (field::<2>(rest, 0), field::<2>(rest, 2)) {
                let length = usize::from(u16::from_ne_bytes(length)).max(4);
                if u16::from_ne_bytes(kind) == GENERATION_ID {
                    generation = field::<4>(rest, 4).map(u32::from_be_bytes);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    })
    .context("failed to ask for the number of nftables' ruleset")?;
    generation.context("the kernel does not number nftables' rulesets")
}

impl Connected {
    /// `struct inet_diag_msg` up to the identity.
    fn read(body: &[u8]) -> Option<Self> {
        let family = *body.first()?;
        let state = *body.get(1)?;
        let id: [u8; ID_BYTES] = body.get(4..4 + ID_BYTES)?.try_into().ok()?;
        let port =
            |at: usize| -> Option<u16> { Some(u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?)) };
        let address = |at: usize| -> Option<IpAddr> {
            Some(if family == AF_INET {
                let bytes: [u8; 4] = id.get(at..at + 4)?.try_into().ok()?;
                Ipv4Addr::from(bytes).into()
            } else {
                let bytes: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
                Ipv6Addr::from(bytes).to_canonical()
            })
        };
        Some(Self {
            state,
            local: SocketAddr::new(address(4)?, port(0)?),
            remote: SocketAddr::new(address(20)?, port(2)?),
            family,
            id,
        })
    }
}

/// Sends one request and reads until its answer is complete.
fn exchange(
    protocol: isize,
    kind: u16,
    flags: u16,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]),
) -> Result<()> {
    let mut socket = Socket::new(protocol).context("failed to open a netlink socket")?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let mut message = Vec::with_capacity(HEADER_BYTES + request.len());
    message.extend_from_slice(&u32::try_from(HEADER_BYTES + request.len())?.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(request);
    socket.send(&message, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while rest.len() >= HEADER_BYTES {
            let length = field::<4>(rest, 0).map_or(0, u32::from_ne_bytes) as usize;
            let kind = field::<2>(rest, 4).map_or(0, u16::from_ne_bytes);
            let Some(body) = rest.get(HEADER_BYTES..length) else { bail!("a broken netlink message") };
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = field::<4>(body, 0).map_or(0, i32::from_ne_bytes);
                    if code == 0 {
                        return Ok(());
                    }
                    return Err(std::io::Error::from_raw_os_error(-code).into());
                }
                _ => each(kind, body),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn connections_are_listed_and_as_root_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let all = connected().unwrap();
        let own = all.iter().find(|one| one.remote == client.local_addr().unwrap()).unwrap();
        assert_eq!((own.local, own.state), (listener.local_addr().unwrap(), ESTABLISHED));
        match destroy(own) {
            Ok(true) => {
                assert!(server.read(&mut [0; 1]).is_err());
                assert!(client.read(&mut [0; 1]).is_err());
                assert!(!destroy(own).unwrap());
            }
            Ok(false) => panic!("the connection was there"),
            Err(error) => {
                let refused = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                assert_eq!(refused, Some(std::io::ErrorKind::PermissionDenied), "{error:#}");
                eprintln!("SKIPPED cutting a connection: it takes root");
            }
        }
    }
}
