// A file by net/http, as a Go server would do it: serve METHOD file TO SOURCE OFFSET BYTES FOLDER. TO is http or https.
// Says how many bytes of the body arrived and their Adler-32.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/adler32"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// counted is what logging and metrics wrap around a ResponseWriter: by embedding it loses ReadFrom.
type counted struct{ http.ResponseWriter }

// certificate is made anew each time and trusted by nobody else.
func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	until := time.Now().Add(time.Hour)
	form := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	made, err := x509.CreateCertificate(rand.Reader, &form, &form, &key.PublicKey, key)
	check(err)
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

func main() {
	method, to, path := os.Args[1], os.Args[3], os.Args[4]
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		switch method {
		case "serve_file":
			http.ServeFile(answer, request, path)
		case "file_server":
			http.FileServer(http.Dir(filepath.Dir(path))).ServeHTTP(answer, request)
		case "serve_content":
			file, err := os.Open(path)
			check(err)
			defer file.Close()
			http.ServeContent(answer, request, "", time.Time{}, file)
		case "wrapped_answer":
			http.ServeFile(counted{answer}, request, path)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	address := listener.Addr().String()
	client := &http.Client{}
	if to == "https" {
		own := certificate()
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{own}})
		leaf, err := x509.ParseCertificate(own.Certificate[0])
		check(err)
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener)
	answer, err := client.Get(to + "://" + address + "/" + filepath.Base(path))
	check(err)
	sum := adler32.New()
	bytes, err := io.Copy(sum, answer.Body)
	check(err)
	fmt.Println("arrived", bytes, sum.Sum32())
}
