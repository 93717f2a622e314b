package quorate;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.election.CampaignResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The Java client jetcd against one server. */
@Timeout(60)
class JetcdTest {
    static Client client;

    @BeforeAll
    static void connect() {
        client = Client.builder().endpoints("http://" + System.getenv("ENDPOINT")).build();
    }

    @AfterAll
    static void close() {
        client.close();
    }

    static ByteSequence bytes(String text) {
        return ByteSequence.from(text, UTF_8);
    }

    static <T> T get(CompletableFuture<T> future) throws Exception {
        return future.get(20, SECONDS);
    }

    static void refused(CompletableFuture<?> future, String text) {
        ExecutionException error = assertThrows(ExecutionException.class, () -> get(future));
        assertTrue(error.getMessage().contains(text), error.getMessage());
    }

    @Test
    void keyValues() throws Exception {
        KV kv = client.getKVClient();
        long first = get(kv.put(bytes("a"), bytes("1"))).getHeader().getRevision();
        var second = get(kv.put(bytes("a"), bytes("2"), PutOption.builder().withPrevKV().build()));
        assertEquals("1", second.getPrevKv().getValue().toString(UTF_8));
        assertEquals(first + 1, second.getHeader().getRevision());
        var past = get(kv.get(bytes("a"), GetOption.builder().withRevision(first).build()));
        assertEquals("1", past.getKvs().get(0).getValue().toString(UTF_8));
        for (int i = 0; i < 4; i++) {
            get(kv.put(bytes("list/" + i), bytes("" + i)));
        }
        var options = GetOption.builder().isPrefix(true).withLimit(2).withKeysOnly(true)
            .withSortField(GetOption.SortTarget.KEY).withSortOrder(GetOption.SortOrder.DESCEND).build();
        var list = get(kv.get(bytes("list/"), options));
        assertEquals("list/3", list.getKvs().get(0).getKey().toString(UTF_8));
        assertEquals(4, list.getCount());
        assertTrue(list.isMore());
        var deleted = get(kv.delete(bytes("list/"), DeleteOption.builder().isPrefix(true).withPrevKV(true).build()));
        assertEquals(4, deleted.getDeleted());
        assertEquals("0", deleted.getPrevKvs().get(0).getValue().toString(UTF_8));
        refused(kv.get(bytes("a"), GetOption.builder().withRevision(1L << 40).build()), "required revision is a future revision");
        refused(kv.put(bytes(""), bytes("")), "key is not provided");
    }

    @Test
    void transactions() throws Exception {
        KV kv = client.getKVClient();
        get(kv.put(bytes("txn"), bytes("1")));
        var won = get(kv.txn()
            .If(new Cmp(bytes("txn"), Cmp.Op.EQUAL, CmpTarget.value(bytes("1"))))
            .Then(Op.put(bytes("txn"), bytes("2"), PutOption.DEFAULT), Op.get(bytes("txn"), GetOption.DEFAULT))
            .Else(Op.delete(bytes("txn"), DeleteOption.DEFAULT)).commit());
        assertTrue(won.isSucceeded());
        assertEquals("2", won.getGetResponses().get(0).getKvs().get(0).getValue().toString(UTF_8));
        var lost = get(kv.txn()
            .If(new Cmp(bytes("txn"), Cmp.Op.LESS, CmpTarget.version(1)))
            .Else(Op.get(bytes("txn"), GetOption.DEFAULT)).commit());
        assertFalse(lost.isSucceeded());
        refused(kv.txn().Then(Op.put(bytes("x"), bytes("1"), PutOption.DEFAULT), Op.put(bytes("x"), bytes("2"), PutOption.DEFAULT))
            .commit(), "duplicate key given in txn request");
    }

    @Test
    void leases() throws Exception {
        KV kv = client.getKVClient();
        var leases = client.getLeaseClient();
        long id = get(leases.grant(2)).getID();
        get(kv.put(bytes("leased"), bytes("x"), PutOption.builder().withLeaseId(id).build()));
        assertEquals(2, get(leases.keepAliveOnce(id)).getTTL());
        var times = get(leases.timeToLive(id, LeaseOption.builder().withAttachedKeys().build()));
        assertEquals(2, times.getGrantedTTL());
        assertEquals("leased", times.getKeys().get(0).toString(UTF_8));
        long deadline = System.nanoTime() + SECONDS.toNanos(10);
        while (get(kv.get(bytes("leased"))).getCount() > 0) {
            assertTrue(System.nanoTime() < deadline, "the lease does not expire");
            Thread.sleep(100);
        }
        assertEquals(-1, get(leases.timeToLive(id, LeaseOption.DEFAULT)).getTTL());
        long other = get(leases.grant(600)).getID();
        get(kv.put(bytes("leased"), bytes("x"), PutOption.builder().withLeaseId(other).build()));
        get(leases.revoke(other));
        assertEquals(0, get(kv.get(bytes("leased"))).getCount());
        refused(leases.revoke(other), "requested lease not found");
    }

    @Test
    void watches() throws Exception {
        KV kv = client.getKVClient();
        long first = get(kv.put(bytes("w"), bytes("0"))).getHeader().getRevision();
        get(kv.put(bytes("w"), bytes("1")));
        get(kv.delete(bytes("w")));
        BlockingQueue<WatchResponse> responses = new LinkedBlockingQueue<>();
        var options = WatchOption.builder().withRevision(first).withPrevKV(true).build();
        List<WatchEvent> events = new ArrayList<>();
        try (Watch.Watcher watcher = client.getWatchClient().watch(bytes("w"), options, responses::add)) {
            while (events.size() < 3) {
                events.addAll(responses.poll(10, SECONDS).getEvents());
            }
            assertEquals(WatchEvent.EventType.PUT, events.get(1).getEventType());
            assertEquals("0", events.get(1).getPrevKV().getValue().toString(UTF_8));
            assertEquals(WatchEvent.EventType.DELETE, events.get(2).getEventType());
            get(kv.put(bytes("w"), bytes("again")));
            assertEquals("again", responses.poll(10, SECONDS).getEvents().get(0).getKeyValue().getValue().toString(UTF_8));
        }
        get(kv.compact(first + 2, CompactOption.builder().withCompactPhysical(true).build()));
        CompletableFuture<Throwable> end = new CompletableFuture<>();
        var past = WatchOption.builder().withRevision(first).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(bytes("w"), past, response -> {}, end::complete)) {
            assertTrue(get(end).getMessage().contains("compacted"));
        }
        refused(kv.compact(first), "required revision has been compacted");
    }

    @Test
    void locksAndElections() throws Exception {
        var locks = client.getLockClient();
        long lease = get(client.getLeaseClient().grant(60)).getID();
        long other = get(client.getLeaseClient().grant(60)).getID();
        ByteSequence key = get(locks.lock(bytes("lock"), lease)).getKey();
        var waiting = locks.lock(bytes("lock"), other);
        assertThrows(TimeoutException.class, () -> waiting.get(1, SECONDS));
        get(locks.unlock(key));
        get(waiting);
        Election election = client.getElectionClient();
        CampaignResponse led = get(election.campaign(bytes("election"), lease, bytes("first")));
        assertEquals("first", get(election.leader(bytes("election"))).getKv().getValue().toString(UTF_8));
        get(election.proclaim(led.getLeader(), bytes("second")));
        assertEquals("second", get(election.leader(bytes("election"))).getKv().getValue().toString(UTF_8));
        get(election.resign(led.getLeader()));
        refused(election.leader(bytes("election")), "NoLeaderException");
    }

    @Test
    void maintenance() throws Exception {
        var maintenance = client.getMaintenanceClient();
        var status = get(maintenance.statusMember("http://" + System.getenv("ENDPOINT")));
        assertTrue(status.getVersion().startsWith("3.7."));
        assertTrue(status.getRaftIndex() > 0);
        assertTrue(get(maintenance.listAlarms()).getAlarms().isEmpty());
        assertEquals("interop", get(client.getClusterClient().listMember()).getMembers().get(0).getName());
        get(maintenance.defragmentMember("http://" + System.getenv("ENDPOINT")));
        ByteArrayOutputStream snapshot = new ByteArrayOutputStream();
        get(maintenance.snapshot(snapshot));
        assertEquals(32, snapshot.size() % 512);
    }
}
