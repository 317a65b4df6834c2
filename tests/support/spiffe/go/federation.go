package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// How a bundle endpoint is believed: "web ROOTS-FILE" or "spiffe ID BUNDLE-FILE".
func believed(domain spiffeid.TrustDomain, how []string) federation.FetchOption {
	if how[0] == "web" && len(how) == 2 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(must(os.ReadFile(how[1]))) {
			ended(errors.New(how[1] + ": no certificates"))
		}
		return federation.WithWebPKIRoots(pool)
	}
	if how[0] == "spiffe" && len(how) == 3 {
		known := must(spiffebundle.Load(domain, how[2]))
		return federation.WithSPIFFEAuth(known.X509Bundle(), must(spiffeid.FromString(how[1])))
	}
	ended(fmt.Errorf("expected web ROOTS-FILE or spiffe ID BUNDLE-FILE, found %q", how))
	return nil
}

func showBundle(bundle *spiffebundle.Bundle) {
	kids := []string{}
	for kid := range bundle.JWTAuthorities() {
		kids = append(kids, kid)
	}
	sort.Strings(kids)
	l := line{"code": "OK", "domain": bundle.TrustDomain().String(), "serials": serials(bundle.X509Authorities()), "kids": kids}
	if sequence, ok := bundle.SequenceNumber(); ok {
		l["sequence"] = sequence
	}
	if hint, ok := bundle.RefreshHint(); ok {
		l["hint"] = int(hint.Seconds())
	}
	say(l)
}

func fetchBundle(ctx context.Context, domain spiffeid.TrustDomain, url string, how []string) {
	showBundle(must(federation.FetchBundle(ctx, domain, url, believed(domain, how))))
}

// Looks once a second, whatever the hint.
type watcher struct{}

func (watcher) NextRefresh(time.Duration) time.Duration { return time.Second }
func (watcher) OnUpdate(bundle *spiffebundle.Bundle)    { showBundle(bundle) }
func (watcher) OnError(err error)                       { say(line{"code": "error", "message": err.Error()}) }

func watchBundle(domain spiffeid.TrustDomain, url string, how []string) {
	ended(federation.WatchBundle(context.Background(), domain, url, watcher{}, believed(domain, how)))
}

// A bundle endpoint of profile https_spiffe, made of nothing but the Workload API: who it is by an X509Source, the bundle
// by a BundleSource.
func serveBundle(ctx context.Context, domain spiffeid.TrustDomain) {
	source := must(workloadapi.NewX509Source(ctx))
	bundles := must(workloadapi.NewBundleSource(ctx))
	handler := must(federation.NewHandler(domain, bundles))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	say(line{"port": listener.Addr().(*net.TCPAddr).Port})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 20 * time.Second}
	ended(server.Serve(tls.NewListener(listener, tlsconfig.TLSServerConfig(source))))
}
