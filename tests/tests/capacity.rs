//! Promise 5: what happens when a table is full is written down, and the same in both homes.

use floodwall_kernel::{KernelTables, tables::Fill};
use floodwall_tests::{Homes, bpf, packets};
use floodwall_wire::{
    Address, SourceKey,
    frame::Transport,
    lists::{
        Treatment,
        image::{Image, Range},
    },
    tables::{
        FlowKey, HOSTS_MAX, LIST_NODES_MIN, LOCALS_MAX, OPAQUE_MAX, PREFIXES_MAX, PROOFS_MAX, Port, Prefix,
        PrefixKey, ProofKey, Role, SOURCES_MAX, ServiceSettings, Source, names, status_flags,
    },
};

/// What the tables say of one of them.
fn fill(tables: &KernelTables, table: &str) -> Fill {
    let fills = tables.fills(u64::from(PREFIXES_MAX)).expect("the tables can be counted");
    fills.into_iter().find(|fill| fill.table == table).expect("a table that can be full")
}

/// A full table that has refused one entry and let none go.
fn assert_refused_one(tables: &KernelTables, table: &str) {
    let Fill { entries, capacity, refused, evicted, .. } = fill(tables, table);
    assert_eq!((entries, refused, evicted), (u64::from(capacity), 1, 0), "{table}");
}

/// A table in which the longest unused went: whatever was stored is held or was counted.
fn assert_let_go(tables: &KernelTables, table: &str, stored: u32) {
    let Fill { entries, capacity, refused, evicted, .. } = fill(tables, table);
    assert_eq!((entries + evicted, refused), (u64::from(stored), 0), "{table}");
    assert!(evicted >= u64::from(stored - capacity), "{table}: {evicted} were let go");
}

#[test]
fn full_sources_refuse_and_evict_nothing() {
    let Some(mut homes) = Homes::open("full_sources_refuse_and_evict_nothing") else { return };
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    for number in 0..u64::from(SOURCES_MAX) {
        homes.memory.insert_source(SourceKey(number), banned.clone()).expect("there is room in memory");
        homes.kernel.set_source(SourceKey(number), &banned);
    }
    let tables = homes.kernel.tables();
    let beyond = SourceKey(u64::from(SOURCES_MAX));
    assert!(homes.memory.insert_source(beyond, banned.clone()).is_err());
    let refused = tables.set_source(beyond, &banned).expect_err("the kernel has no room either");
    assert_eq!(refused.raw_os_error(), Some(libc::E2BIG));
    let full = Fill {
        table: "sources".into(),
        entries: SOURCES_MAX.into(),
        capacity: SOURCES_MAX,
        refused: 1,
        evicted: 0,
    };
    assert_eq!(fill(tables, "sources"), full);
    for number in [0, 1, u64::from(SOURCES_MAX) - 1] {
        assert!(tables.source(SourceKey(number)).is_some(), "{number}");
    }
    let renewed = Source { banned_until: 1, ..Source::default() };
    tables.set_source(SourceKey(7), &renewed).expect("an entry that is there can be changed");
    assert_eq!(tables.source(SourceKey(7)), Some(renewed));
    tables.remove_source(SourceKey(8)).expect("an entry can be removed");
    tables.set_source(beyond, &banned).expect("there is room again");
}

#[test]
fn full_proofs_go_on_proving_and_stay_bounded() {
    let Some(mut homes) = Homes::open("full_proofs_go_on_proving_and_stay_bounded") else { return };
    homes.set_port(0, Transport::Tcp, 10_333, Port::guarded(0, Role::TeamTalk));
    homes.set_settings(0, 0, ServiceSettings { proof_for: 1_000_000, ..ServiceSettings::default() });
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
    for number in 0..PROOFS_MAX + 1_000 {
        let path =
            packets::Path::new(&Address::from_v4(0x0a00_0000 + number).to_string(), "192.0.2.1", 10_333);
        let answer = packets::data(path.back(), b"welcome");
        assert!(homes.observe(&answer, &number).proves, "answer {number}");
    }
    let held = bpf::keys::<ProofKey>(homes.kernel.map(names::PROOFS)).expect("proofs can be listed");
    assert!(held.len() <= PROOFS_MAX as usize, "{} proofs", held.len());
    // The kernel lets proofs go in batches, so it may hold fewer; a tenth fewer would be a table not worth its memory.
    assert!(held.len() > PROOFS_MAX as usize * 9 / 10, "{} proofs", held.len());
    assert_eq!(homes.memory.proofs().count(), PROOFS_MAX as usize);
    assert_let_go(homes.kernel.tables(), "proofs", PROOFS_MAX + 1_000);
    assert_eq!(homes.memory.proofs_evicted(), 1_000);
    let newest = ProofKey { address: Address::from_v4(0x0a00_0000 + PROOFS_MAX + 999), service: 0 };
    assert!(held.contains(&newest), "the newest proof is the one that counts");
}

#[test]
fn full_tables_of_hosts_prefixes_and_locals_refuse_and_keep_what_they_have() {
    let Some(homes) = Homes::open("full_tables_of_hosts_prefixes_and_locals_refuse_and_keep_what_they_have")
    else {
        return;
    };
    let host = |number: u32| Address::from_v6(0x2001_0db8_0000_0000, u64::from(number) + 1);
    let source = Source { banned_until: u64::MAX, ..Source::default() };
    let prefix = |number: u32| PrefixKey::new(Address::from_v4(number << 12), 96 + 20);
    let tables = homes.kernel.tables();
    let hosts = homes.kernel.map(names::HOSTS);
    refuses_beyond(HOSTS_MAX, |number| tables.set_host(host(number), &source));
    assert_refused_one(tables, "hosts");
    assert_eq!(bpf::lookup(hosts, &host(0)).expect("a look-up"), Some(source));
    let prefixes = homes.kernel.map(names::PREFIXES);
    refuses_beyond(PREFIXES_MAX, |number| tables.set_prefix(prefix(number), &Prefix::default()));
    assert_refused_one(tables, "prefixes");
    assert_eq!(bpf::lookup(prefixes, &prefix(0)).expect("a look-up"), Some(Prefix::default()));
    let locals = homes.kernel.map(names::LOCALS);
    refuses_beyond(LOCALS_MAX, |number| tables.insert_local(host(number)));
    assert_refused_one(tables, "locals");
    assert_eq!(bpf::lookup(locals, &host(0)).expect("a look-up"), Some(1_u8));
}

#[test]
fn lists_for_which_there_is_no_room_leave_those_before_in_force() {
    let Some(mut homes) = Homes::open("lists_for_which_there_is_no_room_leave_those_before_in_force") else {
        return;
    };
    let range = |number: u32| {
        let first = Address::from_v6(0x2001_0db8_0000_0000 + u64::from(number) * 2, 7);
        Range { first, last: first, treatment: Treatment::Ban }
    };
    homes.set_lists(&[range(0)]);
    let small: u64 = Image::build(&[range(0)]).nodes().len() as u64;
    // The worst that may be listed: single addresses of IPv6, each in a /64 of its own.
    let most = (1..).step_by(64).map(|count| Image::build(&(0..count).map(range).collect::<Vec<_>>()));
    let beyond = most.into_iter().find(|image| image.nodes().len() > LIST_NODES_MIN as usize);
    let beyond = beyond.expect("more than there is room for");
    let tables = homes.kernel.tables();
    let refused = tables.set_lists(&beyond).expect_err("there is no room");
    assert_eq!(refused.raw_os_error(), Some(libc::E2BIG));
    let Fill { entries, capacity, refused, evicted, .. } = fill(tables, "lists");
    assert_eq!((entries, capacity, refused, evicted), (small, LIST_NODES_MIN, 1, 0));
    homes.set_port(0, Transport::Tcp, 6_667, Port::guarded(0, Role::Irc));
    homes.set_settings(0, 0, ServiceSettings::default());
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
    let path = packets::Path::new("2001:db8::7", "2001:db8:ffff::1", 6_667);
    let judged =
        homes.judge(&packets::tcp(path, floodwall_wire::frame::tcp_flags::ACK, b"x"), &"listed before");
    assert_eq!(judged.reason, floodwall_wire::Reason::BanPrefix);
    homes.set_lists(&(0..8_000).map(range).collect::<Vec<_>>());
}

/// A hash says `E2BIG` when it is full, a trie `ENOSPC`.
fn refuses_beyond(capacity: u32, insert: impl Fn(u32) -> std::io::Result<()>) {
    for number in 0..capacity {
        insert(number).expect("there is room below the capacity");
    }
    let refused = insert(capacity).expect_err("there is no room for one more");
    assert!(matches!(refused.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)), "{refused}");
}

#[test]
fn full_opaque_flows_stay_bounded_and_the_newest_is_held() {
    let Some(homes) = Homes::open("full_opaque_flows_stay_bounded_and_the_newest_is_held") else { return };
    let tables = homes.kernel.tables();
    let server = Address::from_v4(0xc000_0201);
    let flow = |number: u32| FlowKey::new(Address::from_v4(0x0a00_0000 + number), 40_000, server, 6_697);
    for number in 0..OPAQUE_MAX + 1_000 {
        tables.set_opaque(&flow(number)).expect("the longest unused goes");
    }
    let held = bpf::keys::<FlowKey>(homes.kernel.map(names::OPAQUE)).expect("the keys");
    assert!(held.len() <= OPAQUE_MAX as usize, "{} flows", held.len());
    assert!(held.contains(&flow(OPAQUE_MAX + 999)), "the newest flow is the one that counts");
    assert_let_go(tables, "opaque", OPAQUE_MAX + 1_000);
    tables.clear_opaque(&flow(OPAQUE_MAX + 999)).expect("a flow can be followed again");
    assert_let_go(tables, "opaque", OPAQUE_MAX + 999);
}
