//! Loads the gate's programs on the running kernel and says what the verifier made of them.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;

use anyhow::Result;
use floodwall_tests::{KernelGate, prebuilt_object};

fn main() -> Result<()> {
    let object = std::env::args_os().nth(1).map_or_else(prebuilt_object, PathBuf::from);
    let gate = KernelGate::as_in_production(&object)?;
    for program in ["floodwall_ingress", "floodwall_egress", "floodwall_clock"] {
        let (walked, held) = gate.instructions(program)?;
        println!("{program}: {held} instructions, {walked} walked by the verifier");
    }
    println!("clock: {:?}", gate.clock());
    Ok(())
}
