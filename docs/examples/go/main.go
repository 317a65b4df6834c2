// Signs with the agent's key, and speaks mutual TLS with it, without cgo: the key stays where it is.
//
//	sign FILE > FILE.sig         the signature; the chain, PEM, goes to FILE.chain.pem
//	sign --watch                 a line for each certificate from now on
//	sign --serve ADDR PEER-ID    answers "hello" to who has this SPIFFE ID
//	sign --connect ADDR PEER-ID  reads that
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"attest.example/sign/signerpb"
)

const timeout = 20 * time.Second

// A crypto.Signer whose key is the agent's of one chain.
type agentKey struct {
	client signerpb.SignerClient
	keyID  string
	public crypto.PublicKey
}

func (k *agentKey) Public() crypto.PublicKey { return k.public }

func (k *agentKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm := signerpb.Algorithm_ALGORITHM_ECDSA
	if _, ok := k.public.(*rsa.PublicKey); ok {
		algorithm = signerpb.Algorithm_ALGORITHM_RSA_PKCS1
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != len(digest) {
				return nil, errors.New("PSS: the salt is as long as the digest here")
			}
			algorithm = signerpb.Algorithm_ALGORITHM_RSA_PSS
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := k.client.Sign(ctx, &signerpb.SignRequest{Algorithm: algorithm, Digest: digest, KeyId: k.keyID})
	if err != nil {
		return nil, err
	}
	return answer.Signature, nil
}

// What is in force, ready for crypto/tls.
type identity struct {
	certificate tls.Certificate
	roots       *x509.CertPool
}

func identityOf(client signerpb.SignerClient, chain *signerpb.ChainResponse) (*identity, error) {
	if len(chain.Chain) == 0 {
		return nil, errors.New("an empty chain")
	}
	leaf, err := x509.ParseCertificate(chain.Chain[0])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, der := range chain.Bundle {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		roots.AddCert(root)
	}
	switch leaf.PublicKey.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
	default:
		return nil, fmt.Errorf("a key of type %T", leaf.PublicKey)
	}
	key := &agentKey{client, chain.KeyId, leaf.PublicKey}
	return &identity{tls.Certificate{Certificate: chain.Chain, PrivateKey: key, Leaf: leaf}, roots}, nil
}

func signFile(client signerpb.SignerClient, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	chain, err := client.Chain(ctx, &signerpb.ChainRequest{})
	if err != nil {
		return err
	}
	id, err := identityOf(client, chain)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(text)
	signature, err := id.certificate.PrivateKey.(crypto.Signer).Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	var out []byte
	for _, der := range chain.Chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(path+".chain.pem", out, 0o644); err != nil {
		return err
	}
	_, err = os.Stdout.Write(signature)
	return err
}

// Calls back for each state until the stream ends.
func watch(client signerpb.SignerClient, each func(*signerpb.ChainResponse) error) error {
	stream, err := client.Watch(context.Background(), &signerpb.ChainRequest{})
	if err != nil {
		return err
	}
	for {
		chain, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := each(chain); err != nil {
			return err
		}
	}
}

// A configuration that has, for each connection, the certificate and the roots in force then. peer: whose SPIFFE ID alone is
// taken. SPIFFE certificates have no host name, so the chain is verified here and not by the name.
func tlsConfig(now *atomic.Pointer[identity], peer string) *tls.Config {
	verify := func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		intermediates := x509.NewCertPool()
		for _, one := range state.PeerCertificates[1:] {
			intermediates.AddCert(one)
		}
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: now.Load().roots, Intermediates: intermediates,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return err
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != peer {
			return fmt.Errorf("the peer is %v, expected %s", leaf.URIs, peer)
		}
		return nil
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // by VerifyConnection
		VerifyConnection:       verify,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &now.Load().certificate, nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &now.Load().certificate, nil
		},
	}
}

// Keeps now what is in force; returns when the first is there.
func follow(client signerpb.SignerClient) (*atomic.Pointer[identity], error) {
	now := &atomic.Pointer[identity]{}
	first := make(chan error, 1)
	go func() {
		err := watch(client, func(chain *signerpb.ChainResponse) error {
			id, err := identityOf(client, chain)
			if err == nil && now.Swap(id) == nil {
				first <- nil
			}
			return err
		})
		if now.Load() == nil {
			first <- err
			return
		}
		fmt.Fprintln(os.Stderr, "watch:", err) // a real program begins again, after a pause
		os.Exit(1)
	}()
	return now, <-first
}

func serve(now *atomic.Pointer[identity], address, peer string) error {
	listener, err := tls.Listen("tcp", address, tlsConfig(now, peer))
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, "hello\n"); err != nil { // the handshake comes first
				fmt.Fprintln(os.Stderr, "refused:", err)
			}
		}()
	}
}

func connect(now *atomic.Pointer[identity], address, peer string) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", address, tlsConfig(now, peer))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

func run(args []string) error {
	socket := os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	if socket == "" {
		socket = "unix:///run/attestd/public/api.sock"
	}
	conn, err := grpc.Dial(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := signerpb.NewSignerClient(conn)
	switch {
	case len(args) == 1 && args[0] == "--watch":
		return watch(client, func(chain *signerpb.ChainResponse) error {
			_, err := fmt.Println(chain.SpiffeId, "key", chain.KeyId, "in", chain.KeyStore, "until", chain.NotAfter)
			return err
		})
	case len(args) == 1:
		return signFile(client, args[0])
	case len(args) == 3 && (args[0] == "--serve" || args[0] == "--connect"):
		now, err := follow(client)
		if err != nil {
			return err
		}
		if args[0] == "--serve" {
			return serve(now, args[1], args[2])
		}
		return connect(now, args[1], args[2])
	}
	return errors.New("usage: sign FILE > FILE.sig | sign --watch | sign --serve|--connect ADDR PEER-ID")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
