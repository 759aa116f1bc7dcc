//! Rule files: a folder's, or the shipped ones.

use std::{fs, path::Path};

use floodwall_engine::rule::{
    RuleFile,
    diagnostic::{Diagnostic, Diagnostics},
    file,
};

use crate::output::shown;

/// The shipped rules, one file per protocol.
pub(crate) const SHIPPED: [(&str, &str); 3] = [
    ("rules/irc.toml", include_str!("../../rules/irc.toml")),
    ("rules/teamspeak.toml", include_str!("../../rules/teamspeak.toml")),
    ("rules/teamtalk.toml", include_str!("../../rules/teamtalk.toml")),
];

/// Where the operator's rules are; the shipped ones otherwise.
pub(crate) const DEFAULT_FOLDER: &str = "/etc/floodwall/rules";

/// Largest rule file read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why rules could not be used.
#[derive(Debug)]
pub(crate) enum RulesError {
    /// A folder or file could not be read.
    Unreadable(String),
    /// Mistakes in rule files.
    Mistakes(Vec<Diagnostic>),
}

/// Reads every `*.toml` of a folder, in order of name; without one, the shipped rules.
pub(crate) fn load(folder: Option<&Path>) -> Result<Vec<RuleFile>, RulesError> {
    Ok(load_with_sources(folder)?.into_iter().map(|(file, _)| file).collect())
}

/// The same, each with its text.
pub(crate) fn load_with_sources(folder: Option<&Path>) -> Result<Vec<(RuleFile, String)>, RulesError> {
    let sources = match folder {
        Some(folder) => read_folder(folder).map_err(RulesError::Unreadable)?,
        None => SHIPPED.map(|(path, source)| (path.to_owned(), source.to_owned())).to_vec(),
    };
    let mut files = Vec::new();
    let mut mistakes = Vec::new();
    for (path, source) in &sources {
        match file::parse(path, source) {
            Ok(file) => files.push(file),
            Err(found) => mistakes.extend(found),
        }
    }
    mistakes.extend(duplicates(&files, &sources));
    if !mistakes.is_empty() {
        return Err(RulesError::Mistakes(mistakes));
    }
    // Every file was read, so there are as many of both.
    Ok(files.into_iter().zip(sources.into_iter().map(|(_, source)| source)).collect())
}

fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let entries = fs::read_dir(folder).map_err(|error| {
        format!(
            "cannot read {}: {error}; rules are a folder of files (*.toml), such as a copy of rules/",
            shown(folder)
        )
    })?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("cannot read {}: {error}", shown(folder)))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{} holds no rule file (*.toml)", shown(folder)));
    }
    paths.into_iter().map(|path| Ok((shown(&path), read_text(&path)?))).collect()
}

/// A whole file as text, refused beyond a bound.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let shown = shown(path);
    let size = fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{shown} is larger than {} MiB: not a file of ours", FILE_BYTES_MAX >> 20));
    }
    let bytes = fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let (whole, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
        let before = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
        let (line, column) = Diagnostics::new(&shown, &before).position(whole);
        format!("{shown}:{line}:{column}: this byte is no UTF-8; save the file as UTF-8")
    })
}

/// Two files for one protocol, or one rule in two files.
fn duplicates(files: &[RuleFile], sources: &[(String, String)]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let earlier = files.iter().take(index);
        if let Some(first) = earlier.clone().find(|first| first.protocol == file.protocol) {
            found.push(Diagnostic {
                path: file.path.clone(),
                line: 1,
                column: 1,
                message: format!("a second file for {}, after {}", file.protocol.as_str(), first.path),
                remedy: Some("put all rules of a protocol into one file".to_owned()),
            });
        }
        for rule in &file.rules {
            if let Some(first) =
                earlier.clone().find(|first| first.rules.iter().any(|other| other.id == rule.id))
            {
                let source = sources.iter().find(|(path, _)| *path == file.path);
                let source = source.map_or("", |(_, source)| source);
                let mut diagnostics = Diagnostics::new(&file.path, source);
                let offset = source.find(&format!("\"{}\"", rule.id)).unwrap_or_default();
                let message = format!("a second rule \"{}\", after the one in {}", rule.id, first.path);
                diagnostics.report(offset, message, Some("give it a name of its own".to_owned()));
                found.extend(diagnostics.into_sorted());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_are_without_mistake_and_cover_every_protocol() {
        let files = load(None).unwrap();
        assert_eq!(files.len(), floodwall_engine::Protocol::ALL.len());
        for file in &files {
            let name = file.protocol.as_str();
            assert!(!file.rules.is_empty());
            for rule in &file.rules {
                assert!(rule.id.0.starts_with(&format!("{name}/")), "{}", rule.id);
            }
        }
    }
}
