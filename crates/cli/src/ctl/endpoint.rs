//! `endpoint` and what is below it: the state of single members.

use std::time::Instant;

use client::Client;
use proto::etcdserverpb::{AlarmType, RangeRequest};
use tokio::task::JoinSet;

use super::context::Context;
use super::{MAINTENANCE, complain};
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::{ERROR, Failure};
use crate::go;
use crate::printer::Health;

pub(super) const CLUSTER: Flag =
    Flag::switch("cluster", "use all endpoints from the cluster member list");
const REV: Flag =
    Flag::with("rev", Kind::Int, "0", "maximum revision to hash (default: latest revision)");

/// The command.
pub(super) const ENDPOINT: Command = Command {
    usage: "endpoint <subcommand>",
    short: "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands",
    long: Some("Endpoint related commands"),
    group: MAINTENANCE,
    inherited: &[CLUSTER],
    children: &[
        Command {
            usage: "hashkv",
            short: "Prints the KV history hash for each endpoint in --endpoints",
            flags: &[REV],
            run: Some(|invocation| Box::pin(hash_kv(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "health",
            short: "Checks the healthiness of endpoints specified in `--endpoints` flag",
            run: Some(|invocation| Box::pin(health(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "status",
            short: "Prints out the status of endpoints specified in `--endpoints` flag",
            long: Some(
                "When --write-out is set to simple, this command prints out comma-separated status \
                 lists for each endpoint.\nThe items in the lists are endpoint, ID, version, db \
                 size, is leader, is learner, raft term, raft index, raft applied index, errors.\n",
            ),
            run: Some(|invocation| Box::pin(status(invocation))),
            ..Command::NONE
        },
    ],
    ..Command::NONE
};

async fn health(invocation: Invocation) -> Result<(), Failure> {
    let context = Context::new(&invocation)?;
    let endpoints = context.endpoints(invocation.values.bool(&CLUSTER)).await?;
    let mut checks = JoinSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let mut config = context.settings.client.clone();
        config.endpoints = vec![endpoint.clone()];
        let timeout = context.settings.command_timeout;
        checks.spawn(async move {
            let endpoint = config.endpoints[0].clone();
            let health = match Client::connect(config).await {
                Ok(client) => check(endpoint, &client.with_timeout(timeout)).await,
                Err(error) => Health {
                    endpoint,
                    is_healthy: false,
                    took: String::new(),
                    error: error.to_string(),
                },
            };
            (index, health)
        });
    }
    let mut list = checks.join_all().await;
    list.sort_by_key(|(index, _)| *index);
    let list: Vec<Health> = list.into_iter().map(|(_, health)| health).collect();
    context.show(|printer, to| printer.endpoint_health(to, &list))?;
    if list.iter().all(|health| health.error.is_empty()) {
        Ok(())
    } else {
        Err(Failure::new(ERROR, "unhealthy cluster"))
    }
}

/// Whether a member answers a read that needs a quorum, and has no alarm.
async fn check(endpoint: String, client: &Client) -> Health {
    let start = Instant::now();
    let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
    let answer = client.range(request).await;
    let took = go::duration(start.elapsed());
    let error = match answer {
        // A user who may not read this key was told so by a quorum.
        Err(error) if !error.is_permission_denied() => error.to_string(),
        Ok(_) | Err(_) => match client.alarm_list().await {
            Ok(alarms) if alarms.alarms.is_empty() => String::new(),
            Ok(alarms) => {
                let names = alarms.alarms.iter().map(|alarm| match alarm.alarm() {
                    AlarmType::Nospace => "NOSPACE ",
                    AlarmType::Corrupt => "CORRUPT ",
                    AlarmType::None => "UNKNOWN ",
                });
                format!("Active Alarm(s): {}", names.collect::<String>())
            }
            Err(_) => "Unable to fetch the alarm list".to_owned(),
        },
    };
    Health { endpoint, is_healthy: error.is_empty(), took, error }
}

async fn status(invocation: Invocation) -> Result<(), Failure> {
    let context = Context::new(&invocation)?;
    let (mut list, mut failed) = (Vec::new(), false);
    for endpoint in context.endpoints(invocation.values.bool(&CLUSTER)).await? {
        match context.client_at(&endpoint).await?.status().await {
            Ok(status) => list.push((endpoint, status)),
            Err(error) => {
                failed = true;
                complain(&format!("Failed to get the status of endpoint {endpoint} ({error})\n"))?;
            }
        }
    }
    context.show(|printer, to| printer.endpoint_status(to, &list))?;
    if failed { Err(Failure::silent(ERROR)) } else { Ok(()) }
}

async fn hash_kv(invocation: Invocation) -> Result<(), Failure> {
    let context = Context::new(&invocation)?;
    let (mut list, mut failed) = (Vec::new(), None);
    for endpoint in context.endpoints(invocation.values.bool(&CLUSTER)).await? {
        let client = context.client_at(&endpoint).await?;
        match client.hash_kv(invocation.values.int(&REV)).await {
            Ok(hash) => list.push((endpoint, hash)),
            Err(error) => {
                complain(&format!("Failed to get the hash of endpoint {endpoint} ({error})\n"))?;
                failed = Some(error);
            }
        }
    }
    context.show(|printer, to| printer.endpoint_hash_kv(to, &list))?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
