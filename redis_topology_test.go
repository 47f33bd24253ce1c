package tollgate

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/stores/redis"
)

// startSentinel starts a sentinel that watches a master by itself, and is quick about it.
func startSentinel(t *testing.T, master *redisServer, flags ...string) *redisServer {
	t.Helper()
	folder := t.TempDir()
	file := folder + "/sentinel.conf"
	os.WriteFile(file, []byte("sentinel monitor shop 127.0.0.1 "+strconv.Itoa(master.port)+` 1
sentinel down-after-milliseconds shop 500
sentinel failover-timeout shop 2000
`), 0o600)
	return startRedis(t, append([]string{file, "--sentinel"}, flags...)...)
}

func TestTheRedisStoreFollowsAFailoverOfSentinel(t *testing.T) {
	t.Parallel()
	master := startRedis(t, "--repl-diskless-sync-delay", "0")
	replica := startRedis(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.port), "--replica-priority", "1")
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(replica.must("INFO", "replication"), "master_link_status:up")
	})
	// The sentinels know nothing of the user, and Redis does.
	for _, server := range []*redisServer{master, replica} {
		server.must("ACL", "SETUSER", "gateway", "on", ">secret", "~tollgate:*", "+@all")
	}
	sentinel := startSentinel(t, master)
	eventually(t, "the sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.must("INFO", "sentinel"), "slaves=1")
	})
	block := "address " + sentinel.address() + " 127.0.0.1:1\nsentinel shop\nusername gateway\npassword secret"
	here, there := redisStoreFor(t, block), redisStoreFor(t, block)
	s, value := keepInStore(t, here, freshSession("12345"))
	mustLoad(t, here, value)
	mustLoad(t, there, value)
	eventually(t, "the replica has the session, too", func() bool {
		return replica.must("EXISTS", redis.DefaultRedisPrefix+redis.RedisSession+s.ID.Hash()) == "1"
	})

	master.kill()
	eventually(t, "the new master is written to", func() bool {
		_, err := here.Save(t.Context(), s.Renewed(oauth.Tokens{Access: "access_2"}))
		return err == nil
	})
	eventually(t, "the new master is read from", func() bool {
		found, err := there.Load(t.Context(), value)
		return err == nil && found.Session != nil && found.Session.Tokens.Access == "access_2"
	})
	if _, err := redisStoreFor(t, strings.Replace(block, "shop", "another", 1)).Create(t.Context(), freshSession("1")); err == nil {
		t.Error("a master that the sentinels do not know was written to")
	}
}

func TestSentinelsAreAskedWithThePasswordThatTheyWant(t *testing.T) {
	t.Parallel()
	master := startRedis(t, "--requirepass", "secret")
	sentinel := startSentinel(t, master, "--requirepass", "secret")
	block := "address " + sentinel.address() + "\nsentinel shop\npassword "
	if err := keeps(t, redisStoreFor(t, block+"secret")); err != nil {
		t.Error(err)
	}
	if err := keeps(t, redisStoreFor(t, block+"wrong")); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// startCluster starts a cluster of three masters.
func startCluster(t *testing.T) []*redisServer {
	t.Helper()
	var nodes []*redisServer
	var buses []string
	for range 3 {
		bus := strconv.Itoa(freePort())
		buses = append(buses, bus)
		nodes = append(nodes, startRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus))
	}
	for i, node := range nodes {
		node.must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(16384*i/3), strconv.Itoa(16384*(i+1)/3-1))
		// Each is told of each: what they would tell one another comes when it comes.
		for j, other := range nodes {
			if other != node {
				node.must("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port), buses[j])
			}
		}
	}
	for _, node := range nodes {
		waitForCluster(t, node)
	}
	return nodes
}

// waitForCluster waits until a node takes the cluster for whole. The nodes talk to each
// other once a second or so, and on a busy machine a word may be lost.
func waitForCluster(t *testing.T, node *redisServer) {
	t.Helper()
	for range 600 {
		info := node.must("CLUSTER", "INFO")
		if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_size:3") && strings.Contains(info, "cluster_known_nodes:3") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the cluster never became whole: %s", node.must("CLUSTER", "INFO"))
}

func TestTheRedisStoreUsesAWholeCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	block := "address " + nodes[1].address() + " 127.0.0.1:1\ncluster"
	here, there := redisStoreFor(t, block), redisStoreFor(t, block)
	for range 20 {
		s, value := keepInStore(t, here, freshSession("12345"))
		if mustLoad(t, there, value) == nil {
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
		if node.must("DBSIZE") == "0" {
			t.Errorf("%s keeps nothing", node.address())
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

	// A slot that has moved to another node is looked for there.
	probe := redis.DefaultRedisPrefix + redis.RedisProbe
	slot := nodes[0].must("CLUSTER", "KEYSLOT", probe)
	for _, to := range nodes {
		for _, node := range nodes {
			node.command("DEL", probe) // the one that has it; the others say so
		}
		for _, node := range append([]*redisServer{to}, nodes...) {
			node.must("CLUSTER", "SETSLOT", slot, "NODE", to.must("CLUSTER", "MYID"))
		}
		if err := here.Records.Ready(t.Context()); err != nil {
			t.Errorf("after a slot has moved: %v", err)
		}
	}
}
