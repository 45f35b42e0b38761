package seriatim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// inlineBytes is the size up to which a caller of Send, or the goroutine that receives, sends a request itself. If nothing is
// unanswered, gRPC takes a request of this size without a wait for the network.
const inlineBytes = 32 << 10

// gatherRounds bounds how often the receiver lets others run before it sends what they have added.
const gatherRounds = 16

// stream is one ProduceStream. Its fields but the first are guarded by producer.mu.
type stream struct {
	grpc.ClientStream
	cancel context.CancelFunc
	// A goroutine sends, or is about to. It looks for more before it stops.
	busy     bool
	answered int
	// Since when the first unanswered request is the first.
	waitingSince time.Time
	// It was cancelled because no answer came.
	silent bool
}

// codec passes requests that are encoded already.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(message any) ([]byte, error) { return message.([]byte), nil }

func (codec) Unmarshal(data []byte, message any) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

var produceStream = grpc.StreamDesc{StreamName: "ProduceStream", ServerStreams: true, ClientStreams: true}

// deliver opens streams and receives their answers, until the producer ends.
func (p *producer) deliver() {
	defer p.running.Done()
	for p.awaitWork() {
		s, cn, err := p.open()
		if err == nil {
			err = p.receive(s)
		}
		if !p.recover(s, cn, err) {
			return
		}
	}
}

// awaitWork waits until there is something to deliver. It returns false if the producer has ended.
func (p *producer) awaitWork() bool {
	for {
		p.mu.Lock()
		hasWork, hasEnded := len(p.q.batches) > 0, p.err != nil
		p.mu.Unlock()
		if hasEnded || hasWork {
			return !hasEnded
		}
		select {
		case <-p.work:
		case <-p.ctx.Done():
		}
	}
}

// open opens a stream. What it returns is released by recover, also after an error.
func (p *producer) open() (*stream, *conn, *Error) {
	cn, err := p.route.connect(p.ctx)
	if err != nil {
		return nil, cn, err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	limit := p.c.settings.attemptTimeout
	timer := time.AfterFunc(limit, cancel)
	opened, grpcErr := cn.NewStream(ctx, &produceStream, seriatimv1.LogService_ProduceStream_FullMethodName, grpc.ForceCodec(codec{}))
	isLate := !timer.Stop()
	if grpcErr != nil || isLate {
		cancel()
		if isLate {
			return nil, cn, noAnswer("no connection to "+cn.node.addr, limit, OutcomeNone)
		}
		// No request was sent.
		return nil, cn, errorOf(grpcErr, false)
	}
	p.c.settings.logger.Debug("seriatim: producing", "log", logName(p.log), "node", cn.node.addr)
	s := &stream{ClientStream: opened, cancel: cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.stream, s.busy = s, true
		p.pump(s, true)
	}
	return s, cn, nil
}

// pump sends what may be sent, and gives s.busy back. The caller holds mu, and has set s.busy. With inline it never waits for the
// network: then it leaves large requests to the goroutine of send.
func (p *producer) pump(s *stream, inline bool) {
	for p.stream == s {
		b := p.q.peek()
		if b == nil {
			break
		}
		if inline && (p.q.sent > 0 || b.size() > inlineBytes) {
			notify(p.wake)
			break
		}
		if p.q.sent == 0 {
			s.waitingSince = time.Now()
			p.runTimer(s.waitingSince.Add(p.c.settings.attemptTimeout))
		}
		request := p.q.send()
		p.mu.Unlock()
		err := s.SendMsg(request)
		p.mu.Lock()
		if err != nil {
			// The stream has ended, and RecvMsg returns why.
			s.cancel()
			break
		}
	}
	s.busy = false
}

// send sends requests that may have to wait for the network.
func (p *producer) send() {
	defer p.running.Done()
	for {
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		if s := p.stream; s != nil && !s.busy {
			s.busy = true
			p.pump(s, false)
		}
		p.mu.Unlock()
	}
}

// receive takes answers until the stream fails.
func (p *producer) receive(s *stream) *Error {
	var answer seriatimv1.ProduceResponse
	for {
		if err := s.RecvMsg(&answer); err != nil {
			return p.streamError(s, err)
		}
		p.mu.Lock()
		b, err := p.take(s, &answer)
		if err != nil || b == nil {
			p.mu.Unlock()
			return err
		}
		mine := !s.busy
		s.busy = true
		p.mu.Unlock()

		p.route.succeeded()
		close(b.done)
		if !mine {
			continue
		}
		if b.count > 1 {
			p.gather()
		}
		p.mu.Lock()
		p.pump(s, true)
		p.mu.Unlock()
	}
}

// take assigns an answer to the first request. The caller holds mu. It returns nil if the producer has ended.
func (p *producer) take(s *stream, answer *seriatimv1.ProduceResponse) (*batch, *Error) {
	if p.stream != s || p.err != nil {
		return nil, nil
	}
	if p.q.sent == 0 || int(answer.Count) != p.q.batches[0].count {
		return nil, &Error{
			Kind: ErrOutcomeUnknown, Code: codes.Internal, Outcome: OutcomeUnknown, Retry: RetryNo,
			Message: fmt.Sprintf("an answer for %d records does not belong to any request", answer.Count),
		}
	}
	b := p.q.pop()
	b.offset, b.append, b.duplicate = answer.Offset, microseconds(answer.AppendTimeUs), answer.Duplicate
	s.answered++
	s.waitingSince = time.Now()
	p.release(b.cost)
	return b, nil
}

// gather lets the callers run that an answer has woken, as long as they send more. Otherwise the first of them would get a request of
// its own, and the others would wait for the answer to that.
func (p *producer) gather() {
	before := -1
	for range gatherRounds {
		p.mu.Lock()
		now := 0
		if n := len(p.q.batches); n > 0 {
			now = p.q.batches[n-1].count + n*p.options.BatchRecords
		}
		p.mu.Unlock()
		if now == before {
			return
		}
		before = now
		runtime.Gosched()
	}
}

func (p *producer) streamError(s *stream, err error) *Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.silent {
		return noAnswer("no answer to a request", p.c.settings.attemptTimeout, OutcomeUnknown)
	}
	if errors.Is(err, io.EOF) {
		// Only this side ends streams.
		return broken("the node has ended the stream", OutcomeUnknown)
	}
	return errorOf(err, true)
}

// recover decides what follows the failure of a stream. It returns false if the producer has ended.
func (p *producer) recover(s *stream, cn *conn, err *Error) bool {
	if s != nil {
		s.cancel()
	}
	if cn != nil {
		defer p.c.release(cn)
	}
	p.mu.Lock()
	p.stream = nil
	if p.err != nil {
		p.mu.Unlock()
		return false
	}
	if err == nil {
		p.mu.Unlock()
		return false
	}
	p.lastError = err
	answered := 0
	if s != nil {
		answered = s.answered
	}
	isNew := !p.q.mayHaveBeenDone()
	wasSent := p.q.sent > 0
	at := p.q.failed(err, answered)
	isIdle := len(p.q.batches) == 0
	p.mu.Unlock()

	switch {
	case isIdle:
		// Nothing has failed. The next record opens a stream.
		p.route.failed(cn, err)
		return true
	case at > 0:
		// Requests before the failed one are answered when they are sent again, and it fails again.
		err = broken("answers are missing before: "+err.Message, OutcomeUnknown)
	case wasSent && err.Outcome == OutcomeDone && err.Retry == RetryNo:
		p.complete()
		return true
	case wasSent && err.Reason == "PRODUCER_UNKNOWN" && p.options.Name == "" && isNew:
		if p.canBeginAgain() {
			return sleep(p.ctx, p.route.pauses.nextButFirst()) && p.beginAgain()
		}
	case wasSent && err.Kind == ErrTooLarge && err.Outcome == OutcomeNone && isNew:
		if removed, failure := p.removeTooLarge(err); failure != nil {
			err = failure
		} else if removed {
			return true
		}
	}
	pause, again := p.route.failed(cn, err)
	if !again {
		p.fail(err)
		return false
	}
	return sleep(p.ctx, pause)
}

// complete notes that the first request was appended, although its answer can't be had.
func (p *producer) complete() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	b := p.q.pop()
	b.offsetLost = true
	p.release(b.cost)
	close(b.done)
}

// canBeginAgain says whether no unanswered request may have been appended, given that the server has refused the first one because it
// does not know the producer.
func (p *producer) canBeginAgain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, b := range p.q.batches {
		if i > 0 && b.fate.outcome() != OutcomeNone {
			return false
		}
	}
	return true
}

// beginAgain registers the producer under a new id, with the requests that are not answered.
func (p *producer) beginAgain() bool {
	p.mu.Lock()
	for _, b := range p.q.batches {
		b.fate = fate{}
	}
	p.mu.Unlock()
	if _, err := p.register(p.ctx); err != nil {
		p.fail(err)
		return false
	}
	return true
}

// removeTooLarge asks for the limits of the log, and fails the records that exceed them.
func (p *producer) removeTooLarge(refused *Error) (bool, *Error) {
	p.mu.Lock()
	logID := p.q.id.logID
	p.mu.Unlock()
	maxRecord, maxRequest, err := p.limits(p.ctx, p.route, logID)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return false, p.err
	}
	p.setLimits(maxRecord, maxRequest)
	position, ok := refused.number("position")
	if !ok {
		position = -1
	}
	fail := func(size int) *Error {
		if size > maxRecord {
			return recordTooLarge(size, maxRecord, p.log)
		}
		return refused
	}
	removed, empty, freed := p.q.remove(maxRecord, position, fail)
	for _, b := range empty {
		close(b.done)
	}
	p.release(freed)
	return removed, nil
}

// runTimer makes check run at a time, or earlier. The caller holds mu.
func (p *producer) runTimer(at time.Time) {
	if p.timerAt.IsZero() || at.Before(p.timerAt) {
		p.timerAt = at
		p.timer.Reset(time.Until(at))
	}
}

// check enforces the delivery timeout, and ends a stream that does not answer.
func (p *producer) check() {
	p.mu.Lock()
	p.timerAt = time.Time{}
	if p.err != nil || len(p.q.batches) == 0 {
		p.mu.Unlock()
		return
	}
	now := time.Now()
	deadline := p.q.batches[0].since.Add(p.options.DeliveryTimeout)
	if !now.Before(deadline) {
		what := fmt.Sprintf("a record was not acknowledged within %v", p.options.DeliveryTimeout)
		err := ended(context.DeadlineExceeded, what, OutcomeNone, p.lastError)
		p.mu.Unlock()
		p.fail(err)
		return
	}
	if s := p.stream; s != nil && p.q.sent > 0 {
		if limit := s.waitingSince.Add(p.c.settings.attemptTimeout); now.Before(limit) {
			deadline = earlier(deadline, limit)
		} else {
			s.silent = true
			s.cancel()
		}
	}
	p.runTimer(deadline)
	p.mu.Unlock()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
