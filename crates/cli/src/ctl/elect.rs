//! `elect`: stands in an election, or watches who leads.

use client::{Client, Election, Observer, Session};
use proto::etcdserverpb::RangeRequest;

use super::CONCURRENCY;
use super::context::Context;
use super::signal::Interruption;
use crate::command::{Command, Flag, Invocation};
use crate::exit::{ERROR, Failure};

const LISTEN: Flag = Flag::switch("listen", "observation mode").short('l');

/// The command.
pub(super) const ELECT: Command = Command {
    usage: "elect <election-name> [proposal]",
    short: "Observes and participates in leader election",
    group: CONCURRENCY,
    flags: &[LISTEN],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let name =
        invocation.bytes(0).filter(|_| invocation.arguments.len() <= 2).ok_or_else(|| {
            let text = "elect takes one election name argument and an optional proposal argument";
            Failure::bad_arguments(text)
        })?;
    let context = Context::new(&invocation)?;
    let client = context.client().await?;
    match (invocation.bytes(1), invocation.values.bool(&LISTEN)) {
        (None, false) => Err(Failure::bad_arguments("no proposal argument but -l not set")),
        (Some(_), true) => Err(Failure::bad_arguments("proposal given but -l is set")),
        (None, true) => observe(&context, &client, &name).await,
        (Some(proposal), false) => campaign(&context, &client, &name, proposal).await,
    }
}

async fn observe(context: &Context, client: &Client, name: &[u8]) -> Result<(), Failure> {
    let mut interruption = Interruption::catch()?;
    let mut observer = Observer::new(client, name);
    loop {
        let leader = tokio::select! {
            leader = observer.next() => leader,
            () = interruption.wait() => return Ok(()),
        };
        let lost = |_cause| Failure::new(ERROR, "elect: observer lost");
        let leader = leader.map_err(lost)?;
        context.show(|printer, to| printer.range(to, &leader))?;
    }
}

async fn campaign(
    context: &Context,
    client: &Client,
    name: &[u8],
    proposal: bytes::Bytes,
) -> Result<(), Failure> {
    let session = Session::open(client, None).await?;
    let mut interruption = Interruption::catch()?;
    let mut election = Election::new(&session, name);
    let elected = tokio::select! {
        elected = election.campaign(proposal) => elected.map_err(Failure::from),
        () = interruption.wait() => Err(Failure::new(ERROR, "context canceled")),
    };
    if let Err(failure) = elected {
        // The candidacy is taken back; where that fails, the lease's end does it.
        drop(election.resign().await);
        return Err(failure);
    }
    let request = RangeRequest { key: election.key().clone(), ..RangeRequest::default() };
    let elected = client.range(request).await?;
    context.show(|printer, to| printer.range(to, &elected))?;
    tokio::select! {
        () = interruption.wait() => Ok(election.resign().await?),
        () = session.lost() => Err(Failure::new(ERROR, "elect: session expired")),
    }
}
