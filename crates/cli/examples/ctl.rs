//! `ctl` on its own: `cargo run -p quorate-cli --example ctl -- get foo`.

fn main() -> std::process::ExitCode {
    cli::ctl::main(std::env::args_os().skip(1))
}
