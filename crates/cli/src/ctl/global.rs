//! Options of every command, and the environment that may set them.

use std::path::PathBuf;
use std::time::Duration;

use crate::command::{Flag, Invocation, Kind, Values};
use crate::exit::{BAD_FEATURE, ERROR, Failure};
use crate::printer::{Format, Printer};

use super::{complain, log, prompt};

const ENDPOINTS: Flag = Flag::with("endpoints", Kind::Strings, "127.0.0.1:2379", "gRPC endpoints");
const DEBUG: Flag = Flag::switch("debug", "enable client-side debug logging");
const WRITE_OUT: Flag = Flag::with(
    "write-out",
    Kind::String,
    "simple",
    "set the output format (fields, json, protobuf, simple, table)",
)
.short('w');
const HEX: Flag = Flag::switch("hex", "print byte strings as hex encoded strings");
const DIAL_TIMEOUT: Flag =
    Flag::with("dial-timeout", Kind::Duration, "2s", "dial timeout for client connections");
pub(super) const COMMAND_TIMEOUT: Flag = Flag::with(
    "command-timeout",
    Kind::Duration,
    "5s",
    "timeout for short running command (excluding dial timeout)",
);
const KEEPALIVE_TIME: Flag =
    Flag::with("keepalive-time", Kind::Duration, "2s", "keepalive time for client connections");
const KEEPALIVE_TIMEOUT: Flag = Flag::with(
    "keepalive-timeout",
    Kind::Duration,
    "6s",
    "keepalive timeout for client connections",
);
const MAX_REQUEST_BYTES: Flag = Flag::with(
    "max-request-bytes",
    Kind::Int,
    "0",
    "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)",
);
const MAX_RECV_BYTES: Flag = Flag::with(
    "max-recv-bytes",
    Kind::Int,
    "0",
    "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
);
const INSECURE_TRANSPORT: Flag = Flag::with(
    "insecure-transport",
    Kind::Bool,
    "true",
    "disable transport security for client connections",
);
const INSECURE_DISCOVERY: Flag = Flag::with(
    "insecure-discovery",
    Kind::Bool,
    "true",
    "accept insecure SRV records describing cluster endpoints",
);
const INSECURE_SKIP_TLS_VERIFY: Flag = Flag::switch(
    "insecure-skip-tls-verify",
    "skip server certificate verification (CAUTION: this option should be enabled only for testing \
     purposes)",
);
const CERT: Flag =
    Flag::with("cert", Kind::String, "", "identify secure client using this TLS certificate file");
const KEY: Flag =
    Flag::with("key", Kind::String, "", "identify secure client using this TLS key file");
const CACERT: Flag = Flag::with(
    "cacert",
    Kind::String,
    "",
    "verify certificates of TLS-enabled secure servers using this CA bundle",
);
const AUTH_JWT_TOKEN: Flag = Flag::with(
    "auth-jwt-token",
    Kind::String,
    "",
    "JWT token used for authentication (if this option is used, --user and --password should not \
     be set)",
);
const USER: Flag = Flag::with(
    "user",
    Kind::String,
    "",
    "username[:password] for authentication (prompt if password is not supplied)",
);
const PASSWORD: Flag = Flag::with(
    "password",
    Kind::String,
    "",
    "password for authentication (if this option is used, --user option shouldn't include password)",
);
const DISCOVERY_SRV: Flag = Flag::with(
    "discovery-srv",
    Kind::String,
    "",
    "domain name to query for SRV records describing cluster endpoints",
)
.short('d');
const DISCOVERY_SRV_NAME: Flag = Flag::with(
    "discovery-srv-name",
    Kind::String,
    "",
    "service name to query when using DNS discovery",
);

/// All of them, sorted by name.
pub(super) const FLAGS: &[Flag] = &[
    AUTH_JWT_TOKEN,
    CACERT,
    CERT,
    COMMAND_TIMEOUT,
    DEBUG,
    DIAL_TIMEOUT,
    DISCOVERY_SRV,
    DISCOVERY_SRV_NAME,
    ENDPOINTS,
    HEX,
    INSECURE_DISCOVERY,
    INSECURE_SKIP_TLS_VERIFY,
    INSECURE_TRANSPORT,
    KEEPALIVE_TIME,
    KEEPALIVE_TIMEOUT,
    KEY,
    MAX_RECV_BYTES,
    MAX_REQUEST_BYTES,
    PASSWORD,
    USER,
    WRITE_OUT,
];

const PREFIX: &str = "ETCDCTL_";
/// Variables that only `watch` knows, and that are no options.
const WATCH_VARIABLES: &[&str] = &["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// What options and environment say, checked.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) client: client::Config,
    pub(super) printer: Printer,
    pub(super) command_timeout: Duration,
    /// Whether the user gave a timeout.
    pub(super) is_timeout_given: bool,
}

impl Settings {
    /// Joins the options of `invocation` with the environment; may ask for a password.
    pub(super) fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let values = with_environment(invocation)?;
        log::start(values.bool(&DEBUG));
        if values.bool(&DEBUG) {
            show_all(invocation, &values)?;
        }
        let is_timeout_given = values.is_set(COMMAND_TIMEOUT.name);
        Ok(Self {
            client: client_config(&values)?,
            printer: printer(&values)?,
            command_timeout: values.duration(&COMMAND_TIMEOUT),
            is_timeout_given,
        })
    }
}

/// The options as given, and those of the environment where none is given.
fn with_environment(invocation: &Invocation) -> Result<Values, Failure> {
    let mut values = invocation.values.clone();
    let flags = invocation.path.inherited_flags();
    let is_watch = invocation.path.command().name() == "watch";
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if !name.starts_with(PREFIX) || is_watch && WATCH_VARIABLES.contains(&&*name) {
            continue;
        }
        let flag = flags.iter().find(|flag| variable(flag) == *name);
        match flag {
            Some(flag) if invocation.values.is_set(flag.name) => {
                log::fatal(
                    "conflicting environment variable is shadowed by corresponding command-line \
                     flag (either unset environment variable or disable flag))",
                    &[("environment-variable", name.into_owned())],
                );
                return Err(Failure::silent(ERROR));
            }
            Some(flag) if !value.is_empty() => match flag.check(&value) {
                Ok(()) => values.set(flag, &value),
                Err(error) => log::warn(
                    "ignored environment variable with an invalid value",
                    &[("environment-variable", format!("{name}={value}")), ("error", error)],
                ),
            },
            _ => log::warn(
                "unrecognized environment variable",
                &[("environment-variable", format!("{name}={value}"))],
            ),
        }
    }
    Ok(values)
}

fn variable(flag: &Flag) -> String {
    format!("{PREFIX}{}", flag.name.to_uppercase().replace('-', "_"))
}

fn show_all(invocation: &Invocation, values: &Values) -> Result<(), Failure> {
    let mut flags = invocation.path.inherited_flags();
    flags.sort_by_key(|flag| flag.name);
    for flag in flags {
        let value = values.text(flag);
        let shown =
            if flag.kind == Kind::Strings { format!("[{value}]") } else { value.to_owned() };
        complain(&format!("{}={shown}\n", variable(flag)))?;
    }
    Ok(())
}

fn client_config(values: &Values) -> Result<client::Config, Failure> {
    let mut config = client::Config::new(endpoints(values)?);
    config.dial_timeout = values.duration(&DIAL_TIMEOUT);
    config.keepalive_time = values.duration(&KEEPALIVE_TIME);
    config.keepalive_timeout = values.duration(&KEEPALIVE_TIMEOUT);
    if let Ok(limit @ 1..) = usize::try_from(values.int(&MAX_REQUEST_BYTES)) {
        config.request_bytes_max = limit;
    }
    if let Ok(limit @ 1..) = usize::try_from(values.int(&MAX_RECV_BYTES)) {
        config.response_bytes_max = limit;
    }
    config.tls = tls(values)?;
    config.credentials = credentials(values)?;
    Ok(config)
}

fn endpoints(values: &Values) -> Result<Vec<String>, Failure> {
    if !values.text(&DISCOVERY_SRV).is_empty() {
        return Err(Failure::new(ERROR, "--discovery-srv is not supported by this build"));
    }
    let list = values.text(&ENDPOINTS);
    if list.is_empty() {
        return Ok(Vec::new());
    }
    Ok(list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect())
}

fn tls(values: &Values) -> Result<Option<client::Tls>, Failure> {
    let path = |flag: &'static Flag| match values.text(flag) {
        "" if values.is_set(flag.name) => {
            Err(Failure::bad_arguments(format!("empty string is passed to --{} option", flag.name)))
        }
        "" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    };
    let tls = client::Tls {
        cert: path(&CERT)?,
        key: path(&KEY)?,
        cacert: path(&CACERT)?,
        server_name: None,
        skip_verify: values.bool(&INSECURE_SKIP_TLS_VERIFY),
    };
    let is_wanted = tls.cert.is_some()
        || tls.key.is_some()
        || tls.cacert.is_some()
        || tls.skip_verify
        || !values.bool(&INSECURE_TRANSPORT);
    Ok(is_wanted.then_some(tls))
}

fn credentials(values: &Values) -> Result<Option<client::Credentials>, Failure> {
    let (user, password) = (values.text(&USER), values.text(&PASSWORD));
    let token = values.text(&AUTH_JWT_TOKEN);
    if !token.is_empty() {
        return Ok(Some(client::Credentials::Token(token.to_owned())));
    }
    if user.is_empty() {
        return Ok(None);
    }
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => (user, prompt::password("Password: ")?),
    };
    Ok(Some(client::Credentials::Password { user: user.to_owned(), password }))
}

fn printer(values: &Values) -> Result<Printer, Failure> {
    let format = Format::named(values.text(&WRITE_OUT))
        .ok_or_else(|| Failure::new(BAD_FEATURE, "unsupported output format"))?;
    Ok(Printer { format, is_hex: values.bool(&HEX), values_only: false })
}
