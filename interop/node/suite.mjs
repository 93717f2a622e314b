// The Node client etcd3 against one server.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Etcd3, EtcdLeaseInvalidError, EtcdLockFailedError } from "etcd3";

const client = new Etcd3({ hosts: `http://${process.env.ENDPOINT}` });

function next(emitter, event, milliseconds = 5000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event}`)), milliseconds);
    emitter.once(event, (value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

const parts = {
  async keyValues() {
    await client.put("a").value("1");
    assert.equal(await client.get("a").string(), "1");
    assert.equal(await client.get("nothing"), null);
    assert.equal((await client.put("a").value("2").getPrevious()).value.toString(), "1");
    for (const i of [0, 1, 2]) await client.put(`list/${i}`).value(i);
    assert.deepEqual(await client.getAll().prefix("list/").numbers(), { "list/0": 0, "list/1": 1, "list/2": 2 });
    assert.deepEqual(await client.getAll().prefix("list/").sort("Key", "Descend").limit(2).keys(), ["list/2", "list/1"]);
    assert.equal(await client.getAll().prefix("list/").count(), 3);
    const raw = await client.get("a").exec();
    assert.equal(raw.kvs[0].version, "2");
    assert.equal((await client.delete().key("list/0").getPrevious())[0].value.toString(), "0");
    assert.equal((await client.delete().prefix("list/").exec()).deleted, "2");
    await assert.rejects(client.get("a").revision(1000000).exec(), /required revision is a future revision/);
  },

  async transactions() {
    const won = await client
      .if("a", "Value", "==", "2")
      .and("nothing", "Create", "==", 0)
      .then(client.put("t").value("1"), client.get("t"))
      .else(client.put("t").value("2"))
      .commit();
    assert.equal(won.succeeded, true);
    assert.equal(won.responses[1].response_range.kvs[0].value.toString(), "1");
    const lost = await client.if("a", "Version", ">", 100).then(client.delete().key("a")).else(client.get("a")).commit();
    assert.equal(lost.succeeded, false);
    assert.equal(lost.responses[0].response_range.kvs[0].key.toString(), "a");
    await assert.rejects(
      client.if("a", "Value", "==", "2").then(client.put("x").value(1), client.put("x").value(2)).commit(),
      /duplicate key given in txn request/,
    );
  },

  async leases() {
    const lease = client.lease(2, { autoKeepAlive: false });
    await lease.put("leased").value("x");
    assert.equal(Number((await lease.keepaliveOnce()).TTL), 2);
    const id = await lease.grant();
    const times = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
    assert.deepEqual([times.grantedTTL, times.keys[0].toString()], ["2", "leased"]);
    const watcher = await client.watch().key("leased").create();
    assert.equal((await next(watcher, "delete", 10000)).key.toString(), "leased");
    await watcher.cancel();
    await assert.rejects(lease.keepaliveOnce(), EtcdLeaseInvalidError);
    const kept = client.lease(600);
    await kept.put("leased").value("x");
    await kept.revoke();
    assert.equal(await client.get("leased"), null);
  },

  async watches() {
    const first = Number((await client.put("w").value("0")).header.revision);
    await client.put("w").value("1");
    await client.delete().key("w");
    const watcher = await client.watch().key("w").startRevision(String(first)).withPreviousKV().create();
    const seen = [];
    watcher.on("put", (kv, previous) => seen.push(["put", kv.value.toString(), previous?.value.toString()]));
    watcher.on("delete", (kv, previous) => seen.push(["delete", kv.mod_revision, previous?.value.toString()]));
    for (let i = 0; i < 100 && seen.length < 3; i += 1) await sleep(50);
    assert.deepEqual(seen, [["put", "0", undefined], ["put", "1", "0"], ["delete", String(first + 2), "1"]]);
    const live = next(watcher, "put");
    await client.put("w").value("again");
    assert.equal((await live).value.toString(), "again");
    await watcher.cancel();
    await client.kv.compact({ revision: String(first + 2), physical: true });
    await assert.rejects(client.get("w").revision(first).exec(), /required revision has been compacted/);
  },

  async locksAndElections() {
    const held = await client.lock("lock").ttl(10).acquire();
    await assert.rejects(client.lock("lock").ttl(10).acquire(), EtcdLockFailedError);
    await held.release();
    assert.equal(await client.lock("lock").do(async () => "mine"), "mine");
    const election = client.election("election", 10);
    const campaign = election.campaign("first");
    await next(campaign, "elected");
    assert.equal(await election.leader(), "first");
    const observer = await election.observe();
    assert.equal(observer.leader() ?? (await next(observer, "change")), "first");
    await campaign.proclaim("second");
    for (let i = 0; i < 100 && observer.leader() !== "second"; i += 1) await sleep(50);
    assert.equal(observer.leader(), "second");
    await observer.cancel();
    await campaign.resign();
    assert.equal(await election.leader(), undefined);
  },

  async maintenance() {
    const status = await client.maintenance.status();
    assert.match(status.version, /^3\.7\./);
    assert.equal(status.leader, status.header.member_id);
    assert.deepEqual((await client.cluster.memberList({})).members.map((member) => member.name), ["interop"]);
    assert.deepEqual((await client.maintenance.alarm({ action: "GET" })).alarms, []);
    assert.ok((await client.maintenance.hash()).hash > 0);
    const snapshot = await client.maintenance.snapshot();
    let bytes = 0;
    snapshot.on("data", (chunk) => (bytes += chunk.blob.length));
    await next(snapshot, "end");
    assert.equal(bytes % 512, 32);
  },
};

for (const [name, part] of Object.entries(parts)) {
  await part();
  console.log(name, "passed");
}
client.close();
