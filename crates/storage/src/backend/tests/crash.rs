//! Power cuts: a disk that forgets what was not synced, in any combination.

use std::io;

use parking_lot::Mutex;

use super::*;
use crate::disk::File;

/// A small generator: a seed, one run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = crate::length(*offset);
                let end = start + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(data);
            }
            Self::Length(len) => bytes.resize(crate::length(*len), 0),
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

/// Small steps, so that commits come between them.
fn open_with_small_steps(disk: impl Disk + 'static) -> Result<Backend, Fault> {
    let options = Options { step_bytes: 8_000, ..Options::default() };
    Backend::open(Arc::new(disk), path(), TABLES, options)
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Node>>>;

#[derive(Debug, Default)]
struct State {
    names: Names,
    durable_names: Names,
    operations_left: u64,
}

/// Files that remember which of their changes were synced, until the power goes.
#[derive(Debug, Clone, Default)]
struct CrashDisk(Arc<Mutex<State>>);

impl CrashDisk {
    /// Runs out of power after `operations`.
    fn new(operations: u64) -> Self {
        let disk = Self::default();
        disk.0.lock().operations_left = operations;
        disk
    }

    fn spend(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operations_left = state.operations_left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
        Ok(())
    }

    /// What may be found after the cut: for each file a subset of its unsynced changes, some of them torn; names as
    /// they were synced, or as they are.
    fn after_crash(&self, random: &mut Random) -> MemDisk {
        let state = self.0.lock();
        let names = if random.below(2) == 0 { &state.names } else { &state.durable_names };
        let disk = MemDisk::new();
        let kept_of_eight = random.below(9);
        for (path, node) in names {
            let node = node.lock();
            let mut bytes = node.durable.clone();
            for change in &node.unsynced {
                if random.below(8) < kept_of_eight {
                    let torn = random.below(8) == 0;
                    torn_or_whole(change, torn, random).apply(&mut bytes);
                }
            }
            disk.insert(path, bytes);
        }
        disk
    }
}

fn torn_or_whole(change: &Change, torn: bool, random: &mut Random) -> Change {
    match change {
        Change::Write(offset, data) if torn => {
            let sectors = (data.len() / 512).max(1) as u64;
            let kept = crate::length(random.below(sectors) * 512).min(data.len());
            Change::Write(*offset, data[..kept].to_vec())
        }
        whole => whole.clone(),
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.spend()?;
        let mut state = self.0.lock();
        if matches!(mode, OpenMode::CreateNew) && state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = Arc::clone(state.names.entry(path.to_owned()).or_default());
        Ok(Box::new(CrashFile { node, disk: self.clone() }))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        let mut state = self.0.lock();
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        self.0.lock().names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().names.contains_key(path))
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.spend()?;
        let mut state = self.0.lock();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

#[derive(Debug)]
struct CrashFile {
    node: Arc<Mutex<Node>>,
    disk: CrashDisk,
}

impl CrashFile {
    fn change(&self, change: Change) -> io::Result<()> {
        self.disk.spend()?;
        let mut node = self.node.lock();
        change.apply(&mut node.now);
        node.unsynced.push(change);
        Ok(())
    }
}

impl File for CrashFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.node.lock().now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len))
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let node = self.node.lock();
        let start = crate::length(offset);
        let found = node.now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spend()?;
        let mut node = self.node.lock();
        node.durable = node.now.clone();
        node.unsynced.clear();
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let extended = self.len()?.max(len);
        self.set_len(extended)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

fn random_batch(step: u64, random: &mut Random) -> WriteBatch {
    let key = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let mut ops: Vec<_> = (0..20)
        .map(|i| (KEY, put(key(step * 20 + i), vec![1; crate::length(random.below(900))])))
        .collect();
    for _ in 0..8 {
        let old = key(random.below(step * 20 + 20));
        ops.push((KEY, Op::Delete(old)));
    }
    ops.push((META, put("step", key(step))));
    WriteBatch::new(ops)
}

/// Works until the power goes; returns the states that a restart may find.
fn work(disk: &CrashDisk, random: &mut Random) -> Vec<Model> {
    const STEPS: u64 = 24;
    let mut durable = Model::new();
    let Ok(backend) = open_with_small_steps(disk.clone()) else { return vec![durable] };
    for step in 0..STEPS {
        let batch = random_batch(step, random);
        let mut next = durable.clone();
        apply(&mut next, &batch);
        if backend.commit(&batch).is_err() {
            return vec![durable, next];
        }
        durable = next;
        for _ in 0..random.below(4) {
            if backend.defragment_step().is_err() {
                return vec![durable];
            }
        }
    }
    vec![durable]
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_and_leaves_nothing_half_done() {
    let whole = CrashDisk::new(u64::MAX);
    work(&whole, &mut Random(1));
    let operations = u64::MAX - whole.0.lock().operations_left;
    assert!(operations > 200, "only {operations}");
    for seed in 0..400 {
        let mut random = Random(seed);
        let disk = CrashDisk::new(random.below(operations));
        let expected = work(&disk, &mut random);
        // Nothing after the cut reaches the disk.
        disk.0.lock().operations_left = 0;
        let found = disk.after_crash(&mut random);
        // With and without trust in what the engine saved about itself.
        let options = Options { verify_on_open: seed % 2 == 0, ..Options::default() };
        let reopened = Backend::open(Arc::new(found.clone()), path(), TABLES, options);
        let backend = reopened.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        let model = contents(&backend).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        assert!(expected.contains(&model), "seed {seed}");
        let step = u64::MAX >> 32;
        backend.commit(&random_batch(step, &mut random)).unwrap();
        drop(backend);
        assert!(contents(&open(found).unwrap()).is_ok(), "seed {seed}");
    }
}

/// The simulator relies on it: a seed, one run.
#[test]
fn equal_work_makes_equal_writes() {
    let run = || {
        let disk = CrashDisk::new(u64::MAX);
        work(&disk, &mut Random(5));
        let state = disk.0.lock();
        let files: Vec<_> = state
            .names
            .iter()
            .map(|(path, node)| (path.clone(), node.lock().now.clone()))
            .collect();
        (state.operations_left, files)
    };
    assert!(run() == run());
}
