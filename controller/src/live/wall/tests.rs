//! Brakes of the live wall: whom no rule may ban or limit. Each is tried with and without the circumstance it is for, so
//! that without the brake somebody would be hurt.

use std::net::IpAddr;

use floodwall_engine::signal::{Detail, FlowId, Method, SignalKind};
use floodwall_wire::memory::Tables;

use super::*;
use crate::{clock, configuration::Configuration, live::metrics, rules};

struct Lab {
    wall: Wall<Tables>,
    service: u8,
    flows: u64,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(rules::load(None).unwrap(), &Configuration::default(), &[]).unwrap();
        let service = guard.services.iter().position(|service| service.name == "teamtalk").unwrap() as u8;
        let utc = clock::utc_now();
        let (ledger, remembered) = LedgerWriter::open(folder.path(), utc).unwrap();
        let settings = Settings {
            observe: false,
            state_folder: folder.path().to_owned(),
            mode: "native".into(),
            why: Vec::new(),
            interfaces: Vec::new(),
            confirm_by: None,
            seed: 1,
        };
        let mut store = guard.tables(1).unwrap();
        store.set_now(utc.as_nanos());
        let parts = Parts {
            store,
            guard,
            clock: Arc::new(WallClock::new(utc.as_nanos(), utc, clock::boot_id())),
            ledger,
            people: None,
            incidents: Incidents::open(folder.path()).unwrap(),
            cutter: None,
            watchers: Arc::new(Watchers::new()),
            settings,
            enforcing: metrics::enforcing_histogram().unwrap(),
        };
        let mut wall = Wall::new(parts, &remembered).unwrap();
        wall.local = vec![address("192.0.2.1"), address("2001:db8:0:1::1")];
        wall.gateways = vec![address("192.0.2.254")];
        Self { wall, service, flows: 0, _folder: folder }
    }

    /// What a server's answers say of somebody, so many times.
    fn signal(&mut self, kind: SignalKind, from: &str, times: usize) {
        for _ in 0..times {
            self.flows += 1;
            let at = self.wall.clock.now();
            let detail = Detail { method: Some(Method::Account), ..Detail::default() };
            let (service, flow) = (self.service, Some(FlowId(self.flows)));
            let signal = Signal { kind, at, service, address: address(from), flow, detail };
            self.wall.engine.handle_log(at, &mut vec![signal]);
            self.wall.carry_out();
        }
    }

    fn guess(&mut self, from: &str) {
        self.signal(SignalKind::LoginFailed, from, 8);
    }

    fn is_banned(&self, subject: &str) -> bool {
        let subject = parse_subject(subject).unwrap();
        let now = self.wall.clock.to_gate(self.wall.clock.now());
        self.wall.engine.ledger().ban_of(subject.address(), self.wall.clock.now()).is_some()
            || self.wall.enforcer.deadlines(subject.address()).0 > now
    }

    fn is_limited(&self, written: &str) -> bool {
        self.wall.enforcer.deadlines(address(written)).1 > 0
    }
}

fn address(written: &str) -> Address {
    written.parse::<IpAddr>().unwrap().into()
}

#[test]
fn a_guesser_is_banned_and_a_flooder_limited_where_no_brake_is_for_them() {
    let mut lab = Lab::new();
    lab.guess("203.0.113.7");
    assert!(lab.is_banned("203.0.113.7"));
    lab.signal(SignalKind::ConnectionOpened, "203.0.113.8", 200);
    assert!(lab.is_limited("203.0.113.8"));
}

#[test]
fn the_host_itself_is_never_banned_nor_limited() {
    // A container's proxy makes every user one address of the bridge: banned, nobody gets in.
    let mut lab = Lab::new();
    lab.guess("192.0.2.1");
    lab.signal(SignalKind::ConnectionOpened, "192.0.2.1", 200);
    assert!(!lab.is_banned("192.0.2.1") && !lab.is_limited("192.0.2.1"));
    assert!(lab.wall.counts.refused >= 1);
}

#[test]
fn a_gateway_is_never_banned_nor_limited() {
    // Where a router hides who is behind it, all of them have its address.
    let mut lab = Lab::new();
    lab.guess("192.0.2.254");
    lab.signal(SignalKind::ConnectionOpened, "192.0.2.254", 200);
    assert!(!lab.is_banned("192.0.2.254") && !lab.is_limited("192.0.2.254"));
}

#[test]
fn an_operator_who_mistypes_is_not_locked_out() {
    let mut lab = Lab::new();
    lab.wall.remember_terminal(Some("203.0.113.7 50000 192.0.2.1 22"));
    lab.guess("203.0.113.7");
    lab.signal(SignalKind::ConnectionOpened, "203.0.113.7", 200);
    assert!(!lab.is_banned("203.0.113.7") && !lab.is_limited("203.0.113.7"));
    // By then somebody else may sit there.
    for (_, until) in &mut lab.wall.operators {
        *until = lab.wall.clock.now();
    }
    lab.wall
        .engine
        .handle_order(Order::Unban { subject: parse_subject("203.0.113.7").unwrap() }, lab.wall.clock.now());
    lab.wall.carry_out();
    lab.guess("203.0.113.9");
    assert!(lab.is_banned("203.0.113.9"));
    assert!(lab.wall.brake(parse_subject("203.0.113.7").unwrap()).is_none());
}

#[test]
fn who_is_allowed_is_never_banned_nor_limited() {
    let mut lab = Lab::new();
    lab.wall.enforcer.allow(parse_subject("203.0.113.0/24").unwrap(), true).unwrap();
    lab.guess("203.0.113.7");
    lab.signal(SignalKind::ConnectionOpened, "203.0.113.7", 200);
    assert!(!lab.is_banned("203.0.113.7") && !lab.is_limited("203.0.113.7"));
}

#[test]
fn a_network_that_holds_this_host_is_not_banned_whole() {
    let rotate = |lab: &mut Lab, network: u32| {
        for host in 1..=20 {
            lab.signal(SignalKind::LoginFailed, &format!("2001:db8:0:{network:x}::{host:x}:7"), 1);
        }
    };
    let mut lab = Lab::new();
    rotate(&mut lab, 2);
    assert!(lab.is_banned("2001:db8:0:2::ffff"));
    rotate(&mut lab, 1);
    assert!(!lab.is_banned("2001:db8:0:1::ffff"), "it would take this host's own address with it");
}

#[test]
fn prefixes_wider_than_a_provider_take_force_and_everybody_is_never_banned() {
    let mut lab = Lab::new();
    let mut ban = |subject: &str, force| {
        let request = crate::live::control::Request::Ban {
            subject: subject.into(),
            seconds: None,
            why: None,
            kick: false,
            force,
        };
        lab.wall.handle_request(request).is_ok()
    };
    for wide in ["11.0.0.0/8", "198.50.0.0/15", "2a00::/24", "2001:db8::/47"] {
        assert!(!ban(wide, false), "{wide}");
    }
    assert!(ban("198.51.0.0/16", false) && ban("2a00:1:2::/48", false));
    for hurtful in ["192.0.2.1", "192.0.2.0/24", "192.0.2.254", "0.0.0.0/0", "::/0"] {
        assert!(!ban(hurtful, false), "{hurtful}");
    }
    assert!(!ban("0.0.0.0/0", true) && !ban("::/0", true));
    assert!(ban("11.0.0.0/8", true));
}
