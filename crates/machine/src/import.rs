//! A leader's snapshot, an etcd database file, becomes a backend of ours beside the present one.

use std::path::Path;
use std::sync::Arc;

use storage::Disk;
use storage::backend::{self, Backend, Op, WriteBatch};
use storage::bolt::Bolt;

use crate::fault::Fault;
use crate::schema;

/// Bytes of records in one commit.
const BATCH_BYTES: usize = 4 << 20;

/// Copies the buckets of the database file at `from` into a new backend file at `beside`, which may take the place of the
/// one at `path`. Everything is durable on return. Takes as long as the file is large.
pub fn import(
    disk: &Arc<dyn Disk>,
    from: &Path,
    beside: &Path,
    path: &Path,
    options: backend::Options,
) -> Result<Backend, Fault> {
    let image = Bolt::open(&**disk, from)?;
    let buckets = schema::BUCKETS;
    let backend = Backend::create_beside(Arc::clone(disk), beside, path, buckets, options)?;
    let mut batch = Batch::default();
    for (table, name) in schema::tables() {
        let Some(bucket) = image.bucket(name.as_bytes())? else { continue };
        for pair in bucket.pairs() {
            let (key, value) = pair?;
            batch.bytes += key.len() + value.len();
            batch.ops.push((table, Op::Put(key, value)));
            if batch.bytes > BATCH_BYTES {
                batch.commit(&backend)?;
            }
        }
    }
    batch.commit(&backend)?;
    Ok(backend)
}

#[derive(Debug, Default)]
struct Batch {
    ops: Vec<(backend::TableId, Op)>,
    bytes: usize,
}

impl Batch {
    fn commit(&mut self, backend: &Backend) -> Result<(), Fault> {
        let Self { ops, .. } = std::mem::take(self);
        Ok(backend.commit(&WriteBatch::new(ops))?)
    }
}

#[cfg(test)]
mod tests {
    use storage::OpenMode;
    use storage::backend::Options;
    use storage::mem::MemDisk;

    use super::*;
    use crate::tests::lab::{self, Lab};
    use crate::{Machine, Options as MachineOptions};

    fn put(lab: &mut Lab, key: String, value: String) {
        let (key, value) = (key.into(), value.into());
        lab.apply(lab::put(proto::etcdserverpb::PutRequest { key, value, ..Default::default() }));
    }

    /// The file of everything that is durable in a lab.
    fn image(lab: &Lab) -> Vec<u8> {
        let snapshot = lab.machine.reader().snapshot().expect("a view");
        let mut image = snapshot.image().expect("a plan");
        let (mut file, mut piece) = (Vec::new(), Vec::new());
        while image.next_piece(&mut piece).expect("in memory") {
            file.extend_from_slice(&piece);
        }
        file
    }

    fn imported(file: &[u8]) -> Result<(MemDisk, Backend), Fault> {
        let memory = MemDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let from = Path::new("from");
        disk.open(from, OpenMode::CreateNew).expect("new").write_all_at(0, file).expect("room");
        let (beside, path) = (Path::new("beside"), Path::new("db"));
        import(&disk, from, beside, path, Options::default()).map(|backend| (memory, backend))
    }

    #[test]
    fn what_one_member_sends_is_the_same_at_another() {
        let mut lab = Lab::new(MachineOptions::default());
        for number in 0..500 {
            put(&mut lab, format!("key {}", number % 100), "v".repeat(number));
        }
        lab.commit();
        let (disk, backend) = imported(&image(&lab)).expect("a whole file");
        let mut other =
            Machine::recover(backend.clone(), MachineOptions::default()).expect("whole");
        assert_eq!(other.applied(), lab.machine.applied());
        let hash = |machine: &Machine| machine.reader().hash_kv(0).expect("whole");
        assert_eq!(hash(&other), hash(&lab.machine));

        // Readers of before see it, and it is what a restart finds once it has its place.
        let mut behind =
            Machine::recover(lab::backend(), MachineOptions::default()).expect("empty");
        let reader = behind.reader();
        other.succeed(&behind);
        behind = other;
        assert_eq!(reader.hash_kv(0).expect("whole"), hash(&lab.machine));
        backend.take_place().expect("in memory");
        drop((behind, reader, backend));
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let options = Options::default();
        let found = Backend::open(disk, Path::new("db"), schema::BUCKETS, options).expect("whole");
        let found = Machine::recover(found, MachineOptions::default()).expect("whole");
        assert_eq!(hash(&found), hash(&lab.machine));
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused() {
        let mut lab = Lab::new(MachineOptions::default());
        put(&mut lab, "key".to_owned(), "value".to_owned());
        lab.commit();
        let file = image(&lab);
        for length in [0, 100, 4096, file.len() - 4096] {
            assert!(imported(&file[..length]).is_err(), "{length}");
        }
    }
}
