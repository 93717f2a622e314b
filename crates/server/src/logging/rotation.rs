//! A log file that is moved away when it is full: `etcd.log` becomes
//! `etcd-2026-01-02T15-04-05.000.log`.
//!
//! Old files are deleted by number and age, and compressed, by a thread of their own: compressing a
//! large file takes seconds, for which lines would otherwise wait.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::options::Rotation;

const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// The file; opened by the first write.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    rotation: Rotation,
    open: Option<(File, u64)>,
    keeper: Option<std::thread::JoinHandle<()>>,
}

impl RotatedFile {
    pub(super) fn new(path: PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, open: None, keeper: None }
    }

    /// Appends `bytes`; before that, moves a file away that they would overfill.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        if size > 0 && size.saturating_add(length) > self.rotation.file_bytes_max {
            fs::rename(&self.path, self.backup_path(Timestamp::now()))?;
            (file, size) = self.reopen()?;
            self.tidy()?;
        }
        let written = file.write_all(bytes);
        self.open = Some((file, size.saturating_add(length)));
        written
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        if let Some(directory) = self.path.parent().filter(|path| !path.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    fn backup_path(&self, now: Timestamp) -> PathBuf {
        let zone = if self.rotation.local_time { TimeZone::system() } else { TimeZone::UTC };
        let time = now.to_zoned(zone).strftime(TIME_FORMAT).to_string();
        let (stem, extension) = split_name(&self.path);
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    /// Deletes and compresses old files, unless the last time is still at it: the next rotation
    /// will do it then.
    fn tidy(&mut self) -> io::Result<()> {
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            return Ok(());
        }
        let (path, rotation) = (self.path.clone(), self.rotation);
        let keeper = std::thread::Builder::new().name("log-keeper".to_owned());
        // A file that cannot be deleted or compressed now is met again at the next rotation.
        self.keeper = Some(keeper.spawn(move || {
            let _again = tidy_backups(&path, rotation, Timestamp::now());
        })?);
        Ok(())
    }
}

/// Splits `etcd.log` into `etcd` and `.log`.
fn split_name(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

fn tidy_backups(path: &Path, rotation: Rotation, now: Timestamp) -> io::Result<()> {
    let zone = if rotation.local_time { TimeZone::system() } else { TimeZone::UTC };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let (stem, extension) = split_name(path);
    let mut backups = Vec::new();
    for entry in fs::read_dir(directory)? {
        let backup = entry?.path();
        let name = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let time = name
            .strip_prefix(&format!("{stem}-"))
            .map(|rest| rest.strip_suffix(".gz").unwrap_or(rest))
            .and_then(|rest| rest.strip_suffix(extension.as_str()))
            .and_then(|time| DateTime::strptime(TIME_FORMAT, time).ok())
            .and_then(|time| time.to_zoned(zone.clone()).ok());
        if let Some(time) = time {
            backups.push((time.timestamp(), backup));
        }
    }
    backups.sort_by(|one, other| other.cmp(one));
    for (at, (time, backup)) in backups.into_iter().enumerate() {
        let too_many = rotation.backups_max.is_some_and(|max| at >= max);
        let age = u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0);
        let too_old = rotation.age_max.is_some_and(|max| age > max.as_secs());
        if too_many || too_old {
            fs::remove_file(&backup)?;
        } else if rotation.compress && backup.extension().is_none_or(|text| text != "gz") {
            compress(&backup)?;
        }
    }
    Ok(())
}

/// Replaces a file by its compressed form; what is half written after a crash is written anew.
fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = PathBuf::from(name);
    let output =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&target)?;
    let mut encoder = GzEncoder::new(output, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn rotation(backups_max: Option<usize>, compress: bool) -> Rotation {
        Rotation { file_bytes_max: 10, age_max: None, backups_max, local_time: false, compress }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_moved_away_and_compressed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/etcd.log");
        let mut file = RotatedFile::new(path.clone(), rotation(None, true));
        file.write(b"12345678\n").unwrap();
        file.write(b"abc\n").unwrap();
        file.keeper.take().unwrap().join().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc\n");
        let names = names(path.parent().unwrap());
        assert_eq!(names.len(), 2, "{names:?}");
        let backup = names.iter().find(|name| name.ends_with(".log.gz")).unwrap();
        let mut text = String::new();
        let compressed = File::open(path.parent().unwrap().join(backup)).unwrap();
        flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345678\n");
    }

    #[test]
    fn only_so_many_and_so_young_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etcd.log");
        for name in [
            "etcd-2026-01-01T00-00-00.000.log",
            "etcd-2026-01-02T00-00-00.000.log.gz",
            "etcd-2026-01-03T00-00-00.000.log",
            "etcd-other.log",
        ] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        let now: Timestamp = "2026-01-03T01:00:00Z".parse().unwrap();
        tidy_backups(&path, rotation(Some(2), false), now).unwrap();
        assert_eq!(
            names(directory.path()),
            [
                "etcd-2026-01-02T00-00-00.000.log.gz",
                "etcd-2026-01-03T00-00-00.000.log",
                "etcd-other.log"
            ]
        );
        let age_max = Some(std::time::Duration::from_hours(2));
        tidy_backups(&path, Rotation { age_max, ..rotation(None, false) }, now).unwrap();
        assert_eq!(names(directory.path()), ["etcd-2026-01-03T00-00-00.000.log", "etcd-other.log"]);
    }
}
