package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

const (
	// A request that fails is sent again, if the error allows it, until so much time has passed.
	callTimeout = 10 * time.Second
	// The pause if the error names none.
	defaultPause = 200 * time.Millisecond
)

// A tail may be silent for a while. Keepalive pings distinguish that from a dead node.
var pings = keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}

// nodes are the nodes of a cluster. Requests are sent to one of them.
type nodes struct {
	conns []*grpc.ClientConn
	now   int
	// How many nodes failed one after another.
	failed int
}

// connect uses the client certificate of a user, from a folder made by `seriatim certs`.
func connect(addrs []string, certs, user string) (*nodes, error) {
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
	n := &nodes{}
	for _, addr := range addrs {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(mutual), grpc.WithKeepaliveParams(pings),
			// Without this, each dial queries DNS for a TXT record, and waits if no DNS server responds.
			grpc.WithDisableServiceConfig())
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
		n.conns = append(n.conns, conn)
	}
	return n, nil
}

func (n *nodes) close() error {
	var failed []error
	for _, conn := range n.conns {
		failed = append(failed, conn.Close())
	}
	return errors.Join(failed...)
}

func (n *nodes) client() seriatimv1.LogServiceClient {
	return seriatimv1.NewLogServiceClient(n.conns[n.now])
}

// mayRepeat says whether the same request can be sent again before a time. Then it has paused, and chosen the node.
func (n *nodes) mayRepeat(err error, until time.Time, isRead bool) bool {
	failed, ok := status.FromError(err)
	if !ok {
		return false
	}
	f := failureOf(failed)
	pause := f.pause
	if pause == 0 {
		pause = defaultPause
	}
	switch {
	case f.retry == "elsewhere" || isRead && f.connectionBroke:
		n.now = (n.now + 1) % len(n.conns)
		n.failed++
		if n.failed%len(n.conns) != 0 {
			pause = 0 // Every node is asked once without a pause.
		}
	case f.retry != "same":
		return false
	}
	if time.Now().Add(pause).After(until) {
		return false
	}
	time.Sleep(pause)
	return true
}

// call sends a request with one response.
func call[Request, Response any](
	n *nodes, isRead bool, request *Request,
	method func(seriatimv1.LogServiceClient, context.Context, *Request, ...grpc.CallOption) (*Response, error),
) (*Response, error) {
	until := time.Now().Add(callTimeout)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for {
		response, err := method(n.client(), ctx, request)
		if err == nil || !n.mayRepeat(err, until, isRead) {
			return response, err
		}
	}
}
