//! Control-channel bytes per second through stream and dissector, and packets per second through the whole engine
//! with the shipped rules; over committed captures. One core.
//!
//! `cargo bench -p floodwall-engine`; with `--profile-time 10 message_flood/engine` for `perf`.

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests' own: they cut and change captures too, and the captures are committed"
)]
#[path = "../tests/captures/support.rs"]
mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use floodwall_engine::{Protocol, rule};
use support::{Recorded, RecordedBody};

fn control_channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("control_channel");
    for name in ["09_message_flood", "03_login_storm_single", "16_benign_busy"] {
        let packets: Vec<Recorded> = support::capture("teamtalk", name)
            .into_iter()
            .filter(|packet| matches!(packet.body, RecordedBody::Segment { .. }))
            .collect();
        let bytes: usize = packets.iter().map(payload_bytes).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(
            BenchmarkId::new("stream_and_dissector", name),
            &packets,
            |bencher, packets| {
                bencher.iter_batched(
                    || support::engine("teamtalk"),
                    |mut engine| {
                        for packet in packets {
                            engine.handle_packet(&packet.packet());
                        }
                        engine
                    },
                    criterion::BatchSize::LargeInput,
                );
            },
        );
    }
    group.finish();
}

fn packets(criterion: &mut Criterion) {
    let text = include_str!("../../rules/teamtalk.toml");
    let rules = rule::file::parse("teamtalk.toml", text).map(|file| file.rules).unwrap_or_default();
    let mut group = criterion.benchmark_group("packets");
    for name in ["09_message_flood", "03_login_storm_single", "16_benign_busy", "10_udp_junk_flood"] {
        let packets = support::capture("teamtalk", name);
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_with_input(BenchmarkId::new("engine_with_rules", name), &packets, |bencher, packets| {
            bencher.iter_batched(
                || support::engine_of(Protocol::TeamTalk, rules.clone()),
                |mut engine| {
                    for packet in packets {
                        engine.handle_packet(&packet.packet());
                        while engine.next_command().is_some() {}
                    }
                    engine
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

const fn payload_bytes(packet: &Recorded) -> usize {
    match &packet.body {
        RecordedBody::Segment { payload, .. } => payload.len(),
        RecordedBody::Datagram(_) => 0,
    }
}

criterion_group!(benches, control_channel, packets);
criterion_main!(benches);
