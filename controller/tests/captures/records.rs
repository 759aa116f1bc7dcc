//! Committed captures in memory, to be changed and replayed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Time in microseconds, length on the wire, bytes.
pub(crate) type Record = (u64, u32, Vec<u8>);

pub(crate) fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name).with_extension("pcap")
}

/// Every record of a committed capture.
pub(crate) fn read(name: &str) -> Vec<Record> {
    let file = fs::read(corpus(name)).expect("a committed capture");
    let number = |at: usize| u32::from_le_bytes(*file[at..].first_chunk().expect("four bytes"));
    let mut records = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let end = at + 16 + number(at + 8) as usize;
        let micros = u64::from(number(at)) * 1_000_000 + u64::from(number(at + 4));
        records.push((micros, number(at + 12), file[at + 16..end].to_vec()));
        at = end;
    }
    records
}

fn write(path: &Path, records: &[Record]) {
    let mut file = Vec::new();
    for value in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    for (at, wire, bytes) in records {
        for value in [(at / 1_000_000) as u32, (at % 1_000_000) as u32, bytes.len() as u32, *wire] {
            file.extend_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(bytes);
    }
    fs::write(path, file).expect("a file");
}

/// What `floodwall replay` says of these records.
pub(crate) fn report_of(records: &[Record]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("changed.pcap");
    write(&path, records);
    let output = Command::new(env!("CARGO_BIN_EXE_floodwall"))
        .args(["replay", "--format", "json"])
        .arg(&path)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
