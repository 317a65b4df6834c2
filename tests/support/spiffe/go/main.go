// A program that knows SPIFFE and nothing of attestd: go-spiffe v2's workloadapi, spiffetls/tlsconfig, jwtsvid and
// federation, at the Workload API that SPIFFE_ENDPOINT_SOCKET names. Answers are lines of JSON.
//
//	go-spiffe svid                     FetchX509SVID once
//	go-spiffe watch                    X509Source: a line at first and at each update
//	go-spiffe bundles                  FetchX509Bundles, FetchJWTBundles and a BundleSource
//	go-spiffe token AUDIENCE           JWTSource.FetchJWTSVID, judged by ValidateJWTSVID and by the JWTSource's own bundles
//	go-spiffe validate AUDIENCE TOKEN  ValidateJWTSVID
//	go-spiffe serve PEER-ID            mutual TLS by an X509Source: a line with the port, then one for each connection
//	go-spiffe call ADDRESS PEER-ID     the other end of it
//	go-spiffe fetch-bundle DOMAIN URL web ROOTS-FILE              federation.FetchBundle, without a Workload API
//	go-spiffe fetch-bundle DOMAIN URL spiffe ID BUNDLE-FILE
//	go-spiffe watch-bundle …           the same by WatchBundle: a line for each update or error
//	go-spiffe serve-bundle DOMAIN      a bundle endpoint with the agent's certificate: a line with the port
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

type line map[string]interface{}

func say(l line) {
	text, _ := json.Marshal(l)
	fmt.Println(string(text))
}

// The answer's code and message, where it came by gRPC; go-spiffe may have put words around it.
func ended(err error) {
	for one := err; one != nil; one = errors.Unwrap(one) {
		if got, ok := one.(interface{ GRPCStatus() *status.Status }); ok {
			say(line{"code": got.GRPCStatus().Code().String(), "message": got.GRPCStatus().Message()})
			os.Exit(0)
		}
	}
	say(line{"code": "error", "message": err.Error()})
	os.Exit(0)
}

func must[T any](value T, err error) T {
	if err != nil {
		ended(err)
	}
	return value
}

func serial(cert *x509.Certificate) string { return fmt.Sprintf("%x", cert.SerialNumber) }

// By go-spiffe's own judgement: that it verifies by the source's roots.
func showSVID(svid *x509svid.SVID, source *workloadapi.X509Source) {
	l := line{"id": svid.ID.String(), "serial": serial(svid.Certificates[0]), "chain": len(svid.Certificates),
		"minutes": int(svid.Certificates[0].NotAfter.Sub(svid.Certificates[0].NotBefore).Minutes())}
	if source != nil {
		id, _, err := x509svid.Verify(svid.Certificates, source)
		l["verified"] = err == nil && id == svid.ID
	}
	say(l)
}

func watch(ctx context.Context) {
	source := must(workloadapi.NewX509Source(ctx))
	defer source.Close()
	for {
		showSVID(must(source.GetX509SVID()), source)
		<-source.Updated()
	}
}

func bundles(ctx context.Context) {
	source := must(workloadapi.NewBundleSource(ctx))
	defer source.Close()
	x509 := must(workloadapi.FetchX509Bundles(ctx))
	jwt := must(workloadapi.FetchJWTBundles(ctx))
	for _, one := range x509.Bundles() {
		td := one.TrustDomain()
		both := must(source.GetBundleForTrustDomain(td))
		tokens := must(jwt.GetJWTBundleForTrustDomain(td))
		kids := []string{}
		for kid := range tokens.JWTAuthorities() {
			kids = append(kids, kid)
		}
		say(line{"domain": td.String(), "serials": serials(one.X509Authorities()), "kids": kids,
			"same": len(both.X509Authorities()) == len(one.X509Authorities()) && len(both.JWTAuthorities()) == len(kids)})
	}
}

func serials(certs []*x509.Certificate) []string {
	all := []string{}
	for _, one := range certs {
		all = append(all, serial(one))
	}
	return all
}

func token(ctx context.Context, audience string) {
	source := must(workloadapi.NewJWTSource(ctx))
	defer source.Close()
	svid := must(source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}))
	remote := must(workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), audience))
	local := must(jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{audience}))
	say(line{"code": "OK", "id": svid.ID.String(), "remote": remote.ID.String(), "local": local.ID.String(),
		"seconds": int(time.Until(svid.Expiry).Seconds()), "token": svid.Marshal()})
}

func serve(ctx context.Context, peer spiffeid.ID) {
	source := must(workloadapi.NewX509Source(ctx))
	defer source.Close()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer))
	say(line{"port": listener.Addr().(*net.TCPAddr).Port})
	for {
		plain := must(listener.Accept())
		func() {
			defer plain.Close()
			plain.SetDeadline(time.Now().Add(20 * time.Second))
			conn := tls.Server(plain, config)
			if err := conn.Handshake(); err != nil {
				say(line{"refused": err.Error()})
				return
			}
			id, _ := x509svid.IDFromCert(conn.ConnectionState().PeerCertificates[0])
			text, _ := bufio.NewReader(conn).ReadString('\n')
			fmt.Fprintf(conn, "to %s: %s", id, text)
			say(line{"served": id.String()})
			conn.Close()
		}()
	}
}

func call(ctx context.Context, address string, peer spiffeid.ID) {
	source := must(workloadapi.NewX509Source(ctx))
	defer source.Close()
	plain := must(net.Dial("tcp", address))
	plain.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(plain, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer)))
	if err := conn.Handshake(); err != nil {
		ended(err)
	}
	fmt.Fprintf(conn, "a trade\n")
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		ended(err) // TLS 1.3: a server says after its handshake that it refuses the client
	}
	say(line{"code": "OK", "answer": answer, "server": serial(conn.ConnectionState().PeerCertificates[0])})
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go-spiffe COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	args := os.Args[2:]
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch os.Args[1] + fmt.Sprint(len(args)) {
	case "svid0":
		showSVID(must(workloadapi.FetchX509SVID(ctx)), nil)
	case "watch0":
		watch(ctx)
	case "bundles0":
		bundles(ctx)
	case "token1":
		token(ctx, args[0])
	case "validate2":
		svid := must(workloadapi.ValidateJWTSVID(ctx, args[1], args[0]))
		say(line{"code": "OK", "id": svid.ID.String()})
	case "serve1":
		serve(ctx, spiffeid.RequireFromString(args[0]))
	case "call2":
		call(ctx, args[0], spiffeid.RequireFromString(args[1]))
	case "fetch-bundle4", "fetch-bundle5":
		fetchBundle(ctx, spiffeid.RequireTrustDomainFromString(args[0]), args[1], args[2:])
	case "watch-bundle4", "watch-bundle5":
		watchBundle(spiffeid.RequireTrustDomainFromString(args[0]), args[1], args[2:])
	case "serve-bundle1":
		serveBundle(ctx, spiffeid.RequireTrustDomainFromString(args[0]))
	default:
		fmt.Fprintf(os.Stderr, "go-spiffe: %q with %d arguments: see main.go\n", os.Args[1], len(args))
		os.Exit(2)
	}
}
