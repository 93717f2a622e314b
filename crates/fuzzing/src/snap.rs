//! Snapshot files: any bytes, or any content with the right checksum.
//!
//! Compared: what loads is saved and loads again, and is found by its mark.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use proto::{snappb, walpb};
use storage::mem::MemDisk;
use storage::{Disk, snap};

use crate::input::Input;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let is_raw = input.byte() == 0;
    let data = Bytes::copy_from_slice(input.rest());
    let bytes = if is_raw {
        data.to_vec()
    } else {
        snappb::Snapshot { crc: crc32c::crc32c(&data), data }.encode_to_vec()
    };
    let dir = Path::new("snap");
    let disk = MemDisk::new();
    let path = dir.join("0000000000000001-0000000000000001.snap");
    disk.insert(&path, bytes);
    let Ok(snapshot) = snap::load(&disk, &path) else {
        let found = snap::load_newest(&disk, dir, &[]).expect("damage is no fault here");
        assert!(found.is_none() && !disk.exists(&path).expect("in memory"), "it is set aside");
        return;
    };
    disk.remove_file(&path).expect("it is there");
    snap::save(&disk, dir, &snapshot).expect("a disk in memory takes all");
    let metadata = &snapshot.metadata;
    let mark = walpb::Snapshot { index: metadata.index, term: metadata.term, conf_state: None };
    let again = snap::load_newest(&disk, dir, &[mark]).expect("it was saved");
    // An empty snapshot encodes to nothing, which is what a file cut short holds.
    if snapshot.encoded_len() > 0 && crc32c::crc32c(&snapshot.encode_to_vec()) != 0 {
        assert_eq!(again, Some(snapshot));
    }
}
