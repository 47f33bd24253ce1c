package main

import (
	"fmt"
	"log"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-User-Id") // what to store; empty for nobody
		name, err := url.PathUnescape(r.Header.Get("X-User-Name"))
		if err != nil || !utf8.ValidString(name) {
			http.Error(w, "not from the gateway", http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodPost { // a call that costs the user money
			w.Header().Set("Tollgate-Balance", "changed")
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s is %s and has %s\n", id, name, r.Header.Get("X-User-Balance"))
	})
	server := &http.Server{Addr: "127.0.0.1:3000", ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
