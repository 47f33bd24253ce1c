package browser

import (
	"fmt"
	"strings"
	"testing"
)

func TestMemoryForDestinationsIsBounded(t *testing.T) {
	d := NewDestinations()
	defer d.Close()
	path := "/" + strings.Repeat("a", 6143)
	for i := range 20_000 {
		d.Remember(fmt.Sprint(i), Destination{ReturnPath: path})
	}
	d.paths.CleanUp()
	if got := d.paths.WeightedSize(); got > maxDestinationBytes || got == 0 {
		t.Errorf("got %d bytes of destinations, want 1 to %d", got, maxDestinationBytes)
	}
}
