package main

import (
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"
)

const (
	pricePerWord = 200 // in millionths
	reply        = "Forty-two is the answer"
)

// cost writes millionths as a decimal number. No binary fraction is involved.
func cost(millionths int) string {
	return fmt.Sprintf("%d.%06d", millionths/1_000_000, millionths%1_000_000)
}

// answer knows its cost before it sends anything: a header is enough.
func answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Tollgate-Cost", cost(pricePerWord*len(strings.Fields(reply))))
	fmt.Fprintln(w, reply)
}

// stream knows its cost when it ends: a trailer, announced before the first byte.
func stream(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Trailer", "Tollgate-Cost")
	spent := 0
	for _, word := range strings.Fields(reply) {
		spent += pricePerWord
		if _, err := fmt.Fprintf(w, "data: %s\n\n", word); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
	w.Header().Set("Tollgate-Cost", cost(spent))
}

func main() {
	http.HandleFunc("/answer", answer)
	http.HandleFunc("/stream", stream)
	server := &http.Server{Addr: "127.0.0.1:3000", ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
