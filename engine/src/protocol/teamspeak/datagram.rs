//! The grammar of TeamSpeak's voice port (`teamspeak.md` 2 and 3): headers, the five steps of the handshake, and the
//! commands before there is a session, which are encrypted with a key everybody has.
//!
//! Total: what is cut short or is nothing of these reads as `None`. What the gate has passed has its shape already.

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use eax::{AeadInOut, Eax, KeyInit, Tag, aead::consts::U8};
use floodwall_wire::shape::teamspeak::HANDSHAKE_MAGIC;
use sha1::{Digest, Sha1};

use crate::text::Text;

const CLIENT_HEADER_BYTES: usize = 13;
const SERVER_HEADER_BYTES: usize = 11;
/// Where the body begins behind the MAC: the header from there on is authenticated with it.
const MAC_BYTES: usize = 8;

/// Key and nonce of every command up to `clientek`; what they protect is anybody's to read.
const PUBLIC_KEY: &[u8; 16] = b"c:\\windows\\syste";
const PUBLIC_NONCE: &[u8; 16] = b"m\\firewall32.cpl";

const UNENCRYPTED: u8 = 0x80;
/// Compressed, or a part of a longer command: not read further.
const COMPRESSED: u8 = 0x40;
const FRAGMENT: u8 = 0x10;

/// A datagram of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FromClient<'a> {
    /// Step 0: asks for a cookie.
    GetCookie,
    /// Step 2: brings the cookie back and asks for a puzzle.
    GetPuzzle {
        /// The cookie, as it should have been given.
        cookie: &'a [u8; 16],
    },
    /// Step 4: brings the puzzle back, with a solution and who one is.
    Solution {
        /// The puzzle, as it should have been given.
        puzzle: &'a [u8; PUZZLE_BYTES],
        /// The solution.
        solution: &'a [u8; 64],
        /// `clientinitiv …`, in clear.
        command: &'a [u8],
    },
    /// Everything else.
    Session(Header),
}

/// A datagram of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FromServer<'a> {
    /// Step 1.
    SetCookie {
        /// To be echoed.
        cookie: &'a [u8; 16],
    },
    /// Step 3.
    SetPuzzle {
        /// To be echoed.
        puzzle: &'a [u8; PUZZLE_BYTES],
    },
    /// Step 127: begin again.
    Reset,
    /// Everything else.
    Session(Header),
}

/// Base, modulus, level and 100 bytes of the server's own.
pub const PUZZLE_BYTES: usize = 64 + 64 + 4 + 100;

/// What stands before the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Authenticates the packet; one and the same for all unencrypted packets of a connection.
    pub mac: u64,
    /// Counts by type.
    pub packet_id: u16,
    /// 0 until the server has given one; of a server's packet always 0.
    pub client_id: u16,
    /// Type and flags.
    pub kind: u8,
}

impl Header {
    /// Whether it carries the MAC that all unencrypted packets of its connection share.
    pub const fn is_unencrypted(&self) -> bool {
        self.kind & UNENCRYPTED != 0
    }

    /// Whether it is the first command of a handshake, which is encrypted with the public key.
    pub const fn is_first_command(&self) -> bool {
        self.kind & 0x0f == 2 && self.client_id == 0 && self.packet_id == 0
    }

    /// Whether it is a command that the public key may decrypt in one piece.
    const fn is_readable(&self) -> bool {
        self.kind & (UNENCRYPTED | COMPRESSED | FRAGMENT) == 0
    }
}

impl<'a> FromClient<'a> {
    /// Reads a datagram's payload.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let header = payload.first_chunk::<CLIENT_HEADER_BYTES>()?;
        let [.., id_high, id_low, client_high, client_low, kind] = *header;
        let mac = u64::from_be_bytes(*payload.first_chunk()?);
        if mac != HANDSHAKE_MAGIC {
            return Some(Self::Session(Header {
                mac,
                packet_id: u16::from_be_bytes([id_high, id_low]),
                client_id: u16::from_be_bytes([client_high, client_low]),
                kind,
            }));
        }
        let body = payload.get(CLIENT_HEADER_BYTES + 5..)?;
        match payload.get(CLIENT_HEADER_BYTES + 4)? {
            0 => Some(Self::GetCookie),
            2 => Some(Self::GetPuzzle { cookie: body.first_chunk()? }),
            4 => {
                let (puzzle, rest) = body.split_first_chunk()?;
                let (solution, command) = rest.split_first_chunk()?;
                Some(Self::Solution { puzzle, solution, command })
            }
            _ => None,
        }
    }
}

impl<'a> FromServer<'a> {
    /// Reads a datagram's payload.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let header = payload.first_chunk::<SERVER_HEADER_BYTES>()?;
        let [.., id_high, id_low, kind] = *header;
        let mac = u64::from_be_bytes(*payload.first_chunk()?);
        if mac != HANDSHAKE_MAGIC {
            let packet_id = u16::from_be_bytes([id_high, id_low]);
            return Some(Self::Session(Header { mac, packet_id, client_id: 0, kind }));
        }
        let body = payload.get(SERVER_HEADER_BYTES + 1..)?;
        match payload.get(SERVER_HEADER_BYTES)? {
            1 => Some(Self::SetCookie { cookie: body.first_chunk()? }),
            3 => Some(Self::SetPuzzle { puzzle: body.first_chunk()? }),
            0x7f => Some(Self::Reset),
            _ => None,
        }
    }
}

/// What a command says that came before there was a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FirstCommand {
    /// Its tag is right; whose it is, if it says so.
    Authentic(Option<Text>),
    /// Compressed, in parts, or cut: nothing is known.
    Unreadable,
    /// Its tag is wrong: nobody has encrypted that.
    Broken,
}

/// Checks and reads the first command of a handshake.
pub fn read_first_command(header: &Header, payload: &[u8], is_whole: bool) -> FirstCommand {
    if !header.is_readable() || !is_whole {
        return FirstCommand::Unreadable;
    }
    let (Some(tag), Some(associated), Some(body)) = (
        payload.first_chunk::<MAC_BYTES>(),
        payload.get(MAC_BYTES..CLIENT_HEADER_BYTES),
        payload.get(CLIENT_HEADER_BYTES..),
    ) else {
        return FirstCommand::Unreadable;
    };
    let cipher = Eax::<Aes128, U8>::new(PUBLIC_KEY.into());
    let mut body = body.to_vec();
    let tag: &Tag<U8> = tag.into();
    match cipher.decrypt_inout_detached(PUBLIC_NONCE.into(), associated, body.as_mut_slice().into(), tag) {
        Ok(()) => FirstCommand::Authentic(identity(&body)),
        Err(_) => FirstCommand::Broken,
    }
}

/// The UID that a `clientinitiv` command proves nothing of, but names: base64 of the SHA-1 of the public key's text
/// (`teamspeak.md` 3).
pub fn identity(command: &[u8]) -> Option<Text> {
    let words = command.strip_prefix(b"clientinitiv ")?.split(|byte| *byte == b' ');
    let omega = words.into_iter().find_map(|word| word.strip_prefix(b"omega="))?;
    // The slash of base64 comes escaped.
    let omega: Vec<u8> = omega.iter().copied().filter(|byte| *byte != b'\\').collect();
    (!omega.is_empty()).then(|| Text::from(STANDARD.encode(Sha1::digest(&omega)).as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_identity_is_the_hash_of_its_public_key() {
        let known = identity(b"clientinitiv alpha=AAAA omega=MEsDAgcAAgEg\\/x== ot=1 ip=").unwrap();
        assert_eq!(identity(b"clientinitiv alpha=BBBB omega=MEsDAgcAAgEg/x== ot=1 ip="), Some(known.clone()));
        assert_eq!(known.as_str(), STANDARD.encode(Sha1::digest(b"MEsDAgcAAgEg/x==")));
        assert_eq!(identity(b"clientinitiv alpha=AAAA omega= ot=1"), None);
        assert_eq!(identity(b"clientinit omega=x"), None);
    }

    #[test]
    fn a_first_command_is_read_and_its_tag_checked() {
        let mut payload = vec![0; CLIENT_HEADER_BYTES];
        payload[12] = 0x22;
        payload.extend_from_slice(b"clientinitiv alpha=AAAA omega=MEsDAgcAAgEg ot=1 ip=");
        let (header, body) = payload.split_at_mut(CLIENT_HEADER_BYTES);
        let cipher = Eax::<Aes128, U8>::new(PUBLIC_KEY.into());
        let (mac, associated) = header.split_at_mut(MAC_BYTES);
        let tag = cipher.encrypt_inout_detached(PUBLIC_NONCE.into(), associated, body.into()).unwrap();
        mac.copy_from_slice(&tag);
        // The byte signature that filters look for (`teamspeak.md` 3).
        assert_eq!(payload[13..21], [0x9d, 0x74, 0x8b, 0x45, 0xaa, 0x7b, 0xef, 0xb9]);
        let Some(FromClient::Session(header)) = FromClient::parse(&payload) else { panic!("a command") };
        assert!(header.is_first_command());
        let named = Some(Text::from(STANDARD.encode(Sha1::digest(b"MEsDAgcAAgEg")).as_str()));
        assert_eq!(read_first_command(&header, &payload, true), FirstCommand::Authentic(named));
        assert_eq!(read_first_command(&header, &payload, false), FirstCommand::Unreadable);
        payload[30] ^= 1;
        assert_eq!(read_first_command(&header, &payload, true), FirstCommand::Broken);
    }

    #[test]
    fn steps_are_told_apart() {
        let step = |number: u8, bytes: usize| {
            let mut payload = b"TS3INIT1\x00\x65\x00\x00\x88\x06\x3b\xec\xe9".to_vec();
            payload.push(number);
            payload.resize(bytes, 7);
            payload
        };
        assert_eq!(FromClient::parse(&step(0, 34)), Some(FromClient::GetCookie));
        assert_eq!(FromClient::parse(&step(2, 38)), Some(FromClient::GetPuzzle { cookie: &[7; 16] }));
        let payload = step(4, 314 + 20);
        let Some(FromClient::Solution { puzzle, solution, command }) = FromClient::parse(&payload) else {
            panic!("a solution")
        };
        assert_eq!((puzzle, solution, command), (&[7; PUZZLE_BYTES], &[7; 64], &[7; 20][..]));
        assert_eq!(FromClient::parse(&step(4, 200)), None);
        assert_eq!(FromClient::parse(&step(3, 244)), None);
        let server = |number: u8, bytes: usize| {
            let mut payload = b"TS3INIT1\x00\x65\x88".to_vec();
            payload.push(number);
            payload.resize(bytes, 7);
            payload
        };
        assert_eq!(FromServer::parse(&server(1, 32)), Some(FromServer::SetCookie { cookie: &[7; 16] }));
        assert_eq!(
            FromServer::parse(&server(3, 244)),
            Some(FromServer::SetPuzzle { puzzle: &[7; PUZZLE_BYTES] })
        );
        assert_eq!(FromServer::parse(&server(0x7f, 12)), Some(FromServer::Reset));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in prop::collection::vec(any::<u8>(), 0..520), magic: bool) {
            let mut payload = payload;
            if magic && payload.len() >= 8 {
                payload[..8].copy_from_slice(b"TS3INIT1");
            }
            if let Some(FromClient::Session(header)) = FromClient::parse(&payload) {
                read_first_command(&header, &payload, true);
            }
            FromServer::parse(&payload);
            identity(&payload);
        }
    }
}
