//! Commands as tables: what there is, how a command line finds it, what its help says.
//!
//! The rules are those of the library that etcdctl is built with: options and arguments may be mixed, `--`
//! ends options, an unambiguous beginning of a command's name is enough.

mod flag;
mod help;
mod suggest;

use std::ffi::OsString;
use std::pin::Pin;

pub(crate) use flag::{Flag, Kind, Values, parse};
pub(crate) use help::{flag_usages, help, usage};

use crate::exit::Failure;
use crate::go::push;

/// A command being carried out.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// One command, or a group of them.
#[derive(Debug)]
pub(crate) struct Command {
    /// The name and what its arguments look like.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    /// Shown by `--help` instead of `short`.
    pub(crate) long: Option<&'static str>,
    pub(crate) example: Option<&'static str>,
    /// The heading under which the root's help lists it.
    pub(crate) group: &'static str,
    /// Without `help`, sorted by name.
    pub(crate) flags: &'static [Flag],
    /// Flags of this command and those below it.
    pub(crate) inherited: &'static [Flag],
    pub(crate) children: &'static [Self],
    pub(crate) run: Option<fn(Invocation) -> Running>,
    /// Words that are the only arguments allowed.
    pub(crate) words: &'static [&'static str],
}

impl Command {
    /// What most commands leave out.
    pub(crate) const NONE: Self = Self {
        usage: "",
        short: "",
        long: None,
        example: None,
        group: "",
        flags: &[],
        inherited: &[],
        children: &[],
        run: None,
        words: &[],
    };

    pub(crate) fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }

    /// The child that `word` names or begins the name of.
    pub(crate) fn child(&self, word: &str) -> Option<&'static Self> {
        if let Some(exact) = self.children.iter().find(|child| child.name() == word) {
            return Some(exact);
        }
        let mut matching = self.children.iter().filter(|child| child.name().starts_with(word));
        matching.next().filter(|_| matching.next().is_none())
    }
}

/// The way from the root to a command.
#[derive(Debug, Clone)]
pub(crate) struct Path(Vec<&'static Command>);

impl Path {
    pub(crate) fn root(root: &'static Command) -> Self {
        Self(vec![root])
    }

    pub(crate) fn command(&self) -> &'static Command {
        self.0[self.0.len() - 1]
    }

    /// `etcdctl lease grant`.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|command| command.name()).collect::<Vec<_>>().join(" ")
    }

    /// The usage line's beginning: names of the ancestors, then the command's own usage.
    fn usage(&self) -> String {
        let ancestors = self.0[..self.0.len() - 1].iter().map(|command| command.name());
        ancestors.chain([self.command().usage]).collect::<Vec<_>>().join(" ")
    }

    fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// All flags that the command takes.
    pub(crate) fn flags(&self) -> Vec<&'static Flag> {
        let inherited = self.0.iter().flat_map(|command| command.inherited);
        self.command().flags.iter().chain(inherited).collect()
    }

    /// Flags of the commands above that are not the root's: the root's are listed apart.
    fn flags_from_above(&self) -> Vec<&'static Flag> {
        let above = self.0.get(1..self.0.len() - 1).unwrap_or_default();
        above.iter().flat_map(|command| command.inherited).collect()
    }

    /// Flags that the environment may set.
    pub(crate) fn inherited_flags(&self) -> Vec<&'static Flag> {
        self.0[..self.0.len() - 1].iter().flat_map(|command| command.inherited).collect()
    }

    /// Finds the command that `arguments` name, and removes its name from them.
    pub(crate) fn find(root: &'static Command, arguments: &[OsString]) -> (Self, Vec<OsString>) {
        let mut path = Self::root(root);
        let mut rest = arguments.to_vec();
        while let Some(index) = path.first_argument(&rest) {
            let word = rest[index].to_string_lossy().into_owned();
            let Some(child) = path.command().child(&word) else { break };
            path.0.push(child);
            rest.remove(index);
        }
        (path, rest)
    }

    /// Where the first word is that is neither an option nor an option's value.
    fn first_argument(&self, arguments: &[OsString]) -> Option<usize> {
        let flags = self.flags();
        let mut index = 0;
        while let Some(argument) = arguments.get(index) {
            let text = argument.to_string_lossy();
            let takes_next = match text.strip_prefix("--") {
                Some("") => return None,
                Some(name) => {
                    !text.contains('=') && !flags.iter().any(|f| f.name == name && f.is_switch())
                }
                None => match text.strip_prefix('-') {
                    Some("") | None => return Some(index),
                    Some(letters) => {
                        let letter = letters.chars().next();
                        letters.chars().count() == 1
                            && letter != Some('h')
                            && !flags.iter().any(|f| f.short == letter && f.is_switch())
                    }
                },
            };
            let is_help = text == "--help";
            index += if takes_next && !is_help { 2 } else { 1 };
        }
        None
    }
}

/// A command with what it was given.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) path: Path,
    pub(crate) values: Values,
    pub(crate) arguments: Vec<OsString>,
    /// How many arguments came before `--`, if it was there.
    pub(crate) before_separator: Option<usize>,
}

impl Invocation {
    /// The arguments as the bytes that they are.
    pub(crate) fn bytes(&self, index: usize) -> Option<bytes::Bytes> {
        use std::os::unix::ffi::OsStrExt;
        let argument = self.arguments.get(index)?;
        Some(bytes::Bytes::copy_from_slice(argument.as_bytes()))
    }

    /// An argument as text.
    pub(crate) fn text(&self, index: usize) -> Option<String> {
        Some(self.arguments.get(index)?.to_string_lossy().into_owned())
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Run(fn(Invocation) -> Running, Invocation),
    Help(Path),
}

/// A command line that cannot be understood: to be printed as it is.
#[derive(Debug)]
pub(crate) struct Misuse(pub(crate) String);

/// Understands a command line.
pub(crate) fn understand(
    root: &'static Command,
    arguments: &[OsString],
) -> Result<Request, Misuse> {
    let (path, rest) = Path::find(root, arguments);
    if path.is_root() {
        let unknown = path.first_argument(&rest).map(|index| rest[index].to_string_lossy());
        if let Some(word) = unknown {
            return Err(unknown_command(&path, &word));
        }
    }
    let parsed = parse(&path.flags(), &rest)
        .map_err(|error| Misuse(format!("Error: {error}\n{}\n", usage(&path))))?;
    let Some(parsed) = parsed else { return Ok(Request::Help(path)) };
    let command = path.command();
    let Some(run) = command.run else { return Ok(Request::Help(path)) };
    if !command.words.is_empty() {
        check_words(&path, &parsed.arguments)?;
    }
    let flag::Parsed { values, arguments, before_separator } = parsed;
    Ok(Request::Run(run, Invocation { path, values, arguments, before_separator }))
}

fn unknown_command(path: &Path, word: &str) -> Misuse {
    let root = path.command();
    let mut text = format!("Error: unknown command \"{word}\" for \"{}\"\n", root.name());
    let names = root.children.iter().map(Command::name);
    let similar = suggest::similar(word, names);
    if !similar.is_empty() {
        text.push_str("\nDid you mean this?\n");
        for name in similar {
            push(&mut text, format_args!("\t{name}\n"));
        }
        text.push('\n');
    }
    push(&mut text, format_args!("Run '{} --help' for usage.\n", root.name()));
    Misuse(text)
}

fn check_words(path: &Path, arguments: &[OsString]) -> Result<(), Misuse> {
    let wrong = match arguments {
        [word] if path.command().words.iter().any(|allowed| word == allowed) => return Ok(()),
        [word] => {
            format!("invalid argument \"{}\" for \"{}\"", word.to_string_lossy(), path.text())
        }
        _ => format!("accepts 1 arg(s), received {}", arguments.len()),
    };
    Err(Misuse(format!("Error: {wrong}\n{}\n", usage(path))))
}
