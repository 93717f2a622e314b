//! Flags, environment and configuration file, one per line: arguments begin with `-`, variables are `ETCD_…=…`, and
//! everything behind a line `%` is the file.

use std::cell::OnceCell;
use std::io::Write as _;

use server::config::{self, Environment};
use tempfile::NamedTempFile;

/// Runs the target.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (lines, file) = match text.split_once("%\n") {
        Some((lines, file)) => (lines, Some(file)),
        None => (&*text, None),
    };
    let mut arguments = vec!["etcd".to_owned()];
    let mut environment = Environment::new();
    for line in lines.lines() {
        // A configuration file elsewhere would make the answer depend on the machine.
        if line.to_ascii_lowercase().replace('_', "-").contains("config-file") {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if name.starts_with("ETCD_") => {
                environment.insert(name.to_owned(), value.to_owned());
            }
            _ => arguments.push(line.to_owned()),
        }
    }
    if let Some(content) = file {
        with_file(content, |path| {
            arguments.push(format!("--config-file={path}"));
            // A refusal is an answer.
            drop(config::load(&arguments, &environment));
        });
    } else {
        drop(config::load(&arguments, &environment));
    }
}

/// Writes `content` into this thread's file and calls `then` with its path.
fn with_file(content: &str, then: impl FnOnce(&str)) {
    thread_local! {
        static FILE: OnceCell<NamedTempFile> = const { OnceCell::new() };
    }
    FILE.with(|cell| {
        let file = cell.get_or_init(|| NamedTempFile::new().expect("a temporary directory"));
        let mut writer = file.as_file();
        writer.set_len(0).expect("our file");
        std::io::Seek::rewind(&mut writer).expect("our file");
        writer.write_all(content.as_bytes()).expect("our file");
        then(file.path().to_str().expect("temporary names are text"));
    });
}
