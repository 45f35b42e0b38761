package seriatim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// fakeNode appends to a slice, and ends streams. The conformance test has a better one; this one is for the race detector.
type fakeNode struct {
	seriatimv1.UnimplementedLogServiceServer
	// Every so many requests, the stream breaks: first before the request is done, then after. 0: never.
	breakAfter int
	// Closed when requests may be answered. nil: they may.
	gate chan struct{}

	mu       sync.Mutex
	requests int
	breaks   int
	last     uint64
	answers  map[uint64]*seriatimv1.ProduceResponse
	values   []string
}

func (f *fakeNode) GetServers(context.Context, *seriatimv1.GetServersRequest) (*seriatimv1.GetServersResponse, error) {
	return &seriatimv1.GetServersResponse{ClusterId: "c"}, nil
}

func (f *fakeNode) InitProducer(context.Context, *seriatimv1.InitProducerRequest) (*seriatimv1.InitProducerResponse, error) {
	return &seriatimv1.InitProducerResponse{Producer: &seriatimv1.Producer{LogId: "id", ProducerId: 1, Epoch: 1}}, nil
}

func (f *fakeNode) GetLog(context.Context, *seriatimv1.GetLogRequest) (*seriatimv1.GetLogResponse, error) {
	record, request := uint32(1<<20), uint32(4<<20)
	config := &seriatimv1.LogConfig{MaxRecordBytes: &record, MaxRequestBytes: &request}
	return &seriatimv1.GetLogResponse{Log: &seriatimv1.LogInfo{Config: config}}, nil
}

func (f *fakeNode) ProduceStream(stream seriatimv1.LogService_ProduceStreamServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if f.gate != nil {
			select {
			case <-f.gate:
			case <-stream.Context().Done():
				return nil
			}
		}
		answer, err := f.append(request)
		if err != nil {
			return err
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func (f *fakeNode) append(request *seriatimv1.ProduceRequest) (*seriatimv1.ProduceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	breaks := f.breakAfter > 0 && f.requests%f.breakAfter == 0
	if breaks {
		f.breaks++
	}
	if breaks && f.breaks%2 == 0 {
		return nil, status.Error(codes.Unavailable, "broken before")
	}
	answer := f.answers[request.Sequence]
	switch {
	case answer != nil:
		answer = &seriatimv1.ProduceResponse{Offset: answer.Offset, Count: answer.Count, Duplicate: true}
	case request.Sequence != f.last+1:
		return nil, status.Errorf(codes.FailedPrecondition, "sequence %d after %d", request.Sequence, f.last)
	default:
		answer = &seriatimv1.ProduceResponse{Offset: uint64(len(f.values)), Count: uint32(len(request.Records))}
		for _, record := range request.Records {
			f.values = append(f.values, string(record.Value))
		}
		f.last, f.answers[request.Sequence] = request.Sequence, answer
	}
	if breaks {
		return nil, status.Error(codes.Unavailable, "broken after")
	}
	return answer, nil
}

func start(t *testing.T, f *fakeNode, options ...Option) *Client {
	t.Helper()
	f.answers = map[uint64]*seriatimv1.ProduceResponse{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	seriatimv1.RegisterLogServiceServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	short := WithBackoff(time.Millisecond, 10*time.Millisecond)
	client, err := Dial([]string{listener.Addr().String()}, slices.Concat([]Option{WithLogger(quiet), short}, options)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestConcurrentAppendsAreDoneOnceAndInOrder(t *testing.T) {
	const callers, records = 32, 200
	f := &fakeNode{breakAfter: 7}
	client := start(t, f)
	ctx := context.Background()
	p, err := client.Producer(ctx, "l", ProducerOptions{BatchRecords: 20, BufferBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	offsets := make([][]uint64, callers)
	var group sync.WaitGroup
	for caller := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range records {
				ack, err := p.Append(ctx, Record{Value: fmt.Appendf(nil, "%d-%d", caller, i)})
				if err != nil {
					t.Errorf("caller %d: %v", caller, err)
					return
				}
				offsets[caller] = append(offsets[caller], ack.Offset)
			}
		}()
	}
	group.Wait()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.values) != callers*records || f.breaks == 0 {
		t.Fatalf("%d records after %d breaks", len(f.values), f.breaks)
	}
	for caller, list := range offsets {
		for i, offset := range list {
			if want := fmt.Sprintf("%d-%d", caller, i); f.values[offset] != want || i > 0 && offset <= list[i-1] {
				t.Fatalf("offset %d has %q, not %q", offset, f.values[offset], want)
			}
		}
	}
}

func TestSendWaitsForRoomUntilTheContextEnds(t *testing.T) {
	f := &fakeNode{gate: make(chan struct{})}
	client := start(t, f)
	ctx := context.Background()
	p, err := client.Producer(ctx, "l", ProducerOptions{BufferBytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	first := p.Send(ctx, Record{Value: bytes.Repeat([]byte("x"), 90)})
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = p.Send(short, Record{Value: []byte("no room")}).Wait(ctx)
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrTimeout || e.MayHaveBeenDone() {
		t.Errorf("%v", err)
	}
	if _, err := first.Wait(short); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(f.gate)
	if ack, err := p.Append(ctx, Record{Value: []byte("room")}); err != nil || ack.Offset != 1 {
		t.Errorf("%v, %v", ack, err)
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestCloseOfTheClientEndsItsProducers(t *testing.T) {
	f := &fakeNode{gate: make(chan struct{})}
	client := start(t, f)
	ctx := context.Background()
	p, err := client.Producer(ctx, "l", ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pending := p.Send(ctx, Record{})
	client.Close()
	if _, err := pending.Wait(ctx); err == nil {
		t.Error("it was acknowledged")
	}
	if _, err := p.Append(ctx, Record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	p.Close(ctx)
	if _, err := client.Producer(ctx, "l", ProducerOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

// writes passes log lines on.
type writes chan string

func (w writes) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}

func TestProducerThatIsDroppedWarnsAndEnds(t *testing.T) {
	lines := make(writes, 10)
	client := start(t, &fakeNode{}, WithLogger(slog.New(slog.NewTextHandler(lines, nil))))
	ctx := context.Background()
	core := func() *producer {
		p, err := client.Producer(ctx, "l", ProducerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Append(ctx, Record{}); err != nil {
			t.Fatal(err)
		}
		return p.core
	}()
	for tries := 0; ; tries++ {
		runtime.GC()
		select {
		case line := <-lines:
			if !strings.Contains(line, "dropped") {
				t.Errorf("%s", line)
			}
		case <-time.After(10 * time.Millisecond):
			if tries < 500 {
				continue
			}
			t.Fatal("no warning")
		}
		break
	}
	core.running.Wait()
}

func TestDialRefusesBadInput(t *testing.T) {
	for _, addrs := range [][]string{nil, {"host"}, {":8400"}, {"a:1", "b"}} {
		if _, err := Dial(addrs); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", addrs, err)
		}
	}
	for _, option := range []Option{
		WithTLS("missing.pem", "missing.pem", "missing.pem"), WithAttemptTimeout(0), WithBackoff(2, 1), WithBackoff(0, 1),
	} {
		if _, err := Dial([]string{"a:1"}, option); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}
