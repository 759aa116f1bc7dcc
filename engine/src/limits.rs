//! Every bound of the engine, in one place.
//!
//! What happens when each is reached stands with the type that holds it, and is counted.

use crate::time::Span;

/// Connections followed at once. When full, the connection longest silent goes, logged-in ones last.
pub const FLOWS_MAX: usize = 16_384;
/// Connections of which nothing but SYNs was seen. When full, the one longest silent goes.
pub const OPENING_MAX: usize = 16_384;
/// Bytes buffered for one connection: out of order, or sent and not yet acknowledged.
pub const FLOW_BYTES_MAX: usize = 256 * 1024;
/// Bytes buffered for all connections together, with what their sessions remember: unfinished lines, questions without
/// an answer. Connections that hold less than an equal share of it may go on to that, so that twice as much is the most. A
/// segment's own lines may exceed it, by what one session holds at most.
pub const FLOWS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Segments held out of order for one direction.
pub const SEGMENTS_MAX: usize = 256;
/// How long missing bytes are waited for, in packet time, before they count as missed.
pub const GAP_PATIENCE: Span = Span::from_secs(3);
/// A connection without any packet for this long is forgotten.
pub const FLOW_IDLE: Span = Span::from_secs(15 * 60);
/// A connection attempt without an answer for this long is forgotten.
pub const FLOW_HALF_OPEN: Span = Span::from_secs(30);
/// A handshake that is so old when the input ends was not going to be completed.
pub const HANDSHAKE_PATIENCE: Span = Span::from_secs(5);

/// Counters (rule × subject) held at once. When full, the one longest untouched goes.
pub const COUNTERS_MAX: usize = 32_768;
/// The same of rules that rest on nothing but packets in whose name anybody can send them.
pub const CLAIMED_COUNTERS_MAX: usize = 4_096;
/// Connections of one address that are over and whose counts the next ones go on with.
pub const VACANT_MAX: usize = 16;
/// Different values one distinct-count remembers.
pub const DISTINCT_MAX: usize = 4_096;
/// Addresses one finding names as contributors.
pub const CONTRIBUTORS_MAX: usize = 1_024;
/// Subjects with history (addresses, with their logins and decisions). When full, the one longest untouched goes.
pub const SUBJECTS_MAX: usize = 32_768;
/// Bans held at once. When full, new ones are refused and counted: none is silently undone.
pub const BANS_MAX: usize = 100_000;
/// Networks remembered per person: of who owns a nickname, of an administrator.
pub const IDENTITY_NETWORKS_MAX: usize = 8;
/// Connections remembered that use one nickname at once.
pub const IDENTITY_SESSIONS_PER_NICKNAME_MAX: usize = 8;
/// Nicknames whose owners may still say that they are; beyond that nothing is held against those who take one.
pub const IDENTITY_PENDING_MAX: usize = 1_024;
/// Lines of evidence kept with a finding.
pub const EVIDENCE_LINES_MAX: usize = 5;
/// Notes kept for a report.
pub const NOTES_MAX: usize = 10_000;
/// Logged-in connections remembered per address.
pub const SESSIONS_PER_ADDRESS_MAX: usize = 64;
/// Accounts remembered per address.
pub const ACCOUNTS_PER_ADDRESS_MAX: usize = 16;

/// Servers known behind one IRC server link. Beyond these bounds an entry is not kept, which is counted, and what
/// is then unknown is held against nobody.
pub const LINK_SERVERS_MAX: usize = 1_024;
/// Users known behind one link.
pub const LINK_USERS_MAX: usize = 32_768;
/// Channels known on one link.
pub const LINK_CHANNELS_MAX: usize = 16_384;
/// Memberships of all channels of one link.
pub const LINK_MEMBERS_MAX: usize = 65_536;
/// Channels of one user of a link.
pub const LINK_USER_CHANNELS_MAX: usize = 256;
/// Users of one link remembered after they left.
pub const LINK_GONE_MAX: usize = 4_096;
/// Servers, users, channels and memberships of all links of one service together.
pub const LINKS_ENTRIES_MAX: usize = 98_304;
/// Peers remembered after a netsplit, per service.
pub const LINK_PEERS_MAX: usize = 64;
/// Channels whose timestamps are remembered from what clients are told, per service.
pub const CHANNEL_TIMESTAMPS_MAX: usize = 4_096;
