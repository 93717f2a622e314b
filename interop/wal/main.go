// Command wal reads and writes a log directory with etcd's own wal package, as the judge of ours.
//
//	wal DIR                      print what the log holds after the start, as JSON lines
//	wal -index I -term T DIR     start from that snapshot mark
//	wal -write N DIR             create a log with N entries, a snapshot mark and a hard state
//
// The first line is the owner, the second the hard state, then one line per entry.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Identity of the log that -write makes.
const (
	nodeID    = 0x1234567890abcdef
	clusterID = 0xfedcba0987654321
)

type owner struct {
	NodeID    uint64 `json:"node_id"`
	ClusterID uint64 `json:"cluster_id"`
}

type state struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

type entry struct {
	Type  int32  `json:"type"`
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
	Data  string `json:"data"` // hexadecimal
}

func main() {
	write := flag.Uint64("write", 0, "create a log with this many entries")
	segment := flag.Int64("segment-bytes", wal.SegmentSizeBytes, "size of a segment, for -write")
	index := flag.Uint64("index", 0, "index of the snapshot to start from")
	term := flag.Uint64("term", 0, "term of the snapshot to start from")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	wal.SegmentSizeBytes = *segment
	var err error
	if *write > 0 {
		err = create(flag.Arg(0), *write)
	} else {
		err = dump(flag.Arg(0), &walpb.Snapshot{Index: index, Term: term})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dump opens for writing, as a member does, and prints what it was given.
func dump(dir string, start *walpb.Snapshot) error {
	log, err := wal.Open(zap.NewNop(), dir, start)
	if err != nil {
		return err
	}
	metadata, hard, entries, err := log.ReadAll()
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	var identity etcdserverpb.Metadata
	if err := proto.Unmarshal(metadata, &identity); err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	err = errors.Join(
		lines.Encode(owner{identity.GetNodeID(), identity.GetClusterID()}),
		lines.Encode(state{hard.GetTerm(), hard.GetVote(), hard.GetCommit()}),
	)
	for _, e := range entries {
		line := entry{int32(e.GetType()), e.GetTerm(), e.GetIndex(), hex.EncodeToString(e.GetData())}
		err = errors.Join(err, lines.Encode(line))
	}
	return err
}

// create writes entry i with i bytes of data (at most 4000), in batches of ten, with a snapshot mark half-way.
func create(dir string, count uint64) error {
	identity := &etcdserverpb.Metadata{NodeID: proto.Uint64(nodeID), ClusterID: proto.Uint64(clusterID)}
	metadata, err := proto.Marshal(identity)
	if err != nil {
		return err
	}
	log, err := wal.Create(zap.NewNop(), dir, metadata)
	if err != nil {
		return err
	}
	var batch []*raftpb.Entry
	for i := uint64(1); i <= count; i++ {
		kind := raftpb.EntryNormal
		data := []byte(strings.Repeat("x", int(min(i, 4000))))
		batch = append(batch, &raftpb.Entry{Type: &kind, Term: proto.Uint64(2), Index: proto.Uint64(i), Data: data})
		if i%10 != 0 && i != count {
			continue
		}
		hard := &raftpb.HardState{Term: proto.Uint64(2), Vote: proto.Uint64(nodeID), Commit: proto.Uint64(i)}
		if err := log.Save(hard, batch); err != nil {
			return err
		}
		batch = nil
		if i/10 == count/20 {
			mark := &walpb.Snapshot{
				Index:     proto.Uint64(i),
				Term:      proto.Uint64(2),
				ConfState: &raftpb.ConfState{Voters: []uint64{nodeID}},
			}
			if err := log.SaveSnapshot(mark); err != nil {
				return err
			}
		}
	}
	return log.Close()
}
