//! `defrag`.

use std::time::Instant;

use super::context::Context;
use super::endpoint::CLUSTER;
use super::{MAINTENANCE, complain, print};
use crate::command::{Command, Invocation};
use crate::exit::{ERROR, Failure};
use crate::go;

/// The command.
pub(super) const DEFRAG: Command = Command {
    usage: "defrag",
    short: "Defragments the storage of the etcd members with given endpoints",
    group: MAINTENANCE,
    inherited: &[CLUSTER],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let context = Context::new(&invocation)?;
    let mut failed = false;
    for endpoint in context.endpoints(invocation.values.bool(&CLUSTER)).await? {
        let client = context.client_at(&endpoint).await?;
        let start = Instant::now();
        let outcome = client.defragment().await;
        let took = go::duration(start.elapsed());
        match outcome {
            Ok(_) => {
                print(&format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n"))?
            }
            Err(error) => {
                failed = true;
                complain(&format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})\n"
                ))?;
            }
        }
    }
    if failed { Err(Failure::silent(ERROR)) } else { Ok(()) }
}
