//! `floodwall check`: every mistake in rules and configuration, with its place.

use floodwall_engine::rule::{
    RuleFile,
    diagnostic::{Diagnostic, Diagnostics},
    lint,
};
use serde::Serialize;

use crate::{
    cli::{CheckArguments, Format},
    clock::utc_now,
    configuration::{self, Configuration, ConfigurationError},
    guard::Guard,
    lists::Lists,
    notify,
    output::{Exit, complain, print, print_json},
    rules::{self, RulesError},
};

mod schema;

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    rules: usize,
    mistakes: Vec<Mistake<'a>>,
    /// Rules that do nothing.
    warnings: Vec<Mistake<'a>>,
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
    if arguments.schema {
        return print_json(&schema::rule_file());
    }
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    let mut rules = 0;
    let mut files = Vec::new();
    match rules::load_with_sources(arguments.rules.as_deref()) {
        Ok(loaded) => {
            rules = loaded.iter().map(|(file, _)| file.rules.len()).sum();
            warnings.extend(loaded.iter().flat_map(|(file, source)| warnings_of(file, source)));
            files.extend(loaded.into_iter().map(|(file, _)| file));
        }
        Err(RulesError::Mistakes(found)) => mistakes.extend(found),
        Err(RulesError::Unreadable(reason)) => {
            complain(reason);
            return Exit::BadInput;
        }
    }
    match arguments.config.as_deref().map(configuration::load) {
        None => {}
        Some(Ok(configuration)) => {
            mistakes.extend(Lists::read(&configuration.lists).err().unwrap_or_default());
            if mistakes.is_empty()
                && let Err(reason) = fit(files, &configuration)
            {
                complain(reason);
                return Exit::BadInput;
            }
        }
        Some(Err(ConfigurationError::Mistakes(found))) => mistakes.extend(found),
        Some(Err(ConfigurationError::Unreadable(reason))) => {
            complain(reason);
            return Exit::BadInput;
        }
    }
    let printed = match arguments.format {
        Format::Text => print(text(rules, &mistakes, &warnings)),
        Format::Json => print_json(&report(rules, &mistakes, &warnings)),
    };
    if mistakes.is_empty() { printed } else { Exit::BadInput }
}

/// Whether rules and configuration fit together, as the wall would find when it starts.
fn fit(files: Vec<RuleFile>, configuration: &Configuration) -> Result<(), String> {
    let guard = Guard::new(files, configuration, &[])?;
    let missing = notify::missing(&guard.notify, &guard.notified());
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

/// Warnings stand where the rule's name does.
fn warnings_of(file: &RuleFile, source: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, text) in lint::warnings(file, utc_now()) {
        let id = file.rules.get(index).map(|rule| format!("\"{}\"", rule.id)).unwrap_or_default();
        let mut diagnostics = Diagnostics::new(&file.path, source);
        let remedy = Some("change it or leave it out".to_owned());
        diagnostics.report(source.find(&id).unwrap_or_default(), text, remedy);
        found.extend(diagnostics.into_sorted());
    }
    found
}

fn text(rules: usize, mistakes: &[Diagnostic], warnings: &[Diagnostic]) -> String {
    let mut text = match mistakes.len() {
        0 => format!("No mistakes: {rules} rules.\n"),
        1 => "1 mistake:\n".to_owned(),
        count => format!("{count} mistakes:\n"),
    };
    for mistake in mistakes {
        text.push_str(&format!("{mistake}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    text
}

fn report<'a>(rules: usize, mistakes: &'a [Diagnostic], warnings: &'a [Diagnostic]) -> Report<'a> {
    let all = |found: &'a [Diagnostic]| found.iter().map(Mistake::from).collect();
    Report { schema: "floodwall.check/1", rules, mistakes: all(mistakes), warnings: all(warnings) }
}
