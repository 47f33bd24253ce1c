package deploy_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(manualtest.ReadFile(t, file)), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// container is one container of the Deployment, as far as the tests look.
type container struct {
	Name            string
	Ports           []struct{ Name string }
	SecurityContext struct {
		ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
		Capabilities           struct{ Drop []string }
	} `yaml:"securityContext"`
	StartupProbe   probe `yaml:"startupProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func kubernetesContainers(t *testing.T) (app, gateway container) {
	t.Helper()
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct{ Containers []container }
			}
		}
	}
	readYAML(t, "kubernetes/deployment.yaml", &deployment)
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 2 || containers[0].Name != "app" || containers[1].Name != "gateway" {
		t.Fatalf("got containers %+v, want app and gateway", containers)
	}
	return containers[0], containers[1]
}

func TestKubernetesServiceLeadsToTheGatewayOnly(t *testing.T) {
	app, gateway := kubernetesContainers(t)
	if len(app.Ports) != 0 || len(gateway.Ports) != 1 {
		t.Errorf("the application has ports %v, want none; the gateway has %v, want one", app.Ports, gateway.Ports)
	}
	var service struct {
		Spec struct {
			Ports []struct {
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	readYAML(t, "kubernetes/service.yaml", &service)
	if ports := service.Spec.Ports; len(ports) != 1 || ports[0].TargetPort != gateway.Ports[0].Name {
		t.Errorf("the Service leads to %+v, want the gateway's port only", ports)
	}
	var policy struct {
		Spec struct {
			Types   []string `yaml:"policyTypes"`
			Ingress []struct{ Ports []struct{ Port int } }
		}
	}
	readYAML(t, "kubernetes/networkpolicy.yaml", &policy)
	if in := policy.Spec.Ingress; len(in) != 1 || len(in[0].Ports) != 1 || in[0].Ports[0].Port != 8080 || policy.Spec.Types[0] != "Ingress" {
		t.Errorf("the NetworkPolicy is %+v, want one ingress port, 8080", policy)
	}
}

func TestKubernetesGatewayHasNoRights(t *testing.T) {
	_, gateway := kubernetesContainers(t)
	c := gateway.SecurityContext
	if !c.ReadOnlyRootFilesystem || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL" {
		t.Errorf("got %+v, want a read-only file system and no capabilities", c)
	}
}

// redisCommand is the shell command that starts Redis in compose.yaml.
func redisCommand(t *testing.T) string {
	t.Helper()
	var compose struct {
		Services map[string]struct{ Command []string }
	}
	readYAML(t, "container/compose.yaml", &compose)
	command := compose.Services["redis"].Command
	if len(command) != 1 {
		t.Fatalf("redis has command %q, want one argument of sh -c", command)
	}
	return strings.ReplaceAll(command[0], "$$", "$")
}

// TestContainerGatewayIsReadyWithTheRedisOfCompose runs Redis as compose.yaml does, and asks
// a gateway with the Caddyfile of the image at the paths of the probes.
func TestContainerGatewayIsReadyWithTheRedisOfCompose(t *testing.T) {
	manualtest.SetEnv(t)
	folder, address := t.TempDir(), porttest.Address()
	_, port, _ := strings.Cut(address, ":")
	script := strings.Replace(redisCommand(t), "dir /data\n", "dir "+folder+"\nport "+port+"\nbind 127.0.0.1\n", 1)
	redis := exec.Command("sh", "-c", script)
	redis.Stderr = os.Stderr
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		redis.Process.Kill()
		redis.Wait()
	})

	t.Setenv("REDIS_ADDRESS", address)
	server, handlers, err := gatewaytest.Provision(manualtest.ReadFile(t, "container/Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range handlers {
		defer h.Cleanup()
	}
	gateway := httptest.NewServer(server)
	defer gateway.Close()

	_, container := kubernetesContainers(t)
	wantStatus(t, gateway.URL+container.StartupProbe.HTTPGet.Path, http.StatusOK)
	wantStatus(t, gateway.URL+container.LivenessProbe.HTTPGet.Path, http.StatusOK)
	wantStatus(t, gateway.URL+container.ReadinessProbe.HTTPGet.Path, http.StatusOK)
	if _, err := os.Stat(filepath.Join(folder, "appendonlydir")); err != nil {
		t.Errorf("Redis does not keep sessions over a restart: %v", err)
	}

	if err := redis.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	redis.Wait()
	wantStatus(t, gateway.URL+container.LivenessProbe.HTTPGet.Path, http.StatusOK)
	wantStatus(t, gateway.URL+container.ReadinessProbe.HTTPGet.Path, http.StatusServiceUnavailable)
}

// wantStatus asks until the response has the status: Redis and its connections need a
// moment to start and to end.
func wantStatus(t *testing.T, url string, want int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got status %d, want %d", url, response.StatusCode, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestComposeRedisAllowsWhatTheManualSays(t *testing.T) {
	rights := find(t, "../examples/replicas/README.md", `(resetchannels .+)$`)
	if !strings.Contains(redisCommand(t), rights) {
		t.Errorf("compose.yaml does not give the Redis user the rights of examples/replicas: %s", rights)
	}
}
