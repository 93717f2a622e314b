// Package client tests one server with the Go client of etcd 3.7.
package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
)

func start(t *testing.T) (*clientv3.Client, context.Context) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Getenv("ENDPOINT")}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(func() {
		cancel()
		client.Close()
	})
	return client, ctx
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func refused(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("wanted %v, got %v", want, got)
	}
}

func TestKeyValues(t *testing.T) {
	client, ctx := start(t)
	kv := namespace.NewKV(client.KV, "kv/")
	first := must[*clientv3.PutResponse](t)(kv.Put(ctx, "a", "1"))
	second := must[*clientv3.PutResponse](t)(kv.Put(ctx, "a", "2", clientv3.WithPrevKV()))
	if second.Header.Revision != first.Header.Revision+1 || string(second.PrevKv.Value) != "1" {
		t.Fatal(second)
	}
	got := must[*clientv3.GetResponse](t)(kv.Get(ctx, "a", clientv3.WithRev(first.Header.Revision)))
	if string(got.Kvs[0].Value) != "1" || got.Kvs[0].Version != 1 || got.Header.Revision != second.Header.Revision {
		t.Fatal(got)
	}
	for _, key := range []string{"l/1", "l/2", "l/3", "l/4"} {
		must[*clientv3.PutResponse](t)(kv.Put(ctx, key, "of "+key))
	}
	got = must[*clientv3.GetResponse](t)(kv.Get(ctx, "l/", clientv3.WithPrefix(), clientv3.WithLimit(2),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithKeysOnly()))
	if len(got.Kvs) != 2 || string(got.Kvs[0].Key) != "l/4" || !got.More || got.Count != 4 || len(got.Kvs[0].Value) != 0 {
		t.Fatal(got)
	}
	_, err := kv.Get(ctx, "a", clientv3.WithRev(1<<40))
	refused(t, err, rpctypes.ErrFutureRev)
	_, err = kv.Put(ctx, "none", "", clientv3.WithIgnoreValue())
	refused(t, err, rpctypes.ErrKeyNotFound)
	_, err = client.Put(ctx, "", "")
	refused(t, err, rpctypes.ErrEmptyKey)
	_, err = client.Put(ctx, "large", string(make([]byte, 1_600_000)))
	refused(t, err, rpctypes.ErrRequestTooLarge)
	deleted := must[*clientv3.DeleteResponse](t)(kv.Delete(ctx, "l/2", clientv3.WithFromKey(), clientv3.WithPrevKV()))
	if deleted.Deleted != 3 || string(deleted.PrevKvs[0].Value) != "of l/2" {
		t.Fatal(deleted)
	}
}

func TestRangeStream(t *testing.T) {
	client, ctx := start(t)
	for range 25 {
		must[*clientv3.PutResponse](t)(client.Put(ctx, "stream/"+time.Now().Format(time.RFC3339Nano), "x"))
	}
	want := must[*clientv3.GetResponse](t)(client.Get(ctx, "stream/", clientv3.WithPrefix()))
	stub := etcdserverpb.NewKVClient(client.ActiveConnection())
	request := &etcdserverpb.RangeRequest{Key: []byte("stream/"), RangeEnd: []byte("stream0")}
	stream := must[etcdserverpb.KV_RangeStreamClient](t)(stub.RangeStream(ctx, request))
	var keys [][]byte
	var chunks int
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks++
		for _, each := range chunk.RangeResponse.Kvs {
			keys = append(keys, each.Key)
		}
	}
	same := len(keys) == len(want.Kvs)
	for i := range want.Kvs {
		same = same && bytes.Equal(keys[i], want.Kvs[i].Key)
	}
	if !same || chunks != 2 {
		t.Fatalf("%d chunks, keys %q", chunks, keys)
	}
}

func TestTransactions(t *testing.T) {
	client, ctx := start(t)
	must[*clientv3.PutResponse](t)(client.Put(ctx, "txn", "1"))
	answer := must[*clientv3.TxnResponse](t)(client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("txn"), "=", "1"), clientv3.Compare(clientv3.Version("no"), "=", 0)).
		Then(clientv3.OpPut("txn", "2", clientv3.WithPrevKV()), clientv3.OpGet("txn"),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn"), "=", "1")},
				[]clientv3.Op{clientv3.OpPut("nested", "before")}, []clientv3.Op{clientv3.OpPut("nested", "after")})).
		Else(clientv3.OpDelete("txn")).Commit())
	nested := answer.Responses[2].GetResponseTxn()
	if !answer.Succeeded || string(answer.Responses[1].GetResponseRange().Kvs[0].Value) != "2" || !nested.Succeeded {
		t.Fatal(answer)
	}
	_, err := client.Txn(ctx).Then(clientv3.OpPut("x", "1"), clientv3.OpPut("x", "2")).Commit()
	refused(t, err, rpctypes.ErrDuplicateKey)
	many := slices.Repeat([]clientv3.Op{clientv3.OpGet("x")}, 129)
	_, err = client.Txn(ctx).Then(many...).Commit()
	refused(t, err, rpctypes.ErrTooManyOps)
	counted, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
		stm.Put("stm", stm.Get("txn")+"!")
		return nil
	})
	if err != nil || !counted.Succeeded {
		t.Fatal(counted, err)
	}
}

func TestLeases(t *testing.T) {
	client, ctx := start(t)
	lease := must[*clientv3.LeaseGrantResponse](t)(client.Grant(ctx, 2))
	must[*clientv3.PutResponse](t)(client.Put(ctx, "leased", "x", clientv3.WithLease(lease.ID)))
	if once := must[*clientv3.LeaseKeepAliveResponse](t)(client.KeepAliveOnce(ctx, lease.ID)); once.TTL != 2 {
		t.Fatal(once)
	}
	keptCtx, stop := context.WithCancel(ctx)
	kept := must[<-chan *clientv3.LeaseKeepAliveResponse](t)(client.KeepAlive(keptCtx, lease.ID))
	for range 3 {
		if answer := <-kept; answer == nil || answer.TTL != 2 {
			t.Fatal(answer)
		}
	}
	events := client.Watch(ctx, "leased")
	stop()
	if response := <-events; response.Events[0].Type != clientv3.EventTypeDelete {
		t.Fatal(response)
	}
	times := must[*clientv3.LeaseTimeToLiveResponse](t)(client.TimeToLive(ctx, lease.ID))
	if times.TTL != -1 {
		t.Fatal(times)
	}
	_, err := client.KeepAliveOnce(ctx, lease.ID)
	refused(t, err, rpctypes.ErrLeaseNotFound)
	lease = must[*clientv3.LeaseGrantResponse](t)(client.Grant(ctx, 600))
	must[*clientv3.PutResponse](t)(client.Put(ctx, "leased", "x", clientv3.WithLease(lease.ID)))
	times = must[*clientv3.LeaseTimeToLiveResponse](t)(client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()))
	if times.GrantedTTL != 600 || times.TTL < 590 || string(times.Keys[0]) != "leased" {
		t.Fatal(times)
	}
	must[*clientv3.LeaseRevokeResponse](t)(client.Revoke(ctx, lease.ID))
	_, err = client.Revoke(ctx, lease.ID)
	refused(t, err, rpctypes.ErrLeaseNotFound)
	_, err = client.Grant(ctx, 9_000_000_001)
	refused(t, err, rpctypes.ErrLeaseTTLTooLarge)
}

func TestWatches(t *testing.T) {
	client, ctx := start(t)
	first := must[*clientv3.PutResponse](t)(client.Put(ctx, "w/1", "0")).Header.Revision
	must[*clientv3.PutResponse](t)(client.Put(ctx, "w/1", "1"))
	must[*clientv3.DeleteResponse](t)(client.Delete(ctx, "w/1"))
	past := client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	if created := <-past; !created.Created {
		t.Fatal(created)
	}
	var events []*clientv3.Event
	for len(events) < 3 {
		events = append(events, (<-past).Events...)
	}
	if !events[0].IsCreate() || !events[1].IsModify() || string(events[1].PrevKv.Value) != "0" ||
		events[2].Type != clientv3.EventTypeDelete || string(events[2].PrevKv.Value) != "1" || events[2].Kv.ModRevision != first+2 {
		t.Fatal(events)
	}
	deletes := client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFilterPut())
	if response := <-deletes; len(response.Events) != 1 || response.Events[0].Type != clientv3.EventTypeDelete {
		t.Fatal(response)
	}
	if err := client.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	if progress := <-past; !progress.IsProgressNotify() || progress.Header.Revision < first+2 {
		t.Fatal(progress)
	}
	must[*clientv3.TxnResponse](t)(client.Txn(ctx).Then(clientv3.OpPut("w/a", "1"), clientv3.OpPut("w/b", "2")).Commit())
	if response := <-past; len(response.Events) != 2 {
		t.Fatal("a transaction's events come together", response)
	}
	must[*clientv3.CompactResponse](t)(client.Compact(ctx, first+2, clientv3.WithCompactPhysical()))
	compacted := <-client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(first))
	if compacted.CompactRevision != first+2 {
		t.Fatal(compacted)
	}
	refused(t, compacted.Err(), rpctypes.ErrCompacted)
	_, err := client.Compact(ctx, first)
	refused(t, err, rpctypes.ErrCompacted)
	_, err = client.Get(ctx, "w/1", clientv3.WithRev(first))
	refused(t, err, rpctypes.ErrCompacted)
}

func TestWatchFragments(t *testing.T) {
	client, ctx := start(t)
	var first int64
	for i := range 8 {
		revision := must[*clientv3.PutResponse](t)(client.Put(ctx, "fragment", string(make([]byte, 1<<20)))).Header.Revision
		if i == 0 {
			first = revision
		}
	}
	events := 0
	for response := range client.Watch(ctx, "fragment", clientv3.WithRev(first), clientv3.WithFragment()) {
		if response.Err() != nil {
			t.Fatal(response.Err())
		}
		if events += len(response.Events); events == 8 {
			return
		}
	}
	t.Fatal("the watch ended")
}

func TestLocksAndElections(t *testing.T) {
	client, ctx := start(t)
	session := func() *concurrency.Session {
		return must[*concurrency.Session](t)(concurrency.NewSession(client, concurrency.WithTTL(5)))
	}
	one, two := session(), session()
	defer two.Close()
	mutex, other := concurrency.NewMutex(one, "mutex"), concurrency.NewMutex(two, "mutex")
	if err := mutex.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	refused(t, other.TryLock(ctx), concurrency.ErrLocked)
	got := make(chan error)
	go func() { got <- other.Lock(ctx) }()
	if err := mutex.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	first, second := concurrency.NewElection(one, "election"), concurrency.NewElection(two, "election")
	if err := first.Campaign(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	observed := second.Observe(ctx)
	if leader := <-observed; string(leader.Kvs[0].Value) != "first" {
		t.Fatal(leader)
	}
	go func() { got <- second.Campaign(ctx, "second") }()
	// The end of a session ends what it leads.
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	leader := must[*clientv3.GetResponse](t)(second.Leader(ctx))
	if string(leader.Kvs[0].Value) != "second" {
		t.Fatal(leader)
	}
}

func TestMaintenance(t *testing.T) {
	client, ctx := start(t)
	status := must[*clientv3.StatusResponse](t)(client.Status(ctx, os.Getenv("ENDPOINT")))
	if status.Leader != status.Header.MemberId || status.RaftAppliedIndex == 0 || status.DbSize == 0 || status.StorageVersion != "3.7.0" {
		t.Fatal(status)
	}
	hash := must[*clientv3.HashKVResponse](t)(client.HashKV(ctx, os.Getenv("ENDPOINT"), 0))
	if hash.Hash == 0 || hash.HashRevision != hash.Header.Revision {
		t.Fatal(hash)
	}
	members := must[*clientv3.MemberListResponse](t)(client.MemberList(ctx))
	if len(members.Members) != 1 || members.Members[0].Name != "interop" {
		t.Fatal(members)
	}
	must[*clientv3.DefragmentResponse](t)(client.Defragment(ctx, os.Getenv("ENDPOINT")))
	_, err := client.MoveLeader(ctx, 42)
	refused(t, err, rpctypes.ErrBadLeaderTransferee)
	snapshot := must[*clientv3.SnapshotResponse](t)(client.SnapshotWithVersion(ctx))
	defer snapshot.Snapshot.Close()
	bytes, err := io.Copy(io.Discard, snapshot.Snapshot)
	if err != nil || bytes%512 != 32 || snapshot.Version != "3.7.0" {
		t.Fatal(bytes, err, snapshot.Version)
	}
	alarm := etcdserverpb.NewMaintenanceClient(client.ActiveConnection())
	raise := &etcdserverpb.AlarmRequest{Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: etcdserverpb.AlarmType_NOSPACE}
	must[*etcdserverpb.AlarmResponse](t)(alarm.Alarm(ctx, raise))
	_, err = client.Put(ctx, "full", "x")
	refused(t, err, rpctypes.ErrNoSpace)
	must[*clientv3.AlarmResponse](t)(client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: status.Header.MemberId, Alarm: etcdserverpb.AlarmType_NOSPACE}))
	must[*clientv3.PutResponse](t)(client.Put(ctx, "full", "x"))
}

func TestMirrorAndOrdering(t *testing.T) {
	client, ctx := start(t)
	must[*clientv3.PutResponse](t)(client.Put(ctx, "mirror/1", "x"))
	syncer := mirror.NewSyncer(client, "mirror/", 0)
	base, failures := syncer.SyncBase(ctx)
	if page := <-base; len(page.Kvs) != 1 {
		t.Fatal(page)
	}
	if err := <-failures; err != nil {
		t.Fatal(err)
	}
	updates := syncer.SyncUpdates(ctx)
	must[*clientv3.PutResponse](t)(client.Put(ctx, "mirror/1", "y"))
	if update := <-updates; string(update.Events[0].Kv.Value) != "y" {
		t.Fatal(update)
	}
	ordered := ordering.NewKV(client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("out of order") })
	for range 20 {
		must[*clientv3.GetResponse](t)(ordered.Get(ctx, "mirror/1", clientv3.WithSerializable()))
	}
}
