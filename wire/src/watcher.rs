//! The watcher: what the server's own packets prove.
//!
//! A server that sends payload over TCP has completed the handshake with that address, so nothing need be kept
//! per SYN; while the gate learns who is there, an acknowledgement is enough. TeamSpeak's third step follows only an echoed cookie. UDP answers of other kinds prove nothing: a
//! TeamTalk server answers whoever asks.

use crate::{
    Address, Class, State, Window,
    frame::{self, Headers, Transport, tcp_flags},
    shape::{self, Payload, teamspeak::HANDSHAKE_MAGIC},
    tables::{NO_SERVICE, ProofKey, Role, status_flags},
};

/// What the watcher made of one departing packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Observation {
    /// Index of the guarded service it came from, or [`NO_SERVICE`].
    pub service: u8,
    /// What kind of packet it is.
    pub class: Class,
    /// Whether it proved, or went on proving, its receiver.
    pub proves: bool,
}

impl Observation {
    const UNGUARDED: Self = Self { service: NO_SERVICE, class: Class::UdpOther, proves: false };

    /// Whether a guarded service sent it.
    #[inline(always)]
    pub const fn is_guarded(&self) -> bool {
        self.service != NO_SERVICE
    }
}

/// What a packet is worth as evidence for its receiver.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Evidence {
    /// Nothing.
    None,
    /// Prolongs a proof that has not run out.
    Prolongs,
    /// Proves.
    Proves,
}

/// Looks at a departing frame and records what it proves.
#[inline(always)]
pub fn observe<W: Window, S: State>(window: &W, state: &mut S) -> Observation {
    match frame::walk(window) {
        Ok(headers) => observe_walked(window, state, &headers),
        Err(_) => Observation::UNGUARDED,
    }
}

/// Looks at a departing frame whose headers have been walked.
#[inline(always)]
pub fn observe_walked<W: Window, S: State>(window: &W, state: &mut S, headers: &Headers) -> Observation {
    let status = *state.status();
    let port = state.port(status.generation, headers.transport, headers.source_port);
    let (Some(service), Some(role)) = (port.service(), port.role()) else { return Observation::UNGUARDED };
    let proof_for = match state.settings(status.generation, service) {
        Some(settings) => settings.proof_for,
        None => return Observation::UNGUARDED,
    };
    if status.flags & status_flags::ANY_ADDRESS == 0 && !state.is_local(&headers.source) {
        return Observation::UNGUARDED;
    }
    let now = state.now();
    let learning = status.learning_until > now;
    let (class, evidence) = weigh(window, headers, role, learning);
    let proves = record(state, headers.destination, service, evidence, now, proof_for);
    Observation { service, class, proves }
}

#[inline(always)]
fn weigh<W: Window>(window: &W, headers: &Headers, role: Role, learning: bool) -> (Class, Evidence) {
    match headers.transport {
        Transport::Tcp => {
            let Some(tcp) = headers.tcp(window) else { return (Class::Fragment, Evidence::None) };
            let class = shape::classify_segment(&tcp);
            // Of whoever was connected before anybody looked, and sends a file, the server says no more than that it has got it. An
            // acknowledgement alone can be had in somebody else's name, so later it proves nothing.
            let is_in_connection = tcp.flags & (tcp_flags::SYN | tcp_flags::RST) == 0;
            let speaks = tcp.payload_bytes != 0 || (learning && tcp.flags & tcp_flags::ACK != 0);
            (class, if is_in_connection && speaks { Evidence::Proves } else { Evidence::None })
        }
        Transport::Udp => match role {
            Role::TeamSpeakVoice => weigh_teamspeak(window, headers, learning),
            Role::TeamTalk => {
                let class = shape::classify_datagram(window, role, Payload::of(headers)).class;
                (class, Evidence::None)
            }
            Role::Irc | Role::IrcPlain | Role::TeamSpeakQuery | Role::TeamSpeakFiles => {
                (Class::UdpOther, Evidence::None)
            }
        },
    }
}

/// Server packets have an 11-byte header: the type is at offset 10, a handshake's step at 11.
#[inline(always)]
fn weigh_teamspeak<W: Window>(window: &W, headers: &Headers, learning: bool) -> (Class, Evidence) {
    let at = headers.datagram_offset();
    let Some(magic) = window.read_u64(at) else { return (Class::UdpOther, Evidence::None) };
    if magic == HANDSHAKE_MAGIC {
        let evidence = match window.read_u16(at + 10) {
            Some(kind_and_step) if kind_and_step & 0xff == 3 => Evidence::Proves,
            _ => Evidence::None,
        };
        return (Class::UdpHandshake, evidence);
    }
    // With the byte before it: a ping ends with its type, and the verifier wants two bytes at once.
    let Some(kind) = window.read_u16(at + 9) else { return (Class::UdpOther, Evidence::None) };
    let class = match kind & 0x0f {
        0 | 1 => Class::UdpVoice,
        2 | 3 | 6 | 7 => Class::UdpCommand,
        4 | 5 => Class::UdpKeepalive,
        _ => Class::UdpOther,
    };
    // A session older than the gate shows no handshake; the server talks only to clients that had one.
    (class, if learning { Evidence::Proves } else { Evidence::Prolongs })
}

#[inline(always)]
fn record<S: State>(
    state: &mut S,
    receiver: Address,
    service: u8,
    evidence: Evidence,
    now: u64,
    proof_for: u64,
) -> bool {
    if evidence == Evidence::None {
        return false;
    }
    let key = ProofKey { address: receiver, service: service as u64 };
    let until = now.wrapping_add(proof_for);
    if let Some(proof) = state.proof(&key) {
        if evidence == Evidence::Prolongs && proof.until.load() <= now {
            return false;
        }
        proof.until.store(until);
        return true;
    }
    if evidence == Evidence::Prolongs {
        return false;
    }
    state.prove(&key, until);
    true
}
