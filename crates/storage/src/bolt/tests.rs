//! Images read, checked and written, beside one of etcd's own.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::page::{BRANCH, FREELIST, HEADER_BYTES, Header, LEAF, Meta};
use super::writer::{Error, PAGE_BYTES};
use super::*;
use crate::backend::{self, Backend, Op, TableId, WriteBatch};
use crate::disk::{Disk, OpenMode};
use crate::fault::Fault;
use crate::mem::MemDisk;

type Pair = (Bytes, Bytes);
type Buckets = Vec<(&'static str, Vec<Pair>)>;

/// What `etcdutl snapshot status` of release 3.7.1 prints for the golden file.
const GOLDEN_HASH: u32 = 2_895_572_266;
const GOLDEN: &[u8] = include_bytes!("../../testdata/bolt/etcd-3.7.1.snapshot.db");

fn plan(page_size: u32, buckets: &Buckets) -> Layout {
    let mut planner = Planner::new(page_size).unwrap();
    for (name, pairs) in buckets {
        planner.bucket(name.as_bytes()).unwrap();
        for (key, value) in pairs {
            planner.pair(key.len(), value.len()).unwrap();
        }
    }
    planner.finish()
}

/// Writes what `layout` was planned for from `buckets`.
fn write(layout: Layout, buckets: &Buckets) -> Result<Vec<u8>, Error> {
    let source = |name: &[u8]| {
        let found = buckets.iter().find(|(bucket, _)| bucket.as_bytes() == name).unwrap();
        found.1.clone().into_iter().map(Ok)
    };
    let mut writer = Writer::new(layout, source);
    let (mut image, mut piece) = (Vec::new(), Vec::new());
    while writer.next_piece(&mut piece)? {
        image.extend_from_slice(&piece);
    }
    assert_eq!(image.len() as u64, writer.image_len());
    Ok(image)
}

fn image(page_size: u32, buckets: &Buckets) -> Vec<u8> {
    write(plan(page_size, buckets), buckets).unwrap()
}

fn open(image: &[u8]) -> Result<Bolt, Fault> {
    let disk = MemDisk::new();
    disk.insert(Path::new("db"), image.to_vec());
    Bolt::open(&disk, Path::new("db"))
}

fn pairs(bucket: &Bucket) -> Vec<Pair> {
    bucket.pairs().map(Result::unwrap).collect()
}

fn numbered(count: u64, value_len: usize) -> Vec<Pair> {
    let pair = |i: u64| (Bytes::copy_from_slice(&i.to_be_bytes()), vec![1; value_len].into());
    (0..count).map(pair).collect()
}

fn damage(image: &[u8]) -> String {
    check_image(image).unwrap_err().to_string()
}

fn assert_reads_back(image: &[u8], buckets: &Buckets) {
    let bolt = open(image).unwrap();
    assert_eq!(bolt.image_len(), image.len() as u64);
    let read: Vec<_> = bolt.buckets().map(Result::unwrap).collect();
    assert_eq!(read.len(), buckets.len());
    for ((name, bucket), (expected_name, expected)) in read.iter().zip(buckets) {
        assert_eq!(name, expected_name.as_bytes());
        assert_eq!(&pairs(bucket), expected);
    }
    let summary = bolt.check().unwrap();
    assert_eq!(summary.pairs, buckets.iter().map(|(_, pairs)| pairs.len() as u64).sum::<u64>());
    assert_eq!(
        summary.pages * u64::from(bolt.page_size()),
        image.len() as u64,
        "no page is wasted"
    );
}

#[test]
fn a_snapshot_of_etcd_reads_as_etcd_reads_it() {
    let bolt = open(GOLDEN).unwrap();
    assert_eq!(bolt.image_len() + 32, GOLDEN.len() as u64);
    let mut hash = 0;
    let mut names = Vec::new();
    for bucket in bolt.buckets() {
        let (name, bucket) = bucket.unwrap();
        hash = crc32c::crc32c_append(hash, &name);
        for (key, value) in pairs(&bucket) {
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
            assert_eq!(bucket.get(&key).unwrap(), Some(value));
        }
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    assert_eq!(hash, GOLDEN_HASH);
    let expected = "alarm auth authRoles authUsers cluster key lease members members_removed meta";
    assert_eq!(names.join(" "), expected);
    let meta = bolt.bucket(b"meta").unwrap().unwrap();
    assert_eq!(meta.get(b"storageVersion").unwrap().unwrap(), "3.7.0");
    assert_eq!(meta.get(b"storageVersioo").unwrap(), None);
    assert!(bolt.bucket(b"metb").unwrap().is_none());
    assert_eq!(bolt.check().unwrap().buckets, 10);
}

#[test]
fn images_of_any_size_read_back() {
    for page_size in [4096, 16_384, 65_536] {
        for count in [0, 1, 2, 3, 50, 51, 1000, 30_000] {
            let buckets = vec![
                ("alarm", vec![]),
                ("key", numbered(count, 100)),
                ("lease", numbered(count.min(5), 3)),
            ];
            assert_reads_back(&image(page_size, &buckets), &buckets);
        }
    }
}

#[test]
fn trees_have_many_levels_and_no_lonely_children() {
    let key = |i: u64| Bytes::from([&i.to_be_bytes()[..], &[7; 1200]].concat());
    for count in 1..200 {
        let pairs: Vec<_> = (0..count).map(|i| (key(i), Bytes::new())).collect();
        let buckets = vec![("key", pairs)];
        let image = image(PAGE_BYTES, &buckets);
        assert_reads_back(&image, &buckets);
        for page in image.chunks_exact(4096) {
            let header = Header::decode(page).unwrap();
            assert!(header.kind != BRANCH || header.count >= 2, "{header:?} of {count}");
        }
    }
}

#[test]
fn large_values_cover_pages_of_their_own() {
    let sizes = [0, 4000, 4096, 70_000, 1, 300_000, 5];
    let pairs =
        sizes.iter().zip(0_u8..).map(|(size, i)| (vec![i + 1].into(), vec![i; *size].into()));
    let buckets = vec![("key", pairs.collect())];
    for page_size in [1024, 4096, 65_536] {
        assert_reads_back(&image(page_size, &buckets), &buckets);
    }
}

#[test]
fn a_bucket_of_up_to_a_quarter_page_is_inline() {
    // Leaf header, element, key and value together.
    for (value_len, is_inline) in [(1024 - 16 - 16 - 8, true), (1024 - 16 - 16 - 7, false)] {
        let buckets = vec![("b", numbered(1, value_len))];
        let image = image(PAGE_BYTES, &buckets);
        assert_reads_back(&image, &buckets);
        assert_eq!(image.len() / 4096, if is_inline { 3 } else { 4 });
    }
}

#[test]
fn a_source_that_changes_between_the_passes_is_noticed() {
    let planned: Buckets = vec![("a", numbered(3, 4)), ("b", numbered(500, 50))];
    let changed = |index: usize, pairs: Vec<Pair>| {
        let mut buckets = planned.clone();
        buckets[index].1 = pairs;
        write(plan(4096, &planned), &buckets).unwrap_err()
    };
    for pairs in [vec![], numbered(2, 4), numbered(3, 5), numbered(4, 4)] {
        assert!(matches!(changed(0, pairs), Error::Changed { bucket } if bucket == "a"));
    }
    for pairs in [vec![], numbered(1, 50), numbered(400, 50), numbered(500, 80), numbered(900, 50)]
    {
        assert!(matches!(changed(1, pairs), Error::Changed { bucket } if bucket == "b"));
    }
    let mut swapped = numbered(500, 50);
    swapped.swap(400, 401);
    assert!(matches!(changed(1, swapped), Error::Unordered { .. }));
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    assert!(Planner::new(5000).is_err() && Planner::new(512).is_err());
    let mut planner = Planner::new(PAGE_BYTES).unwrap();
    assert!(planner.pair(1, 1).is_err(), "no bucket yet");
    planner.bucket(b"b").unwrap();
    assert!(planner.pair(0, 1).is_err() && planner.pair(32_769, 1).is_err());
    assert!(planner.pair(1, 1 << 31).is_err());
    planner.pair(32_768, 0).unwrap();
    assert!(matches!(planner.bucket(b"b"), Err(Error::Unordered { .. })));
    assert!(planner.bucket(b"").is_err());
}

/// Rewrites both meta pages of an image.
fn with_meta(image: &[u8], change: impl Fn(&mut Meta)) -> Vec<u8> {
    let mut changed = image.to_vec();
    for page in [0, 4096] {
        let place = page + HEADER_BYTES;
        let mut meta = Meta::decode(&image[place..]).unwrap();
        change(&mut meta);
        changed[place..place + 64].copy_from_slice(&meta.encode());
    }
    changed
}

/// Adds a page with a list of free pages, `first` included, behind an image of pages of 4 KiB.
fn with_freelist(image: &[u8], count: u16, ids: &[u64]) -> Vec<u8> {
    let list = image.len() as u64 / 4096;
    let mut image = with_meta(image, |meta| {
        meta.freelist = list;
        meta.high_water = list + 1;
    });
    image.extend_from_slice(&Header { id: list, kind: FREELIST, count, overflow: 0 }.encode());
    for id in ids {
        image.extend_from_slice(&id.to_le_bytes());
    }
    image.resize(image.len().next_multiple_of(4096), 0);
    image
}

#[test]
fn a_stored_freelist_has_to_fit() {
    // Two pages that no tree reaches: the list has to name both.
    let mut spare = image(4096, &vec![("key", numbered(10, 200))]);
    let first = spare.len() as u64 / 4096;
    spare.resize(spare.len() + 2 * 4096, 0);
    let check = |count, ids: &[u64]| check_image(&with_freelist(&spare, count, ids));
    assert_eq!(check(2, &[first, first + 1]).unwrap().pages, first + 1, "the list is in use");
    assert_eq!(check(u16::MAX, &[2, first, first + 1]).unwrap().pages, first + 1);
    let fault = |count, ids: &[u64]| check(count, ids).unwrap_err().to_string();
    assert!(fault(1, &[first]).contains("neither in use nor free"));
    assert!(fault(3, &[3, first, first + 1]).contains("used twice"));
    assert!(fault(2, &[first + 1, first]).contains("out of order"));
    assert!(fault(3, &[first, first + 1, 1 << 40]).contains("no such page"));
    assert!(fault(u16::MAX, &[u64::MAX, first, first + 1]).contains("out of order"));
    // Without a list they are free.
    let unlisted = with_meta(&spare, |meta| meta.high_water += 2);
    assert_eq!(check_image(&unlisted).unwrap().pages, first);
}

#[test]
fn either_meta_page_is_enough_and_the_newer_one_counts() {
    for page_size in [4096_usize, 65_536] {
        let whole = image(u32::try_from(page_size).unwrap(), &vec![("key", numbered(9, 9))]);
        for page in [0, page_size] {
            let mut image = whole.clone();
            image[page + 40] ^= 1;
            assert_eq!(check_image(&image).unwrap().pairs, 9, "{page}");
        }
        let mut image = whole.clone();
        image[16] ^= 1;
        image[page_size + 16] ^= 1;
        assert!(damage(&image).contains("magic"));
    }
    let whole = image(4096, &vec![("key", numbered(9, 9))]);
    let mut newer = whole.clone();
    let mut meta = Meta::decode(&whole[4096 + HEADER_BYTES..]).unwrap();
    meta.txid = 9;
    meta.root = 77;
    newer[4096 + HEADER_BYTES..4096 + HEADER_BYTES + 64].copy_from_slice(&meta.encode());
    assert!(damage(&newer).contains("page 77: no such page"));
}

#[test]
fn cycles_shared_pages_and_wrong_kinds_are_refused() {
    let whole = image(4096, &vec![("key", numbered(1000, 100))]);
    let branch = whole
        .chunks_exact(4096)
        .position(|page| Header::decode(page).unwrap().kind == BRANCH)
        .unwrap();
    let child = |index: usize| branch * 4096 + HEADER_BYTES + index * 16 + 8;
    let pointing = |index, to: u64| {
        let mut image = whole.clone();
        image[child(index)..child(index) + 8].copy_from_slice(&to.to_le_bytes());
        damage(&image)
    };
    assert!(pointing(0, branch as u64).contains("key 1 is out of order"));
    assert!(pointing(1, 2).contains("its keys are not those its parent says"));
    assert!(pointing(1, 0).contains("no such page"));
    assert!(pointing(1, 1 << 50).contains("no such page"));
    let mut header = whole.clone();
    header[2 * 4096 + 8..2 * 4096 + 10].copy_from_slice(&FREELIST.to_le_bytes());
    assert!(damage(&header).contains("page 2: wrong kind 0x10"));
    header[2 * 4096 + 8..2 * 4096 + 10].copy_from_slice(&LEAF.to_le_bytes());
    header[2 * 4096 + 12..2 * 4096 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(damage(&header).contains("it cannot cover"));
    let mut id = whole.clone();
    id[2 * 4096] = 3;
    assert!(damage(&id).contains("it says that it is page 3"));
    assert!(damage(&whole[..whole.len() - 1]).contains("do not fit"));
    assert!(damage(b"").contains("too short"));
}

#[test]
fn faults_name_file_and_offset() {
    let mut image = image(4096, &vec![("key", numbered(100, 100))]);
    image[3 * 4096] = 9;
    let fault = open(&image).unwrap().check().unwrap_err();
    assert!(
        matches!(&fault, Fault::Damaged { path, offset: 12_288, .. } if path == Path::new("db"))
    );
}

#[test]
fn a_missing_file_is_no_damage() {
    let fault = Bolt::open(&MemDisk::new(), Path::new("db")).unwrap_err();
    assert!(matches!(fault, Fault::Io { operation: "open", .. }));
    assert!(!MemDisk::new().exists(Path::new("db")).unwrap());
    let disk = MemDisk::new();
    disk.open(Path::new("db"), OpenMode::Create).unwrap();
    assert!(matches!(Bolt::open(&disk, Path::new("db")), Err(Fault::Damaged { .. })));
}

/// How a snapshot is made: one reader for both passes, and nothing borrowed, so that the stream may move between threads.
#[test]
fn a_backend_streams_as_an_image() {
    const TABLES: &[&str] = &["key", "meta"];
    let disk = Arc::new(MemDisk::new());
    let options = backend::Options::default();
    let backend = Backend::open(disk, Path::new("backend"), TABLES, options).unwrap();
    let key = |i: u64| Bytes::copy_from_slice(&i.to_be_bytes());
    let put = |i| (TableId(0), Op::Put(key(i), vec![3; 200].into()));
    backend.commit(&WriteBatch::new((0..2000).map(put).collect())).unwrap();

    let reader = backend.reader().unwrap();
    let mut planner = Planner::new(PAGE_BYTES).unwrap();
    for (table, name) in (0..).map(TableId).zip(TABLES) {
        planner.bucket(name.as_bytes()).unwrap();
        let mut planned = Ok(());
        let plan = |key: &[u8], value: &[u8]| {
            planned = planner.pair(key.len(), value.len());
            if planned.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.scan(table, .., plan).unwrap();
        planned.unwrap();
    }
    let mut writer = Writer::new(planner.finish(), move |name: &[u8]| {
        let table = (0..).map(TableId).zip(TABLES).find(|(_, table)| table.as_bytes() == name);
        reader.range(table.unwrap().0, ..)
    });
    // What is committed meanwhile is not in the image.
    backend.commit(&WriteBatch::new((2000..2500).map(put).collect())).unwrap();
    let stream = std::thread::scope(|scope| {
        let run = move || {
            let (mut image, mut piece) = (Vec::new(), Vec::new());
            while writer.next_piece(&mut piece).unwrap() {
                image.extend_from_slice(&piece);
            }
            image
        };
        scope.spawn(run).join().unwrap()
    });
    assert_eq!(check_image(&stream).unwrap().pairs, 2000);
}

fn any_pairs() -> impl Strategy<Value = Vec<Pair>> {
    let key = vec(any::<u8>(), 1..40);
    let value = prop_oneof![
        9 => vec(any::<u8>(), 0..300),
        1 => vec(any::<u8>(), 3000..9000),
    ];
    btree_map(key, value, 0..200).prop_map(|pairs| {
        pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_buckets_read_back(
        first in any_pairs(),
        second in any_pairs(),
        page_size in prop::sample::select(vec![1024, 4096, 16_384]),
    ) {
        let buckets = vec![("first", first), ("second", second)];
        assert_reads_back(&image(page_size, &buckets), &buckets);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut image = GOLDEN.to_vec();
        for (at, byte) in flips {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if is_cut {
            image.truncate(cut.index(image.len()));
        }
        // Either answer is fine: many bytes are values.
        let _ = check_image(&image);
    }

    #[test]
    fn no_number_in_a_header_makes_the_reader_panic(
        page in 0_usize..13,
        at in 0_usize..64,
        number in prop_oneof![any::<u64>(), 0_u64..100],
    ) {
        let mut image = GOLDEN.to_vec();
        let place = page * 4096 + at * 8;
        image[place..place + 8].copy_from_slice(&number.to_le_bytes());
        if page < 2 {
            // With a checksum that fits the change shall reach the code behind it.
            image = resummed(image, page * 4096 + HEADER_BYTES);
        }
        let _ = check_image(&image);
    }
}

/// Makes a changed meta valid again where it decodes but for its checksum.
fn resummed(mut image: Vec<u8>, place: usize) -> Vec<u8> {
    let number = |at: usize| {
        let bytes = &image[place + at..place + at + 8];
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    let meta = Meta {
        page_size: u32::try_from(number(8) & 0xffff_ffff).unwrap(),
        root: number(16),
        sequence: number(24),
        freelist: number(32),
        high_water: number(40),
        txid: number(48),
    };
    image[place..place + 64].copy_from_slice(&meta.encode());
    image
}
