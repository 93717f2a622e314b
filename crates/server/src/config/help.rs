//! The texts of `--help` and `--version`.

use std::fmt::Write as _;

use super::features::Feature;
use super::flag::{Flag, Kind};
use super::{BUILD, ETCD_VERSION, table};

const USAGE: &str = "\
Usage:

  etcd [flags]
    Start a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print this help and all flags.

  etcd --config-file <path>
    Read the configuration from a YAML or JSON file. All other flags and all environment variables are then
    ignored. Durations are integer nanoseconds in the file (600000000000 is 10m), except --heartbeat-interval and
    --election-timeout, which are milliseconds everywhere.

  Every flag can also be given as an environment variable: --some-flag is ETCD_SOME_FLAG.

";

/// How the program is called; standard error of `--help` and of syntax errors.
pub(super) fn usage() -> String {
    USAGE.to_owned()
}

/// All flags with their defaults; standard output of `--help`.
pub(super) fn flags() -> String {
    let mut text = String::new();
    for section in table::SECTIONS {
        push(&mut text, format_args!("\n{}:\n", section.title));
        for flag in section.flags {
            push(&mut text, format_args!("  --{} '{}'\n", flag.name, shown_default(flag)));
            push(&mut text, format_args!("    {}\n", flag.help));
            if flag.kind == Kind::Gates {
                push_gates(&mut text);
            }
        }
    }
    text.push_str("\nUnsafe flags may break the guarantees of consensus: use them with care.\n\n");
    text
}

/// The four lines that tools parse.
pub(super) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {BUILD}\nGo Version: {}\nGo OS/Arch: {}/{}\n",
        compiler(),
        std::env::consts::OS,
        architecture(std::env::consts::ARCH)
    )
}

/// What stands where etcd names its Go version.
pub(super) fn compiler() -> String {
    format!("not Go (rustc {})", env!("CARGO_PKG_RUST_VERSION"))
}

/// Go's name of a processor architecture.
pub(super) fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

fn shown_default(flag: &Flag) -> &'static str {
    match flag.name {
        "data-dir" => "${name}.etcd",
        _ => flag.default,
    }
}

fn push_gates(text: &mut String) {
    for gate in Feature::ALL {
        let (name, stage, default) = (gate.name(), gate.stage().name(), gate.default());
        push(text, format_args!("    {name}=true|false ({stage} - default={default})\n"));
    }
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a string does not fail");
}
