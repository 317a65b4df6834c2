// tls_client.go MODULE PORT CA: crypto/tls with an agent's key through crypto11 (cgo), TLS 1.3 and 1.2. The chain is
// read from the token, too: the agent's certificate and the intermediates. See docs/AGENTS.md.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/ThalesIgnite/crypto11"
)

func main() {
	module, port, ca := os.Args[1], os.Args[2], os.Args[3]
	token, err := crypto11.Configure(&crypto11.Config{Path: module, TokenLabel: "attestd", LoginNotSupported: true})
	if err != nil {
		fail(err)
	}
	defer token.Close()
	key, err := token.FindKeyPair(nil, []byte("agent"))
	if err != nil || key == nil {
		fail(fmt.Errorf("no key with the label agent: %v", err))
	}
	leaf, err := token.FindCertificate(nil, []byte("agent"), nil)
	if err != nil || leaf == nil {
		fail(fmt.Errorf("no certificate with the label agent: %v", err))
	}
	chain := [][]byte{leaf.Raw}
	if intermediate, _ := token.FindCertificate(nil, []byte("intermediate"), nil); intermediate != nil {
		chain = append(chain, intermediate.Raw)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		fail(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs:      roots,
			MinVersion:   version,
			MaxVersion:   version,
			Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key, Leaf: leaf}},
		}}}
		answer, err := client.Get("https://localhost:" + port + "/")
		if err != nil {
			fail(err)
		}
		answer.Body.Close()
		fmt.Printf("%d %#x\n", answer.StatusCode, answer.TLS.Version)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
