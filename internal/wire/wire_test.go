package wire_test

import (
	"bytes"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// FuzzReader: no input makes a read panic, and Done is true only if the last text ends
// where the input ends.
func FuzzReader(f *testing.F) {
	f.Add(wire.AppendText([]byte{1, 2, 3}, "text"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{1, 0, 0, 9, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		first, number, signed, text := r.Byte(), r.Uvarint(), r.Varint(), r.Text()
		if !r.Done() {
			return
		}
		if len(text) >= len(b) || !bytes.HasSuffix(b, []byte(text)) || b[0] != first {
			t.Fatalf("%x: got %x, %d, %d, %q", b, first, number, signed, text)
		}
	})
}

func TestReaderReturnsZeroAfterTheFirstFailure(t *testing.T) {
	r := wire.NewReader([]byte{5, 'a', 'b'}) // a text of five bytes, and only two are there
	if got := r.Text(); got != "" {
		t.Errorf("Text: got %q, want nothing", got)
	}
	if got := r.Byte(); got != 0 || r.Done() {
		t.Errorf("Byte after a failure: got %d, done %v, want 0, false", got, r.Done())
	}
}

func TestReaderReadsWhatAppendTextWrote(t *testing.T) {
	for _, want := range []string{"", "a", string(bytes.Repeat([]byte{0}, 300))} {
		r := wire.NewReader(wire.AppendText(nil, want))
		if got := r.Text(); got != want || !r.Done() {
			t.Errorf("got %q, done %v, want %q", got, r.Done(), want)
		}
	}
}
