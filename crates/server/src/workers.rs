//! Threads that run steps of reads for callers that must not wait for a disk.
//!
//! There are two kinds. Short steps, such as a get of a cold value, run on the serving thread's own pool. Long work (large
//! lists, images, hashes) runs on a few threads of the process that the system puts behind all others: a get that has to
//! wait for a processor goes before a list. It comes in steps, so that few threads serve many lists in turn; hashes are one
//! step each. It takes no lock for long that the other threads take: a thread that is put off while it holds one puts off
//! everyone.
//!
//! To go behind is not enough where processors are scarce: long work would fill every gap, and whoever is woken finds
//! some other thread running. So its threads leave gaps. A step that had to wait for a processor is followed by a rest as
//! long as the wait; where there are processors enough there is none.
//!
//! A step that finds no free thread waits with its caller, and is forgotten with it: nothing queues for clients that are
//! gone.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::grpc::error;
use crate::grpc::status::Status;
use crate::priority;

/// The longest rest after a step: work goes on whatever else there is.
const REST_MAX: Duration = Duration::from_millis(20);
/// Shorter ones are not worth a timer.
const REST_MIN: Duration = Duration::from_micros(100);

/// The threads for long work; dropped, they take no more steps and end with those under way.
#[derive(Debug)]
pub struct LongWork {
    workers: Workers,
    /// Taken only to end it.
    runtime: Option<Runtime>,
}

/// Access to threads that run steps.
#[derive(Debug, Clone)]
pub struct Workers {
    /// Whose pool it is; `None` for that of the caller's own runtime.
    runtime: Option<Handle>,
    /// One permit per thread.
    free: Arc<Semaphore>,
}

/// A thread that somebody may use.
pub type Permit = OwnedSemaphorePermit;

impl LongWork {
    /// Makes one thread for two processors, as they are needed: some are left for requests.
    pub fn new() -> io::Result<Self> {
        let threads =
            thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
        let runtime = Builder::new_current_thread()
            .thread_name("long-work")
            .max_blocking_threads(threads)
            .on_thread_start(priority::give_way)
            .build()?;
        let free = Arc::new(Semaphore::new(threads));
        let workers = Workers { runtime: Some(runtime.handle().clone()), free };
        Ok(Self { workers, runtime: Some(runtime) })
    }

    /// Returns access.
    pub fn workers(&self) -> Workers {
        self.workers.clone()
    }
}

impl Drop for LongWork {
    fn drop(&mut self) {
        // Waiting for a step, as dropping the runtime does, is forbidden to asynchronous callers.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Workers {
    /// Takes the pool of whatever runtime the caller is in, which has so many threads.
    pub fn own(threads: usize) -> Self {
        Self { runtime: None, free: Arc::new(Semaphore::new(threads)) }
    }

    /// Runs one step when a thread is free. Once begun, it goes on when the caller goes away meanwhile.
    pub async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let permit = self.permit().await?;
        self.run_with(permit, step).await
    }

    /// Waits until a thread is free.
    pub async fn permit(&self) -> Result<Permit, Status> {
        Arc::clone(&self.free).acquire_owned().await.map_err(|_closed| error::STOPPED)
    }

    /// Counts the threads that nobody has taken.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Runs one step on a thread that was waited for.
    pub async fn run_with<T: Send + 'static>(
        &self,
        permit: Permit,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        // The threads refuse work only while the process is ending.
        let Some(runtime) = &self.runtime else {
            let step = move || {
                let result = step();
                drop(permit);
                result
            };
            return tokio::task::spawn_blocking(step).await.map_err(|_cancelled| error::STOPPED);
        };
        let (sender, receiver) = oneshot::channel();
        drop(runtime.spawn_blocking(move || {
            // Nobody listens if the caller has gone away.
            let _unheard = sender.send(step());
            rest();
            drop(permit);
        }));
        receiver.await.map_err(|_cancelled| error::STOPPED)
    }
}

/// Leaves the processors to others for as long as this thread has waited for one since it last rested.
fn rest() {
    thread_local! {
        static RESTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let waited = priority::waited();
    let pause = waited.saturating_sub(RESTED.replace(waited)).min(REST_MAX);
    if pause >= REST_MIN {
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_runs_behind_other_threads_and_gives_its_results_back() {
        let before = rustix::process::getpriority_process(None);
        let threads = LongWork::new().expect("threads");
        let workers = threads.workers();
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let nice = runtime.block_on(workers.run(|| rustix::process::getpriority_process(None)));
        assert!(nice.expect("it runs").expect("a priority") > 0);
        assert_eq!(rustix::process::getpriority_process(None), before, "the caller keeps its own");
    }

    #[test]
    fn what_waits_is_forgotten_with_its_caller() {
        let threads = LongWork::new().expect("threads");
        let workers = threads.workers();
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        runtime.block_on(async {
            let busy: Vec<_> = (0..workers.free.available_permits())
                .map(|_| {
                    let (workers, held) = (workers.clone(), Arc::clone(&held));
                    let hold = move || held.lock().expect("no panic").recv().is_ok();
                    tokio::spawn(async move { workers.run(hold).await })
                })
                .collect();
            tokio::task::yield_now().await;
            let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let flag = Arc::clone(&ran);
            let waiting =
                workers.run(move || flag.store(true, std::sync::atomic::Ordering::SeqCst));
            let patience = Duration::from_millis(20);
            assert!(tokio::time::timeout(patience, waiting).await.is_err(), "no thread is free");
            drop(release);
            for task in busy {
                assert_eq!(task.await.expect("no panic"), Ok(false));
            }
            assert_eq!(workers.run(|| 7).await, Ok(7), "the threads are free again");
            assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
        });
    }

    #[test]
    fn dropped_threads_refuse_work() {
        let threads = LongWork::new().expect("threads");
        let workers = threads.workers();
        drop(threads);
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(workers.run(|| ())), Err(error::STOPPED));
    }
}
