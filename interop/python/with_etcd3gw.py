"""The Python client etcd3gw, which speaks JSON to the gateway, against one server."""

import base64
import os
import threading
import time

import etcd3gw
from etcd3gw.exceptions import Etcd3Exception
from etcd3gw.lock import Lock

HOST, PORT = os.environ["ENDPOINT"].split(":")


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def key_values(client):
    assert client.put("a", "1") and client.put("b", "2")
    assert client.get("a") == [b"1"] and client.get("nothing") == []
    assert client.replace("a", "1", "3") and not client.replace("a", "1", "4")
    assert client.create("c", "new") and not client.create("c", "again")
    value, meta = client.get("a", metadata=True)[0]
    assert (value, meta["key"], meta["version"]) == (b"3", b"a", "2"), meta
    for i in range(3):
        client.put(f"list/{i}", str(i))
    keys = [meta["key"] for _, meta in client.get_prefix("list/", sort_order="descend", sort_target="key")]
    assert keys == [b"list/2", b"list/1", b"list/0"], keys
    assert client.delete("b") and not client.delete("b")
    assert client.delete_prefix("list/")
    assert list(client.get_prefix("list/")) == []


def transactions(client):
    answer = client.transaction({
        "compare": [{"key": encoded("a"), "result": "EQUAL", "target": "VALUE", "value": encoded("3")}],
        "success": [
            {"request_put": {"key": encoded("t"), "value": encoded("x"), "prev_kv": True}},
            {"request_range": {"key": encoded("t")}},
        ],
        "failure": [],
    })
    assert answer["succeeded"] is True
    assert answer["responses"][1]["response_range"]["kvs"][0]["value"] == encoded("x")


def leases(client):
    lease = client.lease(ttl=2)
    client.put("leased", "x", lease)
    assert lease.keys() == [b"leased"] and 0 <= lease.ttl() <= 2
    assert lease.refresh() == 2
    deadline = time.monotonic() + 10
    while client.get("leased"):
        assert time.monotonic() < deadline, "the lease does not expire"
        time.sleep(0.1)
    assert lease.ttl() == -1
    lease = client.lease(ttl=600)
    client.put("leased", "x", lease)
    assert lease.revoke() and client.get("leased") == []
    try:
        client.put("leased", "x", lease)
    except Etcd3Exception as refusal:
        assert "requested lease not found" in (refusal.detail_text or ""), refusal.detail_text
    else:
        raise AssertionError("a put with a revoked lease succeeded")


def watches(client):
    threading.Timer(0.5, lambda: client.put("watched/1", "now")).start()
    event = client.watch_once("watched/1", timeout=5)
    assert (event["kv"]["key"], event["kv"]["value"]) == (b"watched/1", b"now"), event
    events, cancel = client.watch("watched/1")
    client.put("watched/1", "then")
    client.delete("watched/1")
    assert next(events)["kv"]["value"] == b"then"
    assert next(events)["type"] == "DELETE"
    cancel()


def locks(client):
    with Lock("lock", ttl=10, client=client) as lock:
        assert lock.is_acquired()
        assert not Lock("lock", ttl=10, client=client).acquire()
    assert not lock.is_acquired()


def maintenance(client):
    status = client.status()
    assert status["version"].startswith("3.7.") and status["leader"] == status["header"]["member_id"]
    assert [member["name"] for member in client.members()] == ["interop"]


client = etcd3gw.client(host=HOST, port=int(PORT), timeout=10)
for part in (key_values, transactions, leases, watches, locks, maintenance):
    part(client)
    print(part.__name__, "passed")
