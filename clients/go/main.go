// A client of Seriatim: produces, consumes and tails on any node, over mutual TLS.
//
// Written against log.proto only. Prints records as JSON, one per line, and bytes as UTF-8. README.md has examples.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"seriatim/clients/go/logv1"
)

const callTimeout = 10 * time.Second

const usage = `client [--addr HOST:PORT] [--certs DIR] [--user NAME] [--log NAME] COMMAND
  produce [--key K] [--header NAME=VALUE]... [--type N] VALUE...   one batch: all or nothing
  pipe                                  each line of stdin is a record
  get OFFSET                            one record
  consume [--from OFFSET] [--max-records N]   the existing records; N 0: single records
  tail [--from OFFSET] [--max-records N]      the same, then new records
  servers                               the members, and which leads the log
`

// client is one log, seen by one user through one node.
type client struct {
	logv1.LogClient
	name string
	out  *json.Encoder
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", describe(err))
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := newFlags("client")
	addr := flags.String("addr", "localhost:8400", "any node")
	certs := flags.String("certs", "certs", "contains ca.pem, client-USER.pem")
	user := flags.String("user", "root", "the user whose certificate to use")
	name := flags.String("log", "", "the log; empty: default")
	flags.Parse(args)
	if flags.NArg() == 0 {
		flags.Usage()
		os.Exit(2)
	}
	conn, err := connect(*addr, *certs, *user)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &client{logv1.NewLogClient(conn), *name, json.NewEncoder(os.Stdout)}
	command, args := flags.Arg(0), flags.Args()[1:]
	switch command {
	case "produce":
		return c.produce(args)
	case "pipe":
		return c.pipe(os.Stdin)
	case "get":
		return c.get(args)
	case "consume", "tail":
		return c.consume(command, args)
	case "servers":
		return c.servers()
	default:
		return fmt.Errorf("there is no command %q", command)
	}
}

// produce appends its values as one batch and prints the offset of each.
func (c *client) produce(args []string) error {
	request := &logv1.ProduceRequest{Log: c.name}
	var key []byte
	var headers []*logv1.Header
	flags := newFlags("produce")
	flags.Func("key", "", func(text string) error {
		key = []byte(text) // Not nil, even if empty: an empty key is a key.
		return nil
	})
	flags.Func("header", "", func(text string) error {
		name, value, _ := strings.Cut(text, "=")
		headers = append(headers, &logv1.Header{Name: name, Value: []byte(value)})
		return nil
	})
	kind := flags.Uint("type", 0, "")
	flags.Parse(args)
	for _, value := range flags.Args() {
		record := &logv1.Record{Value: []byte(value), Type: uint32(*kind), Key: key, Headers: headers}
		request.Records = append(request.Records, record)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := c.Produce(ctx, request)
	if err != nil {
		return err
	}
	for i := range response.Count {
		fmt.Println(response.Offset + uint64(i))
	}
	return nil
}

// pipe sends each line as a record, without waiting for responses, and prints the offset of each.
func (c *client) pipe(input io.Reader) error {
	// Ends the sender below if the stream fails.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := c.ProduceStream(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- c.sendLines(stream, bufio.NewReader(input)) }()
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return <-sent
		}
		if err != nil {
			return err
		}
		fmt.Println(response.Offset)
	}
}

func (c *client) sendLines(stream logv1.Log_ProduceStreamClient, lines *bufio.Reader) error {
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			record := &logv1.Record{Value: bytes.TrimSuffix(line, []byte("\n"))}
			if err := stream.Send(&logv1.ProduceRequest{Log: c.name, Record: record}); err != nil {
				return err // Says only that the stream has ended; Recv returns the reason.
			}
		}
		if err != nil {
			closed := stream.CloseSend()
			if errors.Is(err, io.EOF) {
				return closed
			}
			return err
		}
	}
}

// get prints one record.
func (c *client) get(args []string) error {
	if len(args) != 1 {
		return errors.New("get takes one offset")
	}
	offset, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := c.Consume(ctx, &logv1.ConsumeRequest{Log: c.name, Offset: offset})
	if err != nil {
		return err
	}
	return c.show(response.Record)
}

// consume prints the records from an offset (by default the first); tail then waits for more.
func (c *client) consume(command string, args []string) error {
	request := &logv1.ConsumeRequest{Log: c.name, Start: logv1.Start_START_EARLIEST, StopAtEnd: command == "consume"}
	flags := newFlags(command)
	flags.Func("from", "", func(text string) (err error) {
		request.Start = logv1.Start_START_OFFSET
		request.Offset, err = strconv.ParseUint(text, 10, 64)
		return err
	})
	maxRecords := flags.Uint("max-records", 1000, "")
	flags.Parse(args)
	request.MaxRecords = uint32(*maxRecords)
	stream, err := c.ConsumeStream(context.Background(), request)
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		records := response.Records
		if request.MaxRecords == 0 {
			records = []*logv1.Record{response.Record} // One per message, in another field.
		}
		for _, record := range records {
			if err := c.show(record); err != nil {
				return err
			}
		}
	}
}

// servers prints the members of the cluster, and which of them leads the log.
func (c *client) servers() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := c.GetServers(ctx, &logv1.GetServersRequest{Log: c.name})
	if err != nil {
		return err
	}
	for _, server := range response.Servers {
		line := struct {
			ID      string `json:"id"`
			RPCAddr string `json:"rpc_addr"`
			Leader  bool   `json:"leader"`
			Voter   bool   `json:"voter"`
		}{server.Id, server.RpcAddr, server.IsLeader, server.IsVoter}
		if err := c.out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// show prints a record.
func (c *client) show(record *logv1.Record) error {
	line := struct {
		Offset       uint64      `json:"offset"`
		Value        string      `json:"value"`
		Type         uint32      `json:"type"`
		Key          *string     `json:"key"` // An absent key differs from an empty one.
		Headers      [][2]string `json:"headers"`
		Term         uint64      `json:"term"`
		AppendTimeUs uint64      `json:"append_time_us"`
	}{record.Offset, string(record.Value), record.Type, nil, [][2]string{}, record.Term, record.AppendTimeUs}
	if record.Key != nil {
		key := string(record.Key)
		line.Key = &key
	}
	for _, header := range record.Headers {
		line.Headers = append(line.Headers, [2]string{header.Name, string(header.Value)})
	}
	return c.out.Encode(line)
}

// describe returns `CODE (REASON): message {metadata}`; the reason is that of ErrorInfo, which never changes.
func describe(err error) string {
	failed, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	name := code.Code(failed.Code()).String()
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			metadata := ""
			if len(info.Metadata) > 0 {
				metadata = fmt.Sprintf(" %v", info.Metadata)
			}
			return fmt.Sprintf("%s (%s): %s%s", name, info.Reason, failed.Message(), metadata)
		}
	}
	return fmt.Sprintf("%s: %s", name, failed.Message())
}

func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	return flags
}
