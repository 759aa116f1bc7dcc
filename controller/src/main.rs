//! `floodwall`: the shell around gate and engine.
//!
//! Reading order: [`cli`] (what was typed) → one module per command ([`replay`], [`check`]). Beneath them:
//! [`capture`] reads packets from files, [`guard`] turns rule files and configuration into gate tables and
//! engine services, [`enforce`] carries out the engine's commands.

#![forbid(unsafe_code)]

use std::process::ExitCode;

mod analyze;
mod capture;
mod catalogue;
mod check;
mod cli;
mod client;
mod clock;
mod configuration;
mod demo;
mod detach;
mod doctor;
mod enforce;
mod guard;
mod incident;
mod input;
mod lists;
mod live;
mod namespace;
mod notify;
mod output;
mod replay;
mod rules;
mod suggest;
mod test;
mod top;

fn main() -> ExitCode {
    cli::run()
}
