//! `floodwall check`: every mistake in rules and configuration, with its place.

use floodwall_engine::rule::diagnostic::Diagnostic;
use serde::Serialize;

use crate::{
    cli::{CheckArguments, Format},
    configuration::{self, ConfigurationError},
    output::{Exit, complain, print},
    rules::{self, RulesError},
};

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    rules: usize,
    mistakes: Vec<Mistake<'a>>,
}

#[derive(Serialize)]
struct Mistake<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
    remedy: Option<&'a str>,
}

impl<'a> From<&'a Diagnostic> for Mistake<'a> {
    fn from(diagnostic: &'a Diagnostic) -> Self {
        Self {
            file: &diagnostic.path,
            line: diagnostic.line,
            column: diagnostic.column,
            message: &diagnostic.message,
            remedy: diagnostic.remedy.as_deref(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &CheckArguments) -> Exit {
    let mut mistakes = Vec::new();
    let mut rules = 0;
    match rules::load(arguments.rules.as_deref()) {
        Ok(files) => rules = files.iter().map(|file| file.rules.len()).sum(),
        Err(RulesError::Mistakes(found)) => mistakes.extend(found),
        Err(RulesError::Unreadable(reason)) => {
            complain(reason);
            return Exit::BadInput;
        }
    }
    match arguments.config.as_deref().map(configuration::load) {
        None | Some(Ok(_)) => {}
        Some(Err(ConfigurationError::Mistakes(found))) => mistakes.extend(found),
        Some(Err(ConfigurationError::Unreadable(reason))) => {
            complain(reason);
            return Exit::BadInput;
        }
    }
    let printed = match arguments.format {
        Format::Text => print(text(rules, &mistakes)),
        Format::Json => print(json(rules, &mistakes)),
    };
    if mistakes.is_empty() { printed } else { Exit::BadInput }
}

fn text(rules: usize, mistakes: &[Diagnostic]) -> String {
    let mut text = match mistakes.len() {
        0 => format!("No mistakes: {rules} rules.\n"),
        1 => "1 mistake:\n".to_owned(),
        count => format!("{count} mistakes:\n"),
    };
    for mistake in mistakes {
        text.push_str(&format!("{mistake}\n"));
    }
    text
}

fn json(rules: usize, mistakes: &[Diagnostic]) -> String {
    let mistakes = mistakes.iter().map(Mistake::from).collect();
    let report = Report { schema: "floodwall.check/1", rules, mistakes };
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}
