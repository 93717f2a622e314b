//! What the simulated disk keeps and loses.

use proto::etcdserverpb::Metadata;
use proto::raftpb;
use storage::Fault;
use storage::datadir::DataDir;
use storage::wal::{Start, Wal};

use super::*;

const ALL: Loss = Loss { lost_percent: 100, torn_percent: 0, seed: 1 };

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn write(disk: &dyn Disk, name: &str, data: &[u8]) -> Box<dyn File> {
    let file = disk.open(path(name), OpenMode::Create).unwrap();
    file.write_all_at(0, data).unwrap();
    file
}

fn read(disk: &dyn Disk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(path(name), OpenMode::Read).ok()?;
    let mut out = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(0, &mut out).unwrap();
    Some(out)
}

#[test]
fn a_crash_keeps_what_was_synced_and_a_kill_keeps_all() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    let synced = write(&*mount, "/a", b"one");
    synced.sync_data().unwrap();
    mount.sync_dir(path("/")).unwrap();
    synced.write_all_at(0, b"two").unwrap();
    write(&*mount, "/b", b"new").sync_data().unwrap();
    disk.kill();
    assert!(synced.write_all_at(0, b"x").is_err(), "the process is gone");
    let mount = disk.mount();
    assert_eq!(read(&*mount, "/a").unwrap(), b"two");
    assert_eq!(read(&*mount, "/b").unwrap(), b"new");
    disk.crash(ALL);
    let mount = disk.mount();
    assert_eq!(read(&*mount, "/a").unwrap(), b"one");
    assert_eq!(read(&*mount, "/b"), None, "its name was not synced");
}

#[test]
fn a_torn_write_leaves_whole_sectors() {
    let data: Vec<u8> = (0..4096_u32).map(|at| u8::try_from(at / 512 + 1).unwrap()).collect();
    let mut torn = 0;
    for seed in 0..20 {
        let disk = SimDisk::default();
        let mount = disk.mount();
        let file = write(&*mount, "/a", &[0; 4096]);
        file.sync_data().unwrap();
        mount.sync_dir(path("/")).unwrap();
        file.write_all_at(0, &data).unwrap();
        disk.crash(Loss { lost_percent: 0, torn_percent: 100, seed });
        let left = read(&*disk.mount(), "/a").unwrap();
        for (old, new) in left.chunks(512).zip(data.chunks(512)) {
            assert!(old == new || old == [0; 512]);
        }
        torn += u32::from(left != data && left != [0; 4096]);
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn names_are_lost_with_their_directory_and_renames_are_whole() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    mount.create_dir_all(path("/d")).unwrap();
    write(&*mount, "/d/f", b"x").sync_data().unwrap();
    mount.sync_dir(path("/d")).unwrap();
    disk.crash(ALL);
    assert!(!disk.mount().exists(path("/d/f")).unwrap());

    for seed in 0..10 {
        let disk = SimDisk::default();
        let mount = disk.mount();
        write(&*mount, "/old", b"x").sync_data().unwrap();
        mount.sync_dir(path("/")).unwrap();
        mount.rename(path("/old"), path("/new")).unwrap();
        disk.crash(Loss { lost_percent: 50, torn_percent: 0, seed });
        assert_eq!(disk.mount().list(path("/")).unwrap().len(), 1);
    }
}

#[test]
fn armed_faults_strike_once_and_at_their_moment() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    let file = write(&*mount, "/a", b"x");
    disk.arm(DiskFault::CutAtSync(1));
    file.sync_data().unwrap();
    assert!(file.sync_data().is_err() && disk.is_cut());
    disk.crash(ALL);
    let mount = disk.mount();
    let file = write(&*mount, "/a", b"x");
    disk.arm(DiskFault::FailWrite(0));
    assert!(file.write_all_at(0, b"y").is_err());
    file.write_all_at(0, b"z").unwrap();
    disk.arm(DiskFault::FailSync(0));
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_err(), "what failed once is not made good");
    assert_eq!(disk.faults_struck(), 3);
}

#[test]
fn a_forgotten_sync_leaves_what_can_be_read_but_is_not_durable() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    let file = write(&*mount, "/a", b"one");
    file.sync_data().unwrap();
    mount.sync_dir(path("/")).unwrap();
    file.write_all_at(0, b"two").unwrap();
    disk.arm(DiskFault::ForgetSync(0));
    assert!(file.sync_data().is_err());
    disk.kill();
    let mount = disk.mount();
    assert_eq!(read(&*mount, "/a").unwrap(), b"two");
    mount.open(path("/a"), OpenMode::ReadWrite).unwrap().sync_data().unwrap();
    disk.crash(ALL);
    assert_eq!(read(&*disk.mount(), "/a").unwrap(), b"one");
}

/// Appends one entry and syncs.
fn append(wal: &mut Wal, index: u64) -> Result<(), Fault> {
    let data = b"data".as_slice().into();
    wal.append(&[raftpb::Entry { r#type: 0, term: 1, index, data }], None)?;
    wal.sync()
}

#[test]
fn a_log_that_is_recovered_after_a_failed_sync_is_durable() {
    let disk = SimDisk::default();
    let dir = path("/wal");
    let mut wal = Wal::create(disk.mount(), dir, Metadata::default()).unwrap();
    append(&mut wal, 1).unwrap();
    disk.arm(DiskFault::ForgetSync(0));
    append(&mut wal, 2).unwrap_err();
    disk.kill();
    let (mut wal, recovered) = Wal::recover(disk.mount(), dir, Start::default()).unwrap();
    assert_eq!(recovered.entries.len(), 2, "both can be read");
    append(&mut wal, 3).unwrap();
    disk.crash(ALL);
    let (_, recovered) = Wal::recover(disk.mount(), dir, Start::default()).unwrap();
    assert_eq!(recovered.entries.len(), 3, "what was read back is not lost any more");
}

#[test]
fn directories_that_a_start_creates_are_durable_with_their_parents() {
    let disk = SimDisk::default();
    DataDir::open(&*disk.mount(), path("/srv/etcd/data"), None).unwrap();
    drop(Wal::create(disk.mount(), path("/log/etcd/wal"), Metadata::default()).unwrap());
    disk.crash(ALL);
    let mount = disk.mount();
    assert!(mount.exists(path("/srv/etcd/data/member/snap")).unwrap());
    assert_eq!(mount.list(path("/log/etcd/wal")).unwrap().len(), 1);
}

#[test]
fn a_full_disk_takes_only_what_has_space_already() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    let file = write(&*mount, "/a", b"x");
    let reserved = mount.open(path("/b"), OpenMode::Create).unwrap();
    reserved.allocate(8192).unwrap();
    disk.arm(DiskFault::Full(0));
    file.write_all_at(1, b"y").unwrap();
    reserved.write_all_at(5000, b"y").unwrap();
    let full = file.write_all_at(8192, b"y").unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert!(file.allocate(1 << 20).is_err());
    disk.disarm();
    file.write_all_at(8192, b"y").unwrap();
}

#[test]
fn a_lock_is_held_by_one_handle_until_it_or_its_process_ends() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    let first = write(&*mount, "/a", b"x");
    let second = mount.open(path("/a"), OpenMode::ReadWrite).unwrap();
    assert!(first.try_lock().unwrap() && first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    drop(first);
    assert!(second.try_lock().unwrap());
    disk.kill();
    let mount = disk.mount();
    assert!(mount.open(path("/a"), OpenMode::ReadWrite).unwrap().try_lock().unwrap());
}

#[test]
fn a_flipped_bit_is_one_bit_of_what_is_durable() {
    let disk = SimDisk::default();
    let mount = disk.mount();
    assert_eq!(disk.flip_bit(1), None);
    write(&*mount, "/a", b"abc").sync_data().unwrap();
    mount.sync_dir(path("/")).unwrap();
    disk.flip_bit(1).unwrap();
    let left = read(&*mount, "/a").unwrap();
    let bits: u32 = left.iter().zip(b"abc").map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(bits, 1);
}
