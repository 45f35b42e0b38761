// A client of Seriatim: produces, consumes and tails on any node, over mutual TLS.
//
// Written against proto/seriatim/v1 only. Prints records as JSON, one per line, and bytes as UTF-8. README.md has examples.
package main

import (
	"bufio"
	"bytes"
	"cmp"
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

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

const usage = `client [--addr HOST:PORT,...] [--certs DIR] [--user NAME] [--log NAME] COMMAND
  produce [--key K] [--header NAME=VALUE]... [--type N] VALUE...   one batch: all or nothing
  pipe                                      each line of stdin is a record
  get OFFSET                                one record
  consume [--from FROM] [--max-records N]   the existing records. FROM: an offset, earliest (default) or latest
  tail [--from FROM] [--max-records N]      the same, then new records. N: per message; 0: the server decides
  servers                                   the members, and which leads the log
`

// client is one log, seen by one user.
type client struct {
	*nodes
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
	addrs := flags.String("addr", "localhost:8400", "nodes")
	certs := flags.String("certs", "certs", "contains ca.pem, client-USER.pem")
	user := flags.String("user", "root", "the user whose certificate to use")
	name := flags.String("log", "", "the log; empty: default")
	flags.Parse(args)
	if flags.NArg() == 0 {
		flags.Usage()
		os.Exit(2)
	}
	nodes, err := connect(strings.Split(*addrs, ","), *certs, *user)
	if err != nil {
		return err
	}
	defer nodes.close()
	c := &client{nodes, *name, json.NewEncoder(os.Stdout)}
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
	request := &seriatimv1.ProduceRequest{Log: c.name}
	var key []byte
	var headers []*seriatimv1.Header
	flags := newFlags("produce")
	flags.Func("key", "", func(text string) error {
		key = []byte(text) // Not nil, even if empty: an empty key is a key.
		return nil
	})
	flags.Func("header", "", func(text string) error {
		name, value, _ := strings.Cut(text, "=")
		headers = append(headers, &seriatimv1.Header{Name: name, Value: []byte(value)})
		return nil
	})
	kind := flags.Uint("type", 0, "")
	flags.Parse(args)
	for _, value := range flags.Args() {
		record := &seriatimv1.Record{Value: []byte(value), Type: uint32(*kind), Key: key, Headers: headers}
		request.Records = append(request.Records, record)
	}
	response, err := call(c.nodes, false, request, seriatimv1.LogServiceClient.Produce)
	if err != nil {
		return err
	}
	for i := range response.Count {
		fmt.Println(response.Offset + uint64(i))
	}
	return nil
}

// pipe sends each line as a record, without waiting for responses, and prints the offset of each.
//
// It sends nothing again: that needs the requests that have no response yet, and failed_request of the error.
func (c *client) pipe(input io.Reader) error {
	// Ends the sender below if the stream fails.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := c.client().ProduceStream(ctx)
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

func (c *client) sendLines(stream seriatimv1.LogService_ProduceStreamClient, lines *bufio.Reader) error {
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			record := &seriatimv1.Record{Value: bytes.TrimSuffix(line, []byte("\n"))}
			request := &seriatimv1.ProduceRequest{Log: c.name, Records: []*seriatimv1.Record{record}}
			if err := stream.Send(request); err != nil {
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
	request := &seriatimv1.ConsumeRequest{Log: c.name, Offset: offset, MaxRecords: 1}
	response, err := call(c.nodes, true, request, seriatimv1.LogServiceClient.Consume)
	if err != nil {
		return err
	}
	if len(response.Records) == 0 {
		return fmt.Errorf("there is no record at offset %d yet: it is the next one", offset)
	}
	return c.show(response.Records[0])
}

// consume prints the records from an offset (by default the first); tail then waits for more.
func (c *client) consume(command string, args []string) error {
	request := &seriatimv1.ConsumeRequest{
		Log: c.name, Start: seriatimv1.Start_START_EARLIEST, StopAtEnd: command == "consume",
	}
	flags := newFlags(command)
	flags.Func("from", "", func(text string) (err error) {
		switch text {
		case "earliest":
			request.Start = seriatimv1.Start_START_EARLIEST
		case "latest":
			request.Start = seriatimv1.Start_START_LATEST
		default:
			request.Start = seriatimv1.Start_START_OFFSET
			request.Offset, err = strconv.ParseUint(text, 10, 64)
		}
		return err
	})
	maxRecords := flags.Uint("max-records", 0, "")
	flags.Parse(args)
	request.MaxRecords = uint32(*maxRecords)
	var until time.Time
	for {
		answered, err := c.read(request)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if answered || until.IsZero() {
			until = time.Now().Add(callTimeout)
		}
		if !c.mayRepeat(err, until, true) {
			return err
		}
	}
}

// read prints the records of a stream until it ends, and changes the request so that it continues there. Returns whether
// there was any message.
func (c *client) read(request *seriatimv1.ConsumeRequest) (answered bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := c.client().ConsumeStream(ctx, request)
	if err != nil {
		return false, err
	}
	for message := 0; ; message++ {
		response, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		for _, record := range response.Records {
			if err := c.show(record); err != nil {
				return answered, err
			}
		}
		// Where to continue after an error. The first message has no records if there are none; it says this too.
		request.Start, request.Offset = seriatimv1.Start_START_OFFSET, response.ResumeOffset
		if request.LogId == nil {
			request.LogId = &response.LogId
		}
		// A node sends the first message before it has read anything: that is not a success yet.
		if message > 0 {
			answered, c.failed = true, 0
		}
	}
}

// servers prints the members of the cluster, and which of them leads the log.
func (c *client) servers() error {
	request := &seriatimv1.GetServersRequest{Log: cmp.Or(c.name, "default")}
	response, err := call(c.nodes, true, request, seriatimv1.LogServiceClient.GetServers)
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
func (c *client) show(record *seriatimv1.Record) error {
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

func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	return flags
}
