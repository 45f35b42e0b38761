package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// A tail may be silent for hours. Keepalive pings distinguish that from a dead node.
var pings = keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}

// connect dials with the client certificate of a user, from a folder made by `seriatim certs`.
func connect(addr, certs, user string) (*grpc.ClientConn, error) {
	ca, err := os.ReadFile(filepath.Join(certs, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate in ca.pem", certs)
	}
	files := filepath.Join(certs, "client-"+user)
	identity, err := tls.LoadX509KeyPair(files+".pem", files+"-key.pem")
	if err != nil {
		return nil, err
	}
	mutual := credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{identity}})
	return grpc.NewClient(addr, grpc.WithTransportCredentials(mutual), grpc.WithKeepaliveParams(pings),
		// Without this, each dial queries DNS for a TXT record, and waits if no DNS server responds.
		grpc.WithDisableServiceConfig())
}
