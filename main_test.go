package tollgate_test

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }
