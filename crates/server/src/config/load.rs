//! From the sources to a [`Config`], in etcd's order: what is wrong first is what is reported.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::duration::GoDuration;
use super::exit::Exit;
use super::settings::Settings;
use super::{Config, announce, build, command_line, environment, file, help, unbuilt, validate};
use crate::logging::{Level, Notice};

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// A valid configuration, and what is to be logged about how it came to be.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Lines for the log, in order; log them with [`crate::logging::Logger::notices`].
    pub notices: Vec<Notice>,
}

/// Loads the configuration; `arguments` begin with the program's name.
///
/// An [`Exit`] is not only an error: `--help` and `--version` end here, too.
pub fn load(arguments: &[String], environment: &Environment) -> Result<Loaded, Exit> {
    let mut notices = Vec::new();
    match gather(arguments, environment, default_host, &mut notices) {
        Ok(config) => Ok(Loaded { config, notices }),
        Err(exit) => Err(exit.after(notices)),
    }
}

/// [`load`], with the one question to the machine as an argument.
pub(super) fn gather(
    arguments: &[String],
    environment: &Environment,
    default_host: fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Result<Config, Exit> {
    check_architecture(environment, notices)?;
    let given = arguments.get(1..).unwrap_or_default();
    let line = command_line::parse(given).map_err(|stop| match stop {
        command_line::Stop::Help => Exit::help(),
        command_line::Stop::Syntax(message) => Exit::syntax(&message),
    })?;
    let running = Notice::new(Level::Info, "Running: ").with("args", arguments.to_vec());
    if let Some(positional) = line.positional {
        notices.push(running);
        return Err(Exit::invalid(format!("{positional:?} is not a valid flag")));
    }
    let mut settings = line.settings;
    if settings.bool("version") {
        return Err(Exit::version());
    }
    let from_flag = settings.text("config-file");
    let path = match environment.get("ETCD_CONFIG_FILE") {
        Some(variable) if from_flag.is_empty() => variable.clone(),
        _ => from_flag,
    };
    let from_command_line = path.is_empty();
    let sourced = if from_command_line {
        environment::apply(&mut settings, environment, notices)
            .map(|()| raise_timeouts(&mut settings, notices))
    } else {
        read_file(&mut settings, &path)
    };
    let checked = sourced.and_then(|()| validate::check(&settings, from_command_line, notices));
    if checked.is_ok() && !from_command_line {
        notices.push(
            Notice::new(
                Level::Info,
                "loaded server configuration, other configuration command line flags and environment \
                 variables will be ignored if provided",
            )
            .with("path", path),
        );
    }
    if checked.as_ref().err().is_none_or(Exit::is_refusal) {
        notices.push(running);
    }
    checked?;
    announce::warn_deprecated(&settings, notices);
    let config = build::config(&settings, from_command_line, default_host, notices)?;
    validate::check_start(&config, notices).map_err(Exit::start_failed)?;
    unbuilt::check(&config).map_err(Exit::invalid)?;
    announce::warn_unusual(&config, notices);
    Ok(config)
}

/// Reads the file; of the command line only what a file cannot say stays.
fn read_file(settings: &mut Settings, path: &str) -> Result<(), Exit> {
    let mut from_file = file::read(Path::new(path))?;
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        if settings.is_given(name) {
            from_file.put(name, super::flag::Value::Duration(settings.duration(name)));
        }
    }
    *settings = from_file;
    Ok(())
}

/// Peer connections need time: shorter timeouts are raised.
fn raise_timeouts(settings: &mut Settings, notices: &mut Vec<Notice>) {
    let least = GoDuration::from_nanos(5_000_000_000);
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        if settings.duration(name) < least {
            settings.put(name, super::flag::Value::Duration(least));
            let text = format!("{name} increased to minimum value: {least}");
            notices.push(Notice::new(Level::Info, text));
        }
    }
}

/// Runs on untested processors only when asked to, as etcd does.
fn check_architecture(environment: &Environment, notices: &mut Vec<Notice>) -> Result<(), Exit> {
    let architecture = help::architecture(std::env::consts::ARCH);
    if matches!(architecture, "amd64" | "arm64" | "ppc64le" | "s390x") {
        return Ok(());
    }
    if environment.get("ETCD_UNSUPPORTED_ARCH").is_some_and(|allowed| allowed == architecture) {
        notices.push(
            Notice::new(
                Level::Info,
                "running etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is set",
            )
            .with("arch", architecture),
        );
        return Ok(());
    }
    Err(Exit::fatal(
        Notice::new(
            Level::Error,
            "Refusing to run etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not set",
        )
        .with("arch", architecture),
    ))
}

/// The address of the interface that packets to the world leave by; `None` without a route.
///
/// Connecting a datagram socket sends nothing: the kernel only looks the route up.
fn default_host() -> Option<IpAddr> {
    let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    routes.into_iter().find_map(|(local, remote)| {
        let socket = std::net::UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified() && !address.is_loopback()).then_some(address)
    })
}
