//! Lines as tools read them, and what happens when nobody does.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

fn options(format: Format, level: Level, path: &Path) -> Options {
    Options { level, format, outputs: vec![Output::File(path.to_owned())] }
}

/// Logs into a file and gives its lines.
fn lines_of(format: Format, level: Level, log: impl FnOnce(&Logger)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let logger = Logger::start(&options(format, level, &path)).unwrap();
    tracing::subscriber::with_default(logger.subscriber(), || log(&logger));
    logger.flush();
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn events_become_lines_of_json() {
    let urls = ["http://a:1", "http://b:1"];
    let lines = lines_of(Format::Json, Level::Info, |_logger| {
        let line = line!() + 1;
        tracing::warn!(
            local_member_id = %"8e9e",
            error = &std::io::Error::other("bad \"disk\"\n") as &dyn std::error::Error,
            took = %crate::config::GoDuration::from(Duration::from_micros(1500)),
            count = 3_u64,
            below = -1,
            ok = true,
            urls = ?List(&urls),
            "dotted.name" = "x",
            "failed {}",
            line
        );
        tracing::debug!("not heard");
        tracing::error!(target: FATAL, "the end");
        tracing::info!(target: RAFT, "became leader");
        tracing::info!(target: "h2::codec", "not heard");
        tracing::warn!(target: "h2::codec", "heard");
    });
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed.len(), 4, "{lines:?}");
    let first = parsed[0].as_object().unwrap();
    let keys: Vec<_> = first.keys().map(String::as_str).collect();
    assert_eq!(keys[..4], ["level", "ts", "caller", "msg"]);
    let number = first["msg"].as_str().unwrap().strip_prefix("failed ").unwrap();
    assert_eq!(first["caller"], json!(format!("logging/tests.rs:{number}")));
    let fields: Vec<_> = first.iter().skip(4).map(|(key, value)| (key.as_str(), value)).collect();
    assert_eq!(
        fields,
        [
            ("local-member-id", &json!("8e9e")),
            ("error", &json!("bad \"disk\"\n")),
            ("took", &json!("1.5ms")),
            ("count", &json!(3)),
            ("below", &json!(-1)),
            ("ok", &json!(true)),
            ("urls", &json!(urls)),
            ("dotted.name", &json!("x")),
        ]
    );
    let levels: Vec<_> = parsed.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["warn", "fatal", "info", "warn"]);
    assert_eq!(parsed[2]["logger"], "raft");
}

#[test]
fn times_have_microseconds_and_a_zone() {
    let lines = lines_of(Format::Json, Level::Info, |logger| {
        logger.notice(&Notice::new(Level::Info, "now"));
    });
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let time = line["ts"].as_str().unwrap();
    let (date, zone) = time.split_at(26);
    assert_eq!(date.chars().filter(|c| c.is_ascii_digit()).count(), 20, "{time}");
    assert_eq!((date.as_bytes()[10], date.as_bytes()[19]), (b'T', b'.'), "{time}");
    assert!(zone == "Z" || (zone.len() == 5 && zone.starts_with(['+', '-'])), "{time}");
}

#[test]
fn the_console_has_columns() {
    let lines = lines_of(Format::Console, Level::Debug, |logger| {
        logger.notice(
            &Notice::new(Level::Debug, "two\nlines").with("a-b", json!(["x", "y"])).with("n", 1),
        );
        tracing::info!(target: RAFT, "no fields");
    });
    let columns: Vec<Vec<_>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    assert_eq!(columns[0][1], "debug");
    assert!(columns[0][2].starts_with("logging/tests.rs:"));
    assert_eq!(columns[0][3..], ["two\\nlines", "{\"a-b\": [\"x\", \"y\"], \"n\": 1}"]);
    assert_eq!((columns[1][2], columns[1].len()), ("raft", 5));
}

#[test]
fn texts_from_outside_cannot_break_a_line() {
    let lines = lines_of(Format::Json, Level::Info, |_logger| {
        tracing::info!(key = %"\u{1}{\"x\":", "a");
        tracing::info!(key = %"\",\"level\":\"fatal", "b\nc");
        tracing::info!(key = %"\u{e4}".repeat(20_000), "d");
    });
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed[0]["key"], "\u{1}{\"x\":");
    assert_eq!((&parsed[1]["level"], &parsed[1]["msg"]), (&json!("info"), &json!("b\nc")));
    assert!(lines[2].len() < 17 << 10, "a field is cut");
}

#[test]
fn repeated_messages_are_sampled() {
    // Within one second; where the clock ticks in between, twice the first hundred may come.
    let lines = lines_of(Format::Json, Level::Info, |_logger| {
        for _ in 0..1000 {
            tracing::info!("again");
        }
    });
    assert!((109..=218).contains(&lines.len()), "{}", lines.len());
}

#[test]
fn nobody_waits_for_an_output_that_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    // Open for reading too, so that opening does not wait; but nothing is read.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let logger = Logger::start(&options(Format::Json, Level::Info, &path)).unwrap();
    let start = Instant::now();
    let text = "x".repeat(1000);
    for number in 0..20_000 {
        logger.notice(&Notice::new(Level::Info, format!("{number} {text}")));
    }
    assert!(start.elapsed() < Duration::from_mins(1), "it did not wait");
    drop(reader);
}

#[test]
fn levels_have_names_in_any_case() {
    for (text, level) in [
        ("", Some(Level::Info)),
        ("WARN", Some(Level::Warn)),
        ("Fatal", Some(Level::Fatal)),
        ("dpanic", Some(Level::DPanic)),
        ("trace", None),
    ] {
        assert_eq!(Level::parse(text), level, "{text}");
    }
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let options = options(Format::Json, Level::Info, Path::new("/nonexistent/x"));
    let error = Logger::start(&options).expect_err("no such directory");
    // etcd's text.
    assert_eq!(
        error.to_string(),
        "open sink \"/nonexistent/x\": open /nonexistent/x: no such file or directory"
    );
}
