//! `floodwall detach`: the gate goes, whoever attached it.

use std::path::PathBuf;

use floodwall_kernel::gate;
use serde_json::json;

use crate::{
    cli::{DetachArguments, Format},
    enforce::nftables,
    output::{Exit, complain, print},
};

/// Runs the command.
pub(crate) fn run(arguments: &DetachArguments) -> Exit {
    if !nix::unistd::geteuid().is_root() {
        complain("floodwall detach takes root: run it with sudo");
        return Exit::NotPermitted;
    }
    let pins = arguments.pins.clone().unwrap_or_else(|| PathBuf::from(gate::DEFAULT_PINS));
    let (gate, table) = (gate::detach(&pins), nftables::remove());
    match gate.and_then(|removed| Ok((removed, table?))) {
        Ok((removed, table)) => match arguments.format {
            Format::Json => {
                let answer =
                    json!({"schema": "floodwall.detach/1", "interfaces": removed, "nftables": table});
                print(format_args!("{answer:#}\n"))
            }
            Format::Text if table && removed.is_empty() => {
                print("The table inet floodwall of nftables is gone. Every ban is lifted with it.\n")
            }
            Format::Text if removed.is_empty() => print("There was no gate to take away.\n"),
            Format::Text => print(format_args!(
                "The gate is gone from {}. Every ban is lifted with it.\n",
                removed.join(", ")
            )),
        },
        Err(error) => {
            complain(format_args!("not everything could be taken away: {error:#}"));
            Exit::Failed
        }
    }
}
