package redis

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
)

// startSentinel starts a single sentinel with short timeouts that watches a master.
func startSentinel(t *testing.T, master *redistest.Server, flags ...string) *redistest.Server {
	t.Helper()
	folder := t.TempDir()
	file := folder + "/sentinel.conf"
	os.WriteFile(file, []byte("sentinel monitor shop 127.0.0.1 "+strconv.Itoa(master.Port)+` 1
sentinel down-after-milliseconds shop 500
sentinel failover-timeout shop 2000
`), 0o600)
	return redistest.Start(t, append([]string{file, "--sentinel"}, flags...)...)
}

func TestRedisStoreFollowsASentinelFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port), "--replica-priority", "1")
	recordstest.Eventually(t, "the replica follows", func() bool {
		return strings.Contains(replica.Must("INFO", "replication"), "master_link_status:up")
	})
	// Redis has the user, and the sentinel does not.
	for _, server := range []*redistest.Server{master, replica} {
		server.Must("ACL", "SETUSER", "gateway", "on", ">secret", "~tollgate:*", "+@all")
	}
	sentinel := startSentinel(t, master)
	recordstest.Eventually(t, "the sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.Must("INFO", "sentinel"), "slaves=1")
	})
	block := "address " + sentinel.Address() + " 127.0.0.1:1\nsentinel shop\nusername gateway\npassword secret"
	here, there := storeFor(t, block), storeFor(t, block)
	s, value := recordstest.Keep(t, here, recordstest.FreshSession("12345"))
	recordstest.MustLoad(t, here, value)
	recordstest.MustLoad(t, there, value)
	recordstest.Eventually(t, "the replica has the session, too", func() bool {
		return replica.Must("EXISTS", defaultPrefix+redisSession+s.ID.Hash()) == "1"
	})

	master.Kill()
	recordstest.Eventually(t, "the new master is written to", func() bool {
		_, err := here.Save(t.Context(), s.Renewed(oauth.Tokens{Access: "access_2"}))
		return err == nil
	})
	recordstest.Eventually(t, "the new master is read from", func() bool {
		found, err := there.Load(t.Context(), value)
		return err == nil && found.Session != nil && found.Session.Tokens.Access == "access_2"
	})
	if _, err := storeFor(t, strings.Replace(block, "shop", "another", 1)).Create(t.Context(), recordstest.FreshSession("1")); err == nil {
		t.Error("a master that the sentinels do not know was written to")
	}
}

func TestSentinelsGetThePasswordIfTheyRequireIt(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--requirepass", "secret")
	sentinel := startSentinel(t, master, "--requirepass", "secret")
	block := "address " + sentinel.Address() + "\nsentinel shop\npassword "
	if err := keeps(t, storeFor(t, block+"secret")); err != nil {
		t.Error(err)
	}
	if err := keeps(t, storeFor(t, block+"wrong")); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// startCluster starts a cluster of three masters.
func startCluster(t *testing.T) []*redistest.Server {
	t.Helper()
	var nodes []*redistest.Server
	var buses []string
	for range 3 {
		bus := strconv.Itoa(porttest.Port())
		buses = append(buses, bus)
		nodes = append(nodes, redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", bus))
	}
	for i, node := range nodes {
		node.Must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(16384*i/3), strconv.Itoa(16384*(i+1)/3-1))
		// Every node is introduced to every other: gossip between them may take long.
		for j, other := range nodes {
			if other != node {
				node.Must("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.Port), buses[j])
			}
		}
	}
	for _, node := range nodes {
		waitForCluster(t, node)
	}
	return nodes
}

// waitForCluster waits until a node reports that the cluster is complete. The nodes send
// each other a message about once a second. On a busy machine a message may be lost.
func waitForCluster(t *testing.T, node *redistest.Server) {
	t.Helper()
	for range 600 {
		info := node.Must("CLUSTER", "INFO")
		if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_size:3") && strings.Contains(info, "cluster_known_nodes:3") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the cluster never became whole: %s", node.Must("CLUSTER", "INFO"))
}

func TestRedisStoreUsesAllNodesOfACluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	block := "address " + nodes[1].Address() + " 127.0.0.1:1\ncluster"
	here, there := storeFor(t, block), storeFor(t, block)
	for range 20 {
		s, value := recordstest.Keep(t, here, recordstest.FreshSession("12345"))
		if recordstest.MustLoad(t, there, value) == nil {
			t.Fatal("the other process does not find the session")
		}
		lock, ok, err := there.Records.TryLock(t.Context(), s.ID.Hash(), time.Minute)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := lock.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range nodes {
		if node.Must("DBSIZE") == "0" {
			t.Errorf("%s keeps nothing", node.Address())
		}
	}
	sessions, err := there.SessionsOf(t.Context(), "12345")
	if err != nil || len(sessions) != 20 {
		t.Fatalf("%d sessions, %v", len(sessions), err)
	}
	for _, s := range sessions {
		if ended, err := here.EndByName(t.Context(), s.Name, time.Time{}); !ended || err != nil {
			t.Fatal(ended, err)
		}
	}
	if err := here.Ready(t.Context()); err != nil {
		t.Error(err)
	}

	// After a slot has moved to another node, the store finds its keys there.
	probe := defaultPrefix + redisProbe
	slot := nodes[0].Must("CLUSTER", "KEYSLOT", probe)
	for _, to := range nodes {
		for _, node := range nodes {
			node.Command("DEL", probe) // the one that has it; the others say so
		}
		for _, node := range append([]*redistest.Server{to}, nodes...) {
			node.Must("CLUSTER", "SETSLOT", slot, "NODE", to.Must("CLUSTER", "MYID"))
		}
		if err := here.Records.Ready(t.Context()); err != nil {
			t.Errorf("after a slot has moved: %v", err)
		}
	}
}
