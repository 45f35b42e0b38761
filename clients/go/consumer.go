package seriatim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

const (
	// A consumer reads ahead at most this much.
	maxReadAheadRecords = 10_000
	maxReadAheadBytes   = 4 << 20
	// What one response contains at most, unless a single record is larger.
	responseRecords = 1000
	responseBytes   = 1 << 20
	// minHeartbeat is the least that the server accepts.
	minHeartbeat = time.Second
)

// Start is where a consumer begins. The zero value is [Earliest].
type Start struct {
	start  seriatimv1.Start
	offset uint64
	time   uint64
	isSet  bool
}

// Earliest begins at the first record that exists.
func Earliest() Start { return Start{start: seriatimv1.Start_START_EARLIEST, isSet: true} }

// Latest begins after the last record.
func Latest() Start { return Start{start: seriatimv1.Start_START_LATEST, isSet: true} }

// AtOffset begins at an offset.
func AtOffset(offset uint64) Start {
	return Start{start: seriatimv1.Start_START_OFFSET, offset: offset, isSet: true}
}

// AtTime begins at the first record that was appended at or after a time.
func AtTime(t time.Time) Start {
	return Start{start: seriatimv1.Start_START_TIME, time: uint64(max(t.UnixMicro(), 0)), isSet: true}
}

// LastRecords begins n records before the end.
func LastRecords(n uint64) Start {
	return Start{start: seriatimv1.Start_START_LAST, offset: n, isSet: true}
}

// ConsumerOptions are the settings of a [Consumer]. A field that is 0 has its default.
type ConsumerOptions struct {
	// Where to begin; with a cursor, where a new cursor begins. By default at the earliest record.
	Start Start
	// The name of the cursor that stores the position. The consumer takes it over from another process.
	Cursor string
	// Commit the position by itself after this interval, and when the consumer is closed. Only records count after which the
	// application has asked for the next. 0: it does not. Only with a cursor.
	AutoCommit time.Duration
	// Continue after records that were trimmed. By default, the consumer fails with ErrTrimmed.
	SkipTrimmed bool
	// The time without records after which a node says that it is alive, by default 10 s, at least 1 s. Three of them without a
	// message mean that the connection is broken.
	Heartbeat time.Duration
	// How long to wait without any message from a node. By default, without an end.
	MaxSilence time.Duration
	// What people should know about this process, by default its host and number. Only with a cursor.
	Owner string
}

// Consumer reads one log. One goroutine at a time takes its records; the other methods may be called at the same time.
type Consumer struct {
	c       *Client
	options ConsumerOptions
	log     string
	// Ends when the consumer has failed or was closed.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// The epoch of the cursor.
	epoch uint64
	// Holds a value while a commit is in flight.
	committing chan struct{}

	// Used by the goroutine of read only.
	request seriatimv1.ConsumeRequest
	// Whether a record was received, so that the next offset is certain.
	isContiguous bool
	// The number of records that were trimmed before the next.
	skipped uint64

	mu sync.Mutex
	// Responses that the application has not taken, the first of them in part.
	chunks  []chunk
	records int
	bytes   int
	// The position after the last record that the application has taken, and after the last one whose successor it has asked for.
	taken, passed uint64
	// Whether these positions are known. A consumer without a cursor learns its position from the first response.
	hasPosition bool
	committed   uint64
	logID       string
	err         *Error
	lastError   *Error
	silence     *time.Timer

	// There are records, or an error.
	ready chan struct{}
	// There is room for more.
	room chan struct{}
	// Closed by Close.
	closing   chan struct{}
	closeOnce sync.Once
}

type chunk struct {
	records []*seriatimv1.Record
	skipped uint64
	bytes   int
}

// Consumer begins to read a log. Close it.
func (c *Client) Consumer(ctx context.Context, log string, options ConsumerOptions) (*Consumer, error) {
	switch {
	case options.AutoCommit < 0 || options.MaxSilence < 0 || options.Heartbeat < 0:
		return nil, invalid("an option of the consumer is negative: %+v", options)
	case options.AutoCommit > 0 && options.Cursor == "":
		return nil, invalid("AutoCommit needs a cursor")
	case options.Heartbeat > 0 && options.Heartbeat < minHeartbeat:
		return nil, invalid("the heartbeat of %v is below %v", options.Heartbeat, minHeartbeat)
	}
	if err := c.failure(); err != nil {
		return nil, err
	}
	orDefault(&options.Heartbeat, 10*time.Second)
	orDefault(&options.Owner, owner())
	if !options.Start.isSet {
		options.Start = Earliest()
	}
	n := &Consumer{
		c: c, options: options, log: log, committing: make(chan struct{}, 1),
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	n.request.Log, n.request.HeartbeatMs = log, uint32(options.Heartbeat.Milliseconds())
	n.request.MaxRecords, n.request.MaxBytes = responseRecords, responseBytes
	n.request.Start, n.request.Offset, n.request.StartTimeUs = options.Start.start, options.Start.offset, options.Start.time
	if options.Cursor != "" {
		if err := n.acquire(ctx); err != nil {
			return nil, err
		}
	}
	n.ctx, n.cancel = c.within(context.Background())
	if options.MaxSilence > 0 {
		n.silence = time.AfterFunc(options.MaxSilence, n.tooSilent)
	}
	n.running.Add(1)
	go n.read()
	if options.AutoCommit > 0 {
		n.running.Add(1)
		go n.commitRegularly()
	}
	return n, nil
}

// Records returns an iterator over the records, which waits for new ones. It ends with an error: of the context, in which case a new
// iterator continues, or of the consumer, which then stays the same. It continues where the last iterator has stopped.
func (n *Consumer) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			record, err := n.next(ctx)
			if err != nil {
				yield(Record{}, err)
				return
			}
			if !yield(record, nil) {
				return
			}
		}
	}
}

func (n *Consumer) next(ctx context.Context) (Record, *Error) {
	for {
		n.mu.Lock()
		n.passed = n.taken
		if ctx.Err() != nil {
			last := n.lastError
			n.mu.Unlock()
			return Record{}, ended(context.Cause(ctx), "no record yet", OutcomeNone, last)
		}
		if n.err != nil && n.err.closed {
			n.mu.Unlock()
			return Record{}, n.err
		}
		if len(n.chunks) > 0 {
			record := n.take()
			n.mu.Unlock()
			return record, nil
		}
		err := n.err
		n.mu.Unlock()
		if err != nil {
			return Record{}, err
		}
		select {
		case <-n.ready:
		case <-n.ctx.Done():
			// The goroutine of read leaves an error.
			n.running.Wait()
		case <-ctx.Done():
		}
	}
}

// take takes the next record. The caller holds mu.
func (n *Consumer) take() Record {
	first := &n.chunks[0]
	record := recordOf(first.records[0], first.skipped)
	first.records[0], first.skipped = nil, 0
	first.records = first.records[1:]
	n.taken, n.hasPosition = record.Offset+1, true
	n.records--
	if len(first.records) == 0 {
		n.bytes -= first.bytes
		n.chunks[0] = chunk{}
		n.chunks = n.chunks[1:]
		notify(n.room)
	}
	return record
}

func (n *Consumer) latestError() *Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lastError
}

// Close ends the consumer. With AutoCommit, it commits once more. Later calls do nothing.
func (n *Consumer) Close(ctx context.Context) error {
	var err *Error
	n.closeOnce.Do(func() {
		close(n.closing)
		n.end(closedError("the consumer"))
		n.running.Wait()
		if n.options.AutoCommit > 0 && n.mustCommit() {
			n.mu.Lock()
			failed := n.err
			n.mu.Unlock()
			if failed.closed {
				err = n.commit(ctx, n.passedPosition)
			}
		}
	})
	return asError(err)
}

// end makes all later calls fail.
func (n *Consumer) end(err *Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return
	}
	n.err = err
	if n.silence != nil {
		n.silence.Stop()
	}
	n.cancel()
}

func (n *Consumer) tooSilent() {
	last := n.latestError()
	if last == nil {
		last = noAnswer("no message", n.options.MaxSilence, OutcomeNone)
	}
	n.end(last)
}

// read keeps a stream open, until the consumer ends.
func (n *Consumer) read() {
	defer n.running.Done()
	r := n.c.route(n.log, false)
	// The nodes on which the next record is damaged.
	damagedAt := map[*node]bool{}
	for n.ctx.Err() == nil {
		cn, err := r.connect(n.ctx)
		if err == nil {
			before := n.request.Offset
			err = n.stream(cn, r)
			if n.request.Offset != before {
				clear(damagedAt)
			}
		}
		if n.ctx.Err() == nil {
			n.mu.Lock()
			n.lastError = err
			n.mu.Unlock()
			n.retry(r, cn, err, damagedAt)
		}
		if cn != nil {
			n.c.release(cn)
		}
	}
	if n.c.failure() != nil {
		n.end(n.c.failure())
	}
}

// retry prepares the next attempt, or ends the consumer.
func (n *Consumer) retry(r *route, cn *conn, err *Error, damagedAt map[*node]bool) {
	if err.Kind == ErrTrimmed && n.options.SkipTrimmed && n.skipTrimmed(err) {
		return
	}
	if err.Kind == ErrDataLoss && cn != nil {
		damagedAt[cn.node] = true
		isEverywhere := true
		for _, node := range n.c.all() {
			isEverywhere = isEverywhere && damagedAt[node]
		}
		if isEverywhere {
			n.end(err)
			return
		}
	}
	pause, again := r.failed(cn, err)
	if !again {
		n.end(err)
		return
	}
	sleep(n.ctx, pause)
}

// skipTrimmed continues at the first record that exists. It returns false if the error does not say where that is.
func (n *Consumer) skipTrimmed(err *Error) bool {
	first, ok := err.number("first_offset")
	if !ok || n.request.Start != seriatimv1.Start_START_OFFSET || uint64(first) <= n.request.Offset {
		return false
	}
	n.skipped += uint64(first) - n.request.Offset
	n.request.Offset = uint64(first)
	return true
}

// stream reads from a node until that fails.
func (n *Consumer) stream(cn *conn, r *route) *Error {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	// The first message is sent at once.
	limit := n.c.settings.attemptTimeout
	timer := time.AfterFunc(limit, cancel)
	defer timer.Stop()
	stream, err := seriatimv1.NewLogServiceClient(cn).ConsumeStream(ctx, &n.request)
	for message := 0; ; message++ {
		var response *seriatimv1.ConsumeResponse
		if err == nil {
			response, err = stream.Recv()
		}
		if isLate := !timer.Stop(); err != nil || isLate {
			return n.streamError(err, isLate, limit)
		}
		n.heard()
		if message == 0 {
			n.c.settings.logger.Debug("seriatim: consuming", "log", logName(n.log), "node", cn.node.addr)
		}
		// A node sends the first message before it has read anything.
		if message > 0 || len(response.Records) > 0 {
			r.succeeded()
		}
		if err := n.accept(response); err != nil {
			return err
		}
		if !n.waitForRoom() {
			return closedError("the consumer")
		}
		limit = 3 * n.options.Heartbeat
		timer.Reset(limit)
	}
}

func (n *Consumer) streamError(err error, isLate bool, limit time.Duration) *Error {
	if errors.Is(err, io.EOF) {
		return broken("the node has ended the stream", OutcomeNone)
	}
	e := errorOf(err, true)
	if e.answered {
		return e
	}
	if isLate {
		// The context of the stream has ended, also if this message was in time.
		return noAnswer("no message", limit, OutcomeNone)
	}
	if e.broken {
		// Nothing is done by reading.
		return e.withOutcome(OutcomeNone)
	}
	return e
}

// accept takes a message, and notes where to resume.
func (n *Consumer) accept(response *seriatimv1.ConsumeResponse) *Error {
	next, isCertain := n.request.Offset, n.isContiguous || n.request.Start == seriatimv1.Start_START_OFFSET
	bytes := 0
	for _, record := range response.Records {
		if isCertain && record.Offset != next {
			return bug("offset %d follows %d in log %q: report this as a bug", record.Offset, int64(next)-1, logName(n.log))
		}
		next, isCertain = record.Offset+1, true
		bytes += recordBytes(record)
	}
	if len(response.Records) > 0 {
		n.isContiguous = true
		if response.ResumeOffset != next {
			return bug("resume_offset is %d after record %d of log %q: report this as a bug", response.ResumeOffset, next-1, logName(n.log))
		}
	}
	n.request.Start, n.request.Offset, n.request.StartTimeUs = seriatimv1.Start_START_OFFSET, response.ResumeOffset, 0
	if n.request.LogId == nil {
		id := response.LogId
		n.request.LogId = &id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return n.err
	}
	if !n.hasPosition && len(response.Records) == 0 && len(n.chunks) == 0 {
		n.taken, n.passed, n.hasPosition = response.ResumeOffset, response.ResumeOffset, true
	}
	if len(response.Records) == 0 {
		return nil
	}
	n.chunks = append(n.chunks, chunk{response.Records, n.skipped, bytes})
	n.skipped = 0
	n.records += len(response.Records)
	n.bytes += bytes
	notify(n.ready)
	return nil
}

func bug(format string, args ...any) *Error {
	e := broken(fmt.Sprintf(format, args...), OutcomeNone)
	e.Code, e.Kind, e.Retry, e.broken = codes.Internal, ErrOther, RetryNo, false
	return e
}

// recordBytes is about what a record takes in memory.
func recordBytes(record *seriatimv1.Record) int {
	size := len(record.Value) + len(record.Key) + recordOverhead
	for _, header := range record.Headers {
		size += len(header.Name) + len(header.Value) + recordOverhead
	}
	return size
}

// waitForRoom waits until the next message fits. It returns false if the consumer has ended. Meanwhile nothing is read from the
// network, so silence means nothing.
func (n *Consumer) waitForRoom() bool {
	for isPaused := false; ; isPaused = true {
		n.mu.Lock()
		hasRoom := n.records <= maxReadAheadRecords-responseRecords && n.bytes <= maxReadAheadBytes-responseBytes
		if n.silence != nil && n.err == nil {
			if !hasRoom {
				n.silence.Stop()
			} else if isPaused {
				n.silence.Reset(n.options.MaxSilence)
			}
		}
		n.mu.Unlock()
		if hasRoom {
			return n.ctx.Err() == nil
		}
		select {
		case <-n.room:
		case <-n.ctx.Done():
			return false
		}
	}
}

// heard notes that a message was received.
func (n *Consumer) heard() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastError = nil
	if n.silence != nil && n.err == nil {
		n.silence.Reset(n.options.MaxSilence)
	}
}
