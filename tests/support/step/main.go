// A stock device-attest-01 client: step's own library for TPMs and attestation CAs, Go's ACME client, and the statement
// as step's command line writes it (fmt "tpm", members in whatever order Go's map has). It enrols an AK at the
// attestation CA, orders a certificate for the EK's identifier and checks what it gets.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/fxamacker/cbor/v2"
	"go.step.sm/crypto/tpm"
	"go.step.sm/crypto/tpm/attestation"
	"go.step.sm/crypto/tpm/storage"
	"golang.org/x/crypto/acme"
)

var (
	base      = flag.String("base", "", "the issuer's base URL")
	roots     = flag.String("roots", "", "its TLS root, PEM")
	device    = flag.String("device", "", "the TPM: a device or a socket")
	ticket    = flag.String("ticket", "", "file with kid and macKey")
	dir       = flag.String("dir", "", "folder for keys")
	algorithm = flag.String("key", "ECDSA", "ECDSA or RSA")
	chainOut  = flag.String("chain", "", "file for the certificate, DER")
)

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func preferred(eks []*tpm.EK) *tpm.EK {
	for _, ek := range eks {
		if _, ok := ek.Public().(*rsa.PublicKey); ok {
			return ek
		}
	}
	return eks[0]
}

func httpClient() *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(must(os.ReadFile(*roots))) {
		log.Fatal("no roots")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func account(ctx context.Context) *acme.Client {
	c := &acme.Client{
		Key:          must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		HTTPClient:   httpClient(),
		DirectoryURL: *base + "/directory",
	}
	var t struct{ Kid, MacKey string }
	check(json.Unmarshal(must(os.ReadFile(*ticket)), &t))
	mac := must(base64.RawURLEncoding.DecodeString(t.MacKey))
	must(c.Register(ctx, &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: t.Kid, Key: mac}},
		acme.AcceptTOS))
	return c
}

// statement is step's attestationStatement: alg is the certified key's, not the AK's.
func statement(ctx context.Context, key *tpm.Key, chain []*x509.Certificate) []byte {
	p := must(key.CertificationParameters(ctx))
	alg := int64(-7)
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		alg = -257
	}
	x5c := make([][]byte, len(chain))
	for i, c := range chain {
		x5c[i] = c.Raw
	}
	return must(cbor.Marshal(struct {
		Format       string                 `json:"fmt"`
		AttStatement map[string]interface{} `json:"attStmt,omitempty"`
	}{"tpm", map[string]interface{}{
		"ver": "2.0", "alg": alg, "x5c": x5c, "sig": p.CreateSignature, "certInfo": p.CreateAttestation,
		"pubArea": p.Public,
	}}))
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	t := must(tpm.New(tpm.WithStore(storage.NewDirstore(*dir)), tpm.WithDeviceName(*device)))
	ctx := tpm.NewContext(context.Background(), t)
	ek := preferred(must(t.GetEKs(ctx)))
	spki := must(x509.MarshalPKIXPublicKey(ek.Public()))
	digest := sha256.Sum256(spki)
	id := hex.EncodeToString(digest[:])

	ak := must(t.CreateAK(ctx, ""))
	ca := must(attestation.NewClient(*base+"/attestation-ca", attestation.WithRootsFile(*roots)))
	akChain := must(ca.Attest(ctx, t, ek, ak))
	check(ak.SetCertificateChain(ctx, akChain))
	// As step's hasValidIdentity: the AK certificate names the EK in a URI.
	want := must(ek.FingerprintURI()).String()
	found := false
	for _, u := range akChain[0].URIs {
		found = found || u.String() == want
	}
	if !found {
		log.Fatalf("no %s in the AK certificate", want)
	}
	fmt.Printf("AK certificate for %s\n", want)

	c := account(ctx)
	order := must(c.AuthorizeOrder(ctx, []acme.AuthzID{{Type: "permanent-identifier", Value: id}}))
	authz := must(c.GetAuthorization(ctx, order.AuthzURLs[0]))
	challenge := authz.Challenges[0]
	thumb := must(acme.JWKThumbprint(c.Key.Public()))
	nonce := sha256.Sum256([]byte(challenge.Token + "." + thumb))
	size := 256
	if *algorithm == "RSA" {
		size = 2048
	}
	key := must(t.AttestKey(ctx, ak.Name(), "", tpm.AttestKeyConfig{Algorithm: *algorithm, Size: size,
		QualifyingData: nonce[:]}))
	challenge.Payload = must(json.Marshal(map[string]string{
		"attObj": base64.RawURLEncoding.EncodeToString(statement(ctx, key, akChain))}))
	must(c.Accept(ctx, challenge))
	order = must(c.WaitOrder(ctx, order.URI))
	signer := must(key.Signer(ctx))
	csr := must(x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}, signer))
	chain, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	check(err)
	leaf := must(x509.ParseCertificate(chain[0]))
	if len(leaf.URIs)+len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 ||
		len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		log.Fatalf("the certificate says more than it may: %v %v", leaf.URIs, leaf.ExtKeyUsage)
	}
	check(os.WriteFile(*chainOut, chain[0], 0o600))
	fmt.Printf("certificate for %s (%s)\n", id, *algorithm)
}
