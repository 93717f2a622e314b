//! What the log's flags mean, and which of their combinations are refused.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Level;

const JOURNAL: &str = "systemd/journal";
const DEFAULT: &str = "default";

/// The flags as given.
#[derive(Debug, Clone, Copy)]
pub struct RawOptions<'a> {
    /// `--logger`.
    pub logger: &'a str,
    /// `--log-level`.
    pub level: &'a str,
    /// `--log-format`.
    pub format: &'a str,
    /// `--log-outputs`.
    pub outputs: &'a [String],
    /// `--log-rotation-config-json`, where rotation is on.
    pub rotation: Option<&'a str>,
}

/// What to log, how and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The lowest level logged.
    pub level: Level,
    /// The form of lines.
    pub format: Format,
    /// Where they go; never empty.
    pub outputs: Vec<Output>,
}

/// The form of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Columns separated by tabs.
    Console,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The journal of systemd.
    Journal,
    /// A file.
    File(PathBuf),
    /// A file that is moved away when it is full.
    Rotated(PathBuf, Rotation),
}

/// When a file is full, and what becomes of the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file.
    pub file_bytes_max: u64,
    /// Age at which an old file is deleted; `None` keeps all.
    pub age_max: Option<Duration>,
    /// Old files kept; `None` keeps all.
    pub backups_max: Option<usize>,
    /// Name old files in local time, not in UTC.
    pub local_time: bool,
    /// Compress old files.
    pub compress: bool,
}

/// Options that are refused; the texts are etcd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A logger that was removed.
    #[error("--logger=capnslog is removed in v3.5")]
    Removed,
    /// A logger that never was.
    #[error("unknown logger option {text:?}")]
    Logger {
        /// What was given.
        text: String,
    },
    /// An unknown level.
    #[error("unrecognized level: {text:?}")]
    Level {
        /// What was given.
        text: String,
    },
    /// An unknown format.
    #[error("unknown log format: {text}, supported values json, console")]
    Format {
        /// What was given.
        text: String,
    },
    /// `default` beside others.
    #[error("multi logoutput for \"default\" is not supported yet")]
    DefaultNotAlone,
    /// The journal beside others.
    #[error(
        "running with systemd/journal but other '--log-outputs' values ({outputs}) are configured with \
         'default'; override 'default' value with something else"
    )]
    JournalNotAlone {
        /// What was given.
        outputs: String,
    },
    /// Rotation without a file, or with several.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationWithoutFile,
    /// Rotation options that are no JSON.
    #[error("improperly formatted log rotation config: {reason}")]
    RotationSyntax {
        /// What is wrong.
        reason: String,
    },
    /// Rotation options with values of wrong types.
    #[error("invalid log rotation config: {reason}")]
    RotationValue {
        /// What is wrong.
        reason: String,
    },
}

/// The JSON of rotation options; keys match in any case, as Go's do.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRotation {
    maxsize: i64,
    maxage: i64,
    maxbackups: i64,
    localtime: bool,
    compress: bool,
}

impl Options {
    /// Parses and checks the flags.
    pub fn parse(raw: &RawOptions<'_>) -> Result<Self, OptionsError> {
        match raw.logger {
            "zap" => {}
            "capnslog" => return Err(OptionsError::Removed),
            other => return Err(OptionsError::Logger { text: other.to_owned() }),
        }
        let alone = raw.outputs.len() < 2;
        if !alone && raw.outputs.iter().any(|output| output == DEFAULT) {
            return Err(OptionsError::DefaultNotAlone);
        }
        let rotation = raw.rotation.map(|json| rotation(raw.outputs, json)).transpose()?;
        if !alone && raw.outputs.iter().any(|output| output == JOURNAL) {
            let quoted: Vec<_> = raw.outputs.iter().map(|output| format!("{output:?}")).collect();
            return Err(OptionsError::JournalNotAlone {
                outputs: format!("[{}]", quoted.join(" ")),
            });
        }
        let level = Level::parse(raw.level)
            .ok_or_else(|| OptionsError::Level { text: raw.level.to_owned() })?;
        let format = match raw.format {
            "json" | "" => Format::Json,
            "console" => Format::Console,
            other => return Err(OptionsError::Format { text: other.to_owned() }),
        };
        Ok(Self { level, format, outputs: outputs(raw.outputs, rotation) })
    }
}

fn outputs(texts: &[String], rotation: Option<Rotation>) -> Vec<Output> {
    // Whoever names the void among others wants silence.
    if texts.iter().any(|text| text == "/dev/null") {
        return vec![Output::File(PathBuf::from("/dev/null"))];
    }
    let mut outputs: Vec<_> = texts
        .iter()
        .map(|text| match (text.as_str(), rotation) {
            (DEFAULT | "stderr", _) => Output::Stderr,
            ("stdout", _) => Output::Stdout,
            (JOURNAL, _) => Output::Journal,
            (path, Some(rotation)) => Output::Rotated(PathBuf::from(path), rotation),
            (path, None) => Output::File(PathBuf::from(path)),
        })
        .collect();
    if outputs.is_empty() {
        outputs.push(Output::Stderr);
    }
    outputs
}

fn rotation(outputs: &[String], json: &str) -> Result<Rotation, OptionsError> {
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), DEFAULT | "stderr" | "stdout"))
        .count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return Err(OptionsError::RotationWithoutFile);
    }
    let value: serde_json::Value = serde_json::from_str(json).map_err(|error| {
        let reason = if error.is_eof() {
            "unexpected end of JSON input".to_owned()
        } else {
            error.to_string()
        };
        OptionsError::RotationSyntax { reason }
    })?;
    let object = value.as_object().cloned().unwrap_or_default();
    let lower: serde_json::Map<_, _> =
        object.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
    check_types(&lower)?;
    let raw: RawRotation = serde_json::from_value(lower.into())
        .map_err(|error| OptionsError::RotationValue { reason: error.to_string() })?;
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    Ok(Rotation {
        file_bytes_max: positive(raw.maxsize).unwrap_or(100).saturating_mul(1 << 20),
        age_max: positive(raw.maxage)
            .map(|days| Duration::from_secs(days.saturating_mul(24 * 60 * 60))),
        backups_max: positive(raw.maxbackups).and_then(|count| usize::try_from(count).ok()),
        local_time: raw.localtime,
        compress: raw.compress,
    })
}

/// Names a value of a wrong type as Go's decoder does.
fn check_types(object: &serde_json::Map<String, serde_json::Value>) -> Result<(), OptionsError> {
    for (key, value) in object {
        let (go_type, right) = match key.as_str() {
            "maxsize" | "maxage" | "maxbackups" => ("int", value.is_i64()),
            "localtime" | "compress" => ("bool", value.is_boolean()),
            _ => continue,
        };
        if !right {
            let found = match value {
                serde_json::Value::Null => "null",
                serde_json::Value::Bool(_) => "bool",
                serde_json::Value::Number(_) => "number",
                serde_json::Value::String(_) => "string",
                serde_json::Value::Array(_) => "array",
                serde_json::Value::Object(_) => "object",
            };
            let reason = format!(
                "json: cannot unmarshal {found} into Go struct field logRotationConfig.Logger.{key} of type {go_type}"
            );
            return Err(OptionsError::RotationValue { reason });
        }
    }
    Ok(())
}
