//! The project's own tools: `cargo xtask <subcommand>`. One file per subcommand.

mod ci;
mod cluster;
mod codegen;
mod diff;
mod faults;
mod grpc;
mod harness;
mod migrate;
mod mixed;
mod perf;
mod random;
mod tidy;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <subcommand>

  ci [--skip-tests]   everything a change has to pass
  cluster ...         start a cluster of several members on this machine
  codegen [--check]   generate crates/proto/src/generated from its definitions; only compare with --check
  diff ...            compare our binary with the real etcd, request by request
  faults ...          judge a cluster whose network and processes fail
  migrate ...         turn a cluster of etcds into ours and back while clients write
  mixed ...           judge a cluster of ours and real etcds under load and faults
  perf ...            measure our binary beside the real etcd
  perf-cluster ...    measure three members of ours beside three of etcd
  perf-beside ...     measure gets beside heavy work
  tidy                check the house rules that no compiler knows
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["ci"] => ci::run(false),
        ["ci", "--skip-tests"] => ci::run(true),
        ["cluster", arguments @ ..] => cluster::run(arguments),
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["diff", arguments @ ..] => diff::run(arguments),
        ["faults", arguments @ ..] => faults::run(arguments),
        ["migrate", arguments @ ..] => migrate::run(arguments),
        ["mixed", arguments @ ..] => mixed::run(arguments),
        ["perf", arguments @ ..] => perf::run(arguments),
        ["perf-cluster", arguments @ ..] => perf::cluster::run(arguments),
        ["perf-beside", arguments @ ..] => perf::beside::run(arguments),
        ["tidy"] => tidy::run(),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            workspace::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
