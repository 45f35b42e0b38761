// Produces, consumes and tails: a client made from nothing but log.proto (logv1/ is generated, see clients/generate.sh).
//
//	go run . -addr 127.0.0.1:8400 -certs ../../certs
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "seriatim/clients/go/logv1"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8400", "client address of a node")
	certs := flag.String("certs", "certs", "folder made by `seriatim certs`")
	flag.Parse()
	if err := run(*addr, *certs); err != nil {
		log.Fatal(err)
	}
}

// connect makes a connection with mutual TLS, from the files that `seriatim certs` makes.
func connect(addr, certs, user string) (*grpc.ClientConn, error) {
	file := func(name string) string { return filepath.Join(certs, name) }
	pair, err := tls.LoadX509KeyPair(file("client-"+user+".pem"), file("client-"+user+"-key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.pem has no certificate")
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
	return grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

func run(addr, certs string) error {
	connection, err := connect(addr, certs, "root")
	if err != nil {
		return err
	}
	defer connection.Close()
	client := pb.NewLogClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	mine := rand.Text()

	// One record, and read at once.
	one := []byte("one " + mine)
	produced, err := client.Produce(ctx, &pb.ProduceRequest{Record: &pb.Record{Value: one}})
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	consumed, err := client.Consume(ctx, &pb.ConsumeRequest{Offset: produced.Offset})
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	if string(consumed.Record.Value) != string(one) || consumed.Record.Offset != produced.Offset {
		return fmt.Errorf("another record: %v", consumed.Record)
	}

	// A tail from there on, which sees what a stream of batches appends.
	tail, err := client.ConsumeStream(ctx, &pb.ConsumeRequest{Offset: produced.Offset, MaxRecords: 100})
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	expected := []string{string(one)}
	stream, err := client.ProduceStream(ctx)
	if err != nil {
		return fmt.Errorf("produce stream: %w", err)
	}
	for batch := range 10 {
		var records []*pb.Record
		for n := range 10 {
			value := fmt.Sprintf("%d %d %s", batch, n, mine)
			expected = append(expected, value)
			records = append(records, &pb.Record{Value: []byte(value)})
		}
		if err := stream.Send(&pb.ProduceRequest{Records: records}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for answers := 0; ; answers++ {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			if answers != 10 {
				return fmt.Errorf("%d answers to 10 requests", answers)
			}
			break
		} else if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}

	next := produced.Offset
	for found := 0; found < len(expected); {
		answer, err := tail.Recv()
		if err != nil {
			return fmt.Errorf("tail: %w", err)
		}
		for _, record := range answer.Records {
			if record.Offset != next {
				return fmt.Errorf("offset %d behind %d", record.Offset, next-1)
			}
			next++
			if !strings.HasSuffix(string(record.Value), mine) {
				continue
			}
			if string(record.Value) != expected[found] {
				return fmt.Errorf("%q instead of %q", record.Value, expected[found])
			}
			found++
		}
	}

	// Past the end is a clear error.
	_, err = client.Consume(ctx, &pb.ConsumeRequest{Offset: next + 1_000_000})
	if status.Code(err) != codes.OutOfRange {
		return fmt.Errorf("past the end: %v", err)
	}
	servers, err := client.GetServers(ctx, &pb.GetServersRequest{})
	if err != nil {
		return err
	}
	for _, server := range servers.Servers {
		if server.IsLeader {
			fmt.Printf("go: %d records produced, consumed and tailed; the leader is %s\n", len(expected), server.Id)
		}
	}
	return nil
}
