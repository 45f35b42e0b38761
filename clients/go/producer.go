package seriatim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// limitsInterval is the least time between two readings of the limits of the log, before a record is refused by them.
const limitsInterval = time.Second

// ProducerOptions are the settings of a [Producer]. A field that is 0 has its default.
type ProducerOptions struct {
	// A named producer continues after the last request of the process before it, which it fences.
	Name string
	// A request has at most this many records, by default 1,000, and bytes, by default 512 KiB.
	BatchRecords int
	BatchBytes   int
	// How much Send accepts before it waits, by default 32 MiB.
	BufferBytes int
	// How long a record may take until it is acknowledged, by default 120 s. Then the producer fails.
	DeliveryTimeout time.Duration
	// What people should know about this process, by default its host and number.
	Owner string
}

// Registration is what the server knows about a named producer when it begins.
type Registration struct {
	// The sequence of the last request that was appended. 0: none was.
	LastSequence uint64
	// The offset of the last record of that request.
	LastOffset uint64
	// How many records it has appended. A source with one record for each of its items continues with the item after that many.
	Records uint64
}

// Ack says where a record was appended.
type Ack struct {
	Offset     uint64
	AppendTime time.Time
	// The request was sent more than once, and this is the answer to the first.
	Duplicate bool
	// The record was appended, but the server no longer knows where. Offset is 0.
	OffsetLost bool
}

// Producer appends records to one log, each once, in the order of the calls. Many goroutines share it.
type Producer struct {
	core    *producer
	cleanup runtime.Cleanup
}

// PendingAck is the acknowledgement of a record that was sent.
type PendingAck struct {
	batch    *batch
	position int
	// A producer is in use as long as somebody waits for an acknowledgement.
	producer *Producer
}

// Done is closed when the record is acknowledged or has failed.
func (a PendingAck) Done() <-chan struct{} { return a.batch.done }

// Wait returns the acknowledgement. If the context ends first, the outcome is unknown: the record may still be appended.
func (a PendingAck) Wait(ctx context.Context) (Ack, error) {
	if done := ctx.Done(); done != nil {
		select {
		case <-a.batch.done:
		default:
			select {
			case <-a.batch.done:
			case <-done:
				return Ack{}, ended(context.Cause(ctx), "the record is not acknowledged yet", OutcomeUnknown, nil)
			}
		}
	} else {
		<-a.batch.done
	}
	ack, err := a.batch.result(a.position)
	runtime.KeepAlive(a.producer)
	return ack, err
}

// Producer registers a producer of a log. Close it.
func (c *Client) Producer(ctx context.Context, log string, options ProducerOptions) (*Producer, error) {
	if options.BatchRecords < 0 || options.BatchBytes < 0 || options.BufferBytes < 0 || options.DeliveryTimeout < 0 {
		return nil, invalid("an option of the producer is negative: %+v", options)
	}
	orDefault(&options.BatchRecords, 1000)
	orDefault(&options.BatchBytes, 512<<10)
	orDefault(&options.BufferBytes, 32<<20)
	orDefault(&options.DeliveryTimeout, 120*time.Second)
	orDefault(&options.Owner, owner())
	core := &producer{
		c: c, options: options, log: log, route: c.route(log, true),
		q:    queue{maxRecords: options.BatchRecords, maxBytes: options.BatchBytes},
		work: make(chan struct{}, 1), wake: make(chan struct{}, 1), readingLimits: make(chan struct{}, 1),
	}
	core.ctx, core.cancel = context.WithCancel(context.Background())
	made, err := core.register(ctx)
	if err != nil {
		core.cancel()
		return nil, err
	}
	core.registration = Registration{made.LastSequence, made.LastOffset, made.Records}
	core.timer = time.AfterFunc(time.Hour, core.check)
	core.timer.Stop()
	core.running.Add(2)
	core.mu.Lock()
	core.leaveClient = context.AfterFunc(c.ctx, func() { core.fail(c.failure()) })
	core.mu.Unlock()
	go core.deliver()
	go core.send()
	p := &Producer{core: core}
	p.cleanup = runtime.AddCleanup(p, (*producer).abandon, core)
	return p, nil
}

func orDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

func owner() string {
	host, _ := os.Hostname()
	text := fmt.Sprintf("%s process %d", host, os.Getpid())
	return text[:min(len(text), 255)]
}

// Registration returns what the server knew about the producer when it was registered.
func (p *Producer) Registration() Registration { return p.core.registration }

// Append sends a record, and waits until it is acknowledged. Concurrent calls share requests.
func (p *Producer) Append(ctx context.Context, record Record) (Ack, error) {
	return p.Send(ctx, record).Wait(ctx)
}

// Send sends a record. It waits only if the buffer is full, until the context ends; the record then fails. The caller may change the
// record's bytes afterwards.
func (p *Producer) Send(ctx context.Context, record Record) PendingAck {
	b, position := p.core.accept(ctx, &record)
	return PendingAck{b, position, p}
}

// Flush waits until everything that was sent before is acknowledged. It fails if the producer has failed.
func (p *Producer) Flush(ctx context.Context) error {
	err := p.core.flush(ctx)
	runtime.KeepAlive(p)
	return asError(err)
}

// Close accepts no more records, flushes, and fails what is left when the context ends. It returns why the producer has failed, if it
// has. Later calls do nothing, and return the same.
func (p *Producer) Close(ctx context.Context) error {
	p.cleanup.Stop()
	return asError(p.core.close(ctx))
}

// producer is what its goroutines share. Its goroutines do not refer to the Producer, so that one that was dropped is noticed.
type producer struct {
	c            *Client
	options      ProducerOptions
	log          string
	registration Registration
	// Ends when the producer has failed or was closed.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// Stops waiting for the end of the client.
	leaveClient func() bool

	// Used by the goroutine of deliver only, once the producer is registered.
	route *route

	mu             sync.Mutex
	q              queue
	maxRecordBytes int
	// When the limits were read again.
	limitsRead time.Time
	// What the records in q take.
	buffered int
	// Calls of Send that wait for room, in their order.
	waiting []*waiter
	stream  *stream
	// Why no record is accepted any more.
	err     *Error
	closing bool
	// The last error of an attempt.
	lastError *Error
	timer     *time.Timer
	// When the timer runs next. Zero: it does not.
	timerAt time.Time

	// Holds a value while a call of Send reads the limits again.
	readingLimits chan struct{}
	// There is something to deliver, and no stream.
	work chan struct{}
	// The goroutine of send has something to do.
	wake chan struct{}
}

// waiter is a call of Send that waits until the buffer has room.
type waiter struct {
	record *Record
	cost   int
	// Closed when the fields below are set.
	accepted chan struct{}
	batch    *batch
	position int
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// failedBatch is a request with one record that has failed already.
func failedBatch(err *Error) *batch {
	b := &batch{done: make(chan struct{}), err: err}
	close(b.done)
	return b
}

func (p *producer) accept(ctx context.Context, record *Record) (*batch, int) {
	if err := record.check(); err != nil {
		return failedBatch(err), 0
	}
	size, cost := record.size(), bufferCost(record)
	p.mu.Lock()
	if p.refusal() == nil && size > p.maxRecordBytes {
		p.mu.Unlock()
		p.readLimits(ctx)
		p.mu.Lock()
	}
	err := p.refusal()
	if err == nil && size > p.maxRecordBytes {
		err = recordTooLarge(size, p.maxRecordBytes, p.log)
	}
	if err != nil {
		p.mu.Unlock()
		return failedBatch(err), 0
	}
	if p.buffered > 0 && (len(p.waiting) > 0 || p.buffered+cost > p.options.BufferBytes) {
		w := &waiter{record: record, cost: cost, accepted: make(chan struct{})}
		p.waiting = append(p.waiting, w)
		p.mu.Unlock()
		return p.wait(ctx, w)
	}
	b, position := p.add(record, cost)
	if s := p.stream; s == nil {
		notify(p.work)
	} else if !s.busy && p.q.peek() != nil {
		// Nobody sends: this goroutine does, which saves a wake-up.
		s.busy = true
		p.pump(s, true)
	}
	p.mu.Unlock()
	return b, position
}

// refusal returns why no record can be accepted. The caller holds mu.
func (p *producer) refusal() *Error {
	switch {
	case p.err != nil:
		return p.err.withOutcome(OutcomeNone)
	case p.closing:
		return closedError("the producer")
	}
	return nil
}

func recordTooLarge(size, max int, log string) *Error {
	return &Error{
		Kind: ErrTooLarge, Code: codes.InvalidArgument, Reason: "RECORD_TOO_LARGE", Outcome: OutcomeNone, Retry: RetryNo,
		Message:  fmt.Sprintf("record of %d bytes exceeds max_record_bytes (%d) of log %q", size, max, logName(log)),
		Metadata: map[string]string{"log": logName(log), "limit": "max_record_bytes", "max": fmt.Sprint(max)},
	}
}

// add puts a record into the queue. The caller holds mu.
func (p *producer) add(record *Record, cost int) (*batch, int) {
	b, position := p.q.add(record, time.Now)
	if position == 0 {
		p.runTimer(b.since.Add(p.options.DeliveryTimeout))
	}
	p.buffered += cost
	return b, position
}

// wait waits until the buffer has room for a record.
func (p *producer) wait(ctx context.Context, w *waiter) (*batch, int) {
	select {
	case <-w.accepted:
		return w.batch, w.position
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.batch == nil {
		p.waiting = slices.DeleteFunc(p.waiting, func(other *waiter) bool { return other == w })
		w.batch = failedBatch(ended(context.Cause(ctx), "the buffer of the producer is full", OutcomeNone, p.lastError))
		close(w.accepted)
	}
	return w.batch, w.position
}

// release gives room in the buffer to calls that wait for it. The caller holds mu.
func (p *producer) release(cost int) {
	p.buffered -= cost
	for len(p.waiting) > 0 {
		w := p.waiting[0]
		if p.buffered > 0 && p.buffered+w.cost > p.options.BufferBytes {
			return
		}
		p.waiting[0] = nil
		p.waiting = p.waiting[1:]
		w.batch, w.position = p.add(w.record, w.cost)
		close(w.accepted)
	}
}

func (p *producer) flush(ctx context.Context) *Error {
	p.mu.Lock()
	err := p.err
	var last *batch
	if n := len(p.q.batches); n > 0 {
		last = p.q.batches[n-1]
	}
	p.mu.Unlock()
	if err != nil || last == nil {
		return err
	}
	select {
	case <-last.done:
		// Requests are answered in order. If one has failed, so have those after it.
		return last.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return ended(context.Cause(ctx), fmt.Sprintf("%d bytes of records are not acknowledged", p.buffered), OutcomeNone, p.lastError)
}

func (p *producer) close(ctx context.Context) *Error {
	p.mu.Lock()
	p.closing = true
	p.refuseWaiting(closedError("the producer"))
	p.mu.Unlock()
	err := p.flush(ctx)
	p.fail(closedError("the producer"))
	p.running.Wait()
	if err != nil && err.closed {
		return nil
	}
	return err
}

// refuseWaiting fails the calls that wait for room. The caller holds mu.
func (p *producer) refuseWaiting(err *Error) {
	for _, w := range p.waiting {
		w.batch = failedBatch(err)
		close(w.accepted)
	}
	p.waiting = nil
}

// abandon ends a producer that was dropped.
func (p *producer) abandon() {
	p.c.settings.logger.Warn("seriatim: a producer was dropped without Close", "log", logName(p.log))
	p.fail(closedError("the producer"))
}

// fail ends the producer: everything that is not answered fails, in order, each request with its own outcome.
func (p *producer) fail(err *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = err
	p.cancel()
	p.leaveClient()
	p.timer.Stop()
	for i, b := range p.q.batches {
		if i < p.q.sent {
			b.fate.add(OutcomeUnknown)
		}
		if outcome := b.fate.outcome(); outcome == OutcomeDone {
			b.offsetLost = true
		} else {
			b.err = err.withOutcome(outcome)
		}
		b.forget()
		close(b.done)
	}
	p.q.batches = nil
	p.q.rewind()
	p.buffered = 0
	p.refuseWaiting(err.withOutcome(OutcomeNone))
}

// register registers the producer with the server, and asks for the limits of the log.
func (p *producer) register(ctx context.Context) (*seriatimv1.Producer, *Error) {
	request := &seriatimv1.InitProducerRequest{
		Log: p.log, Producer: p.options.Name, Instance: rand.Uint64() | 1, Owner: p.options.Owner,
	}
	if id := p.q.id.logID; id != "" {
		// It registers again: never in another log of the same name.
		request.LogId = &id
	}
	answer, err := call(ctx, p.c, p.route, false, request, seriatimv1.LogServiceClient.InitProducer)
	if err != nil {
		return nil, err
	}
	made := answer.Producer
	maxRecord, maxRequest, err := p.limits(ctx, p.route, made.LogId)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLimits(maxRecord, maxRequest)
	p.q.id = identity{log: p.log, logID: made.LogId, producerID: made.ProducerId, epoch: made.Epoch}
	p.q.renumber(made.LastSequence + 1)
	return made, nil
}

// limits asks for the maximum sizes of a record and of a request.
func (p *producer) limits(ctx context.Context, r *route, logID string) (record, request int, err *Error) {
	get := &seriatimv1.GetLogRequest{Log: p.log, LogId: &logID}
	answer, err := call(ctx, p.c, r, true, get, seriatimv1.LogServiceClient.GetLog)
	if err != nil {
		return 0, 0, err
	}
	config := answer.Log.GetConfig()
	return int(config.GetMaxRecordBytes()), int(config.GetMaxRequestBytes()), nil
}

// setLimits applies the limits of the log. The caller holds mu.
func (p *producer) setLimits(record, request int) {
	p.maxRecordBytes = record
	p.q.maxBytes = min(p.options.BatchBytes, request)
}

// readLimits asks for the limits again: an admin may have raised them. If no node answers in the time of an attempt, those that are
// known apply.
func (p *producer) readLimits(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.c.settings.attemptTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	select {
	case p.readingLimits <- struct{}{}:
		defer func() { <-p.readingLimits }()
	case <-ctx.Done():
		return
	}
	p.mu.Lock()
	logID, isRecent := p.q.id.logID, time.Since(p.limitsRead) < limitsInterval
	p.mu.Unlock()
	if isRecent {
		return
	}
	record, request, err := p.limits(ctx, p.c.route(p.log, true), logID)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limitsRead = time.Now()
	if err == nil {
		p.setLimits(record, request)
	} else {
		p.c.settings.logger.Debug("seriatim: the limits were not read again", "log", logName(p.log), "error", err)
	}
}
