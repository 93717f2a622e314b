//! What `--help` prints.

use super::flag::{Flag, Kind};
use super::{Command, Path};
use crate::go::{self, push};

/// Names of commands are padded to this width.
const NAME_WIDTH: usize = 11;

/// All that help says of a command.
pub(crate) fn help(path: &Path) -> String {
    let command = path.command();
    let about = command.long.unwrap_or(command.short).trim_end();
    format!("{about}\n\n{}", usage(path))
}

/// How a command is used, without what it is for.
pub(crate) fn usage(path: &Path) -> String {
    let command = path.command();
    let mut text = String::from("Usage:");
    if command.run.is_some() {
        // The command that lists its words in the usage takes no options besides.
        let flags = if command.words.is_empty() { " [flags]" } else { "" };
        push(&mut text, format_args!("\n  {}{flags}", path.usage()));
    }
    if !command.children.is_empty() {
        push(&mut text, format_args!("\n  {} [command]", path.text()));
    }
    if let Some(example) = command.example {
        push(&mut text, format_args!("\n\nExamples:\n{example}"));
    }
    text.push_str(&children(path));
    if !path.is_root() {
        let own: Vec<&Flag> = command.flags.iter().chain(command.inherited).collect();
        text.push_str("\n\nFlags:\n");
        text.push_str(flag_usages(&own, Some(command.name())).trim_end());
    }
    let above = path.flags_from_above();
    if !above.is_empty() {
        text.push_str("\n\nGlobal Flags:\n");
        text.push_str(flag_usages(&above, None).trim_end());
    }
    if !command.children.is_empty() {
        let name = path.text();
        let hint = format_args!(
            "\n\nUse \"{name} [command] --help\" for more information about a command."
        );
        push(&mut text, hint);
    }
    text.push('\n');
    text
}

fn children(path: &Path) -> String {
    let command = path.command();
    let list = |text: &mut String, group: Option<&str>| {
        let listed = |child: &&Command| group.is_none_or(|group| child.group == group);
        for child in command.children.iter().filter(listed) {
            push(text, format_args!("\n  {:NAME_WIDTH$} {}", child.name(), child.short));
        }
    };
    let mut text = String::new();
    if command.children.is_empty() {
        return text;
    }
    if !path.is_root() {
        text.push_str("\n\nAvailable Commands:");
        list(&mut text, None);
        return text;
    }
    for group in crate::ctl::GROUPS {
        if command.children.iter().any(|child| child.group == *group) {
            push(&mut text, format_args!("\n\n{group}"));
            list(&mut text, Some(group));
        }
    }
    text
}

/// A table of options; `of` adds the one for help.
pub(crate) fn flag_usages(flags: &[&Flag], of: Option<&str>) -> String {
    let mut lines: Vec<(String, String, String)> =
        flags.iter().map(|flag| (flag.name.to_owned(), left(flag), right(flag))).collect();
    if let Some(name) = of {
        let left = "  -h, --help".to_owned();
        lines.push(("help".to_owned(), left, format!("help for {name}")));
    }
    lines.sort();
    let width = lines.iter().map(|(_, left, _)| left.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (_, left, right) in lines {
        push(&mut text, format_args!("{left:width$}   {right}\n"));
    }
    text
}

fn left(flag: &Flag) -> String {
    let short = match flag.short {
        Some(letter) => format!("-{letter}, "),
        None => "    ".to_owned(),
    };
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Int => " int",
        Kind::Uint => " uint",
        Kind::Duration => " duration",
        Kind::String => " string",
        Kind::Strings => " strings",
    };
    format!("  {short}--{}{kind}", flag.name)
}

fn right(flag: &Flag) -> String {
    let default = flag.default;
    match flag.kind {
        Kind::Bool if default == "true" => format!("{} (default true)", flag.usage),
        Kind::Int | Kind::Uint | Kind::Duration if default != "0" => {
            format!("{} (default {default})", flag.usage)
        }
        Kind::String if !default.is_empty() => {
            format!("{} (default {})", flag.usage, go::quote(default.as_bytes()))
        }
        Kind::Strings => format!("{} (default [{default}])", flag.usage),
        _ => flag.usage.to_owned(),
    }
}
