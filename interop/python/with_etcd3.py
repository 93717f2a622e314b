"""The Python client etcd3 against one server."""

import os
import threading
import time

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

import etcd3  # noqa: E402
import etcd3.exceptions  # noqa: E402
import grpc  # noqa: E402

HOST, PORT = os.environ["ENDPOINT"].split(":")


def refused(error, call, text=""):
    try:
        call()
    except error as refusal:
        assert text in str(refusal), refusal
    else:
        raise AssertionError(f"{call} succeeded")


def key_values(client):
    client.put("a", "1")
    value, meta = client.get("a")
    assert (value, meta.key, meta.version) == (b"1", b"a", 1)
    assert client.get("nothing") == (None, None)
    for i in range(5):
        client.put(f"list/{i}", str(i))
    keys = [meta.key for _, meta in client.get_prefix("list/", sort_order="descend")]
    assert keys == [b"list/4", b"list/3", b"list/2", b"list/1", b"list/0"], keys
    assert [v for v, _ in client.get_range("list/1", "list/3")] == [b"1", b"2"]
    previous = client.delete("list/0", prev_kv=True, return_response=True).prev_kvs
    assert [kv.value for kv in previous] == [b"0"]
    assert client.delete("list/0") is False
    assert client.delete_prefix("list/").deleted == 4
    assert client.replace("a", "1", "2") and not client.replace("a", "1", "3")
    assert client.put_if_not_exists("a", "4") is False
    assert client.get("a")[0] == b"2"


def transactions(client):
    t = client.transactions
    ok, answers = client.transaction(
        compare=[t.value("a") == "2", t.version("nothing") == 0, t.mod("a") > 0],
        success=[t.put("t", "1"), t.get("t"), t.delete("a")],
        failure=[t.put("t", "2")],
    )
    assert ok and answers[1][0][0] == b"1", answers
    assert client.get("a") == (None, None)
    ok, answers = client.transaction(compare=[t.create("t") == 0], success=[], failure=[t.get("t")])
    assert not ok and answers[0][0][0] == b"1"


def leases(client):
    lease = client.lease(2)
    client.put("leased", "x", lease)
    assert lease.granted_ttl == 2 and lease.keys == [b"leased"] and 0 <= lease.remaining_ttl <= 2
    assert lease.refresh()[0].TTL == 2
    assert client.get("leased")[1].lease_id == lease.id
    deadline = time.monotonic() + 10
    while client.get("leased")[0] is not None:
        assert time.monotonic() < deadline, "the lease does not expire"
        time.sleep(0.1)
    assert client.get_lease_info(lease.id).TTL == -1
    lease = client.lease(600)
    client.put("leased", "x", lease)
    lease.revoke()
    assert client.get("leased")[0] is None
    refused(grpc.RpcError, lease.revoke, "requested lease not found")


def watches(client):
    revision = client.put("w", "0").header.revision
    client.put("w", "1")
    client.delete("w")
    events, cancel = client.watch("w", start_revision=revision, prev_kv=True)
    seen = [next(events) for _ in range(3)]
    cancel()
    kinds = [type(event).__name__ for event in seen]
    assert kinds == ["PutEvent", "PutEvent", "DeleteEvent"], kinds
    assert [event.prev_value for event in seen] == [b"", b"0", b"1"]
    assert [event.mod_revision for event in seen] == [revision, revision + 1, revision + 2]
    threading.Timer(0.3, lambda: client.put("live/1", "now")).start()
    event = client.watch_prefix_once("live/", timeout=5)
    assert (event.key, event.value) == (b"live/1", b"now")
    client.compact(revision + 2, physical=True)
    events, cancel = client.watch("w", start_revision=revision)
    refused(etcd3.exceptions.RevisionCompactedError, lambda: next(events))


def locks(client):
    # Waiting for a lock is broken in this client: it calls its retry library in a way of long ago.
    with client.lock("lock", ttl=10) as lock:
        assert lock.is_acquired()
        assert client.get(lock.key)[1].lease_id == lock.lease.id
    assert client.get(lock.key)[0] is None
    assert client.lock("lock", ttl=10).acquire(timeout=2)


def maintenance(client):
    status = client.status()
    assert status.version.startswith("3.7.") and status.db_size > 0
    assert [member.name for member in client.members] == ["interop"]
    assert list(client.list_alarms()) == []
    client.defragment()
    with open(os.path.join(os.environ["WORK"], "etcd3.db"), "w+b") as file:
        client.snapshot(file)
        assert file.tell() > 512 and file.tell() % 512 == 32


with etcd3.client(host=HOST, port=int(PORT), timeout=10) as client:
    for part in (key_values, transactions, leases, watches, locks, maintenance):
        part(client)
        print(part.__name__, "passed")
