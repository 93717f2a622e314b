//! `completion`: scripts that let shells complete commands and options.

use clap_complete::Shell;

use super::{ROOT, UTILITY, print};
use crate::command::{Command, Invocation};
use crate::exit::{BAD_ARGUMENTS, Failure};

/// The command.
pub(super) const COMPLETION: Command = Command {
    usage: "completion [bash|zsh|fish|powershell]",
    short: "Generate completion script",
    long: Some(
        r#"To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # To load completions for each session, execute once:
  # Linux:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl
  # macOS:
  $ etcdctl completion bash > /usr/local/etc/bash_completion.d/etcdctl

Zsh:

  # If shell completion is not already enabled in your environment,
  # you will need to enable it.  You can execute the following once:

  $ echo "autoload -U compinit; compinit" >> ~/.zshrc

  # To load completions for each session, execute once:
  $ etcdctl completion zsh > "${fpath[1]}/_etcdctl"

  # You will need to start a new shell for this setup to take effect.

fish:

  $ etcdctl completion fish | source

  # To load completions for each session, execute once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression

  # To load completions for every new session, run:
  PS> etcdctl completion powershell > etcdctl.ps1
  # and source this file from your PowerShell profile.
"#,
    ),
    group: UTILITY,
    run: Some(|invocation| Box::pin(async move { run(&invocation) })),
    words: &["bash", "zsh", "fish", "powershell"],
    ..Command::NONE
};

fn run(invocation: &Invocation) -> Result<(), Failure> {
    let shell = match invocation.text(0).as_deref() {
        Some("bash") => Shell::Bash,
        Some("zsh") => Shell::Zsh,
        Some("fish") => Shell::Fish,
        Some("powershell") => Shell::PowerShell,
        other => {
            let text = format!("unknown shell {}", other.unwrap_or_default());
            return Err(Failure::new(BAD_ARGUMENTS, text));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut described(&ROOT), ROOT.name(), &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The table of commands as the generator of scripts wants it.
fn described(command: &'static Command) -> clap::Command {
    let option = |flag: &'static crate::command::Flag, is_global: bool| {
        let option = clap::Arg::new(flag.name).long(flag.name).help(flag.usage).global(is_global);
        let option = match flag.short {
            Some(letter) => option.short(letter),
            None => option,
        };
        let action = if flag.is_switch() { clap::ArgAction::SetTrue } else { clap::ArgAction::Set };
        option.action(action)
    };
    clap::Command::new(command.name())
        .about(command.short)
        .disable_help_subcommand(true)
        .args(command.flags.iter().map(|flag| option(flag, false)))
        .args(command.inherited.iter().map(|flag| option(flag, true)))
        .subcommands(command.children.iter().map(described))
}
