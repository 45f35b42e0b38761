package seriatim

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// At most this many requests and bytes are unanswered. The server keeps the answers to the last 64 requests of a producer.
	maxUnanswered      = 32
	maxUnansweredBytes = 4 << 20
	// recordOverhead is what a record takes in the buffer in addition to its encoded size, so that empty records are bounded, too.
	recordOverhead = 16
)

// bufferCost is what a record takes in the buffer.
func bufferCost(record *Record) int {
	return 1 + protowire.SizeBytes(record.encodedSize()) + recordOverhead
}

// batch is a request with its records. It keeps its records and its sequence once it was sent, so that the server recognizes it.
type batch struct {
	// The encoded records.
	body  []byte
	count int
	// What its records take in the buffer.
	cost int
	// When its first record was sent.
	since time.Time
	// No record joins any more.
	sealed bool
	// 0: not sent yet.
	sequence uint64
	// The encoded request. Kept unchanged, because a stream that broke may still read it.
	request []byte
	// Whether an attempt had an unknown outcome.
	fate fate

	// Closed when the results below are final.
	done      chan struct{}
	err       *Error
	offset    uint64
	append    time.Time
	duplicate bool
	// The records were appended, and the server no longer has their offset.
	offsetLost bool
	// Records that failed alone, by their position.
	removed map[int]*Error
}

// result returns the acknowledgement of the record at a position.
func (b *batch) result(position int) (Ack, error) {
	if err := b.removed[position]; err != nil {
		return Ack{}, err
	}
	if b.err != nil {
		return Ack{}, b.err
	}
	if b.offsetLost {
		return Ack{OffsetLost: true, Duplicate: true}, nil
	}
	offset := b.offset + uint64(position)
	for removed := range b.removed {
		if removed < position {
			offset--
		}
	}
	return Ack{Offset: offset, AppendTime: b.append, Duplicate: b.duplicate}, nil
}

// forget releases the records, whose outcome is final. An acknowledgement that the application keeps refers to the batch.
func (b *batch) forget() { b.body, b.request = nil, nil }

// size is about the size of the request.
func (b *batch) size() int { return len(b.body) + maxTrailerBytes }

// identity is what all requests of a producer have in common.
type identity struct {
	log        string
	logID      string
	producerID uint64
	epoch      uint32
}

// maxTrailerBytes bounds the fields of a request besides its records, with names of common length.
const maxTrailerBytes = 128

// encode returns the request. The fields besides the records follow them, so that records need not be moved.
func (b *batch) encode(id *identity) []byte {
	request := b.body
	request = protowire.AppendTag(request, fieldRequestLog, protowire.BytesType)
	request = protowire.AppendString(request, id.log)
	request = protowire.AppendTag(request, fieldRequestProducer, protowire.Fixed64Type)
	request = protowire.AppendFixed64(request, id.producerID)
	request = protowire.AppendTag(request, fieldRequestSequence, protowire.VarintType)
	request = protowire.AppendVarint(request, b.sequence)
	request = protowire.AppendTag(request, fieldRequestLogID, protowire.BytesType)
	request = protowire.AppendString(request, id.logID)
	request = protowire.AppendTag(request, fieldRequestEpoch, protowire.VarintType)
	request = protowire.AppendVarint(request, uint64(id.epoch))
	// A second request with these records must not be written into the same array.
	b.body = b.body[:len(b.body):len(b.body)]
	return request
}

// queue is what a producer has not delivered yet: requests that are sent and not answered, then those that are not sent. It does
// no I/O and has no lock.
type queue struct {
	maxRecords int
	maxBytes   int
	id         identity

	batches []*batch
	// The number of requests at the front that were sent on the present stream, and their size.
	sent      int
	sentBytes int
	// The sequence of the next request that is sent for the first time.
	sequence uint64
}

// add puts a record into the last request, or into a new one, and returns it with the position of the record.
func (q *queue) add(record *Record, now func() time.Time) (*batch, int) {
	encoded := record.encodedSize()
	size := 1 + protowire.SizeBytes(encoded)
	var b *batch
	if len(q.batches) > 0 {
		b = q.batches[len(q.batches)-1]
		if !b.sealed && len(b.body)+size > q.maxBytes {
			b.sealed = true
		}
	}
	if b == nil || b.sealed {
		room := size + maxTrailerBytes
		if b != nil {
			// Records gather: as many as in the last request, probably.
			room = max(room, len(b.body)+maxTrailerBytes)
		}
		b = &batch{body: make([]byte, 0, room), since: now(), done: make(chan struct{})}
		q.batches = append(q.batches, b)
	}
	b.body = record.appendTo(b.body, encoded)
	b.cost += size + recordOverhead
	position := b.count
	b.count++
	if b.count >= q.maxRecords || len(b.body) >= q.maxBytes {
		b.sealed = true
	}
	return b, position
}

// peek returns the request that may be sent now, or nil.
func (q *queue) peek() *batch {
	if q.sent == len(q.batches) || q.sent >= maxUnanswered {
		return nil
	}
	b := q.batches[q.sent]
	if q.sent > 0 {
		// While a request is unanswered, records gather.
		if !b.sealed || q.sentBytes+b.size() > maxUnansweredBytes {
			return nil
		}
	}
	return b
}

// send takes the request of peek as sent, and returns its bytes.
func (q *queue) send() []byte {
	b := q.batches[q.sent]
	b.sealed = true
	if b.sequence == 0 {
		b.sequence = q.sequence
		q.sequence++
	}
	if b.request == nil {
		b.request = b.encode(&q.id)
	}
	q.sent++
	q.sentBytes += b.size()
	return b.request
}

// pop removes the first request: its outcome is final.
func (q *queue) pop() *batch {
	b := q.batches[0]
	q.batches[0] = nil
	q.batches = q.batches[1:]
	if q.sent > 0 {
		q.sent--
		q.sentBytes -= b.size()
	}
	b.forget()
	return b
}

// rewind makes the queue send everything again, on a new stream.
func (q *queue) rewind() { q.sent, q.sentBytes = 0, 0 }

// failed notes what a failure of the present stream says about each request that was sent on it, and rewinds the queue. answered is
// the number of answers on that stream. It returns the position of the request that failed.
func (q *queue) failed(e *Error, answered int) int {
	at, isNumbered := 0, false
	if number, ok := e.number("failed_request"); ok && number >= answered && number-answered < q.sent {
		at, isNumbered = number-answered, true
	}
	through, hasThrough := e.number("unknown_through")
	for i, b := range q.batches[:q.sent] {
		outcome := e.Outcome
		switch {
		case i < at:
			// The server has answered it, and the answer is lost.
			outcome = OutcomeUnknown
		case i > at && isNumbered:
			// No request after the failed one is appended, with this exception.
			outcome = OutcomeNone
			if e.Outcome == OutcomeUnknown && hasThrough && answered+i <= through {
				outcome = OutcomeUnknown
			}
		case i > at && outcome == OutcomeDone:
			outcome = OutcomeUnknown
		}
		b.fate.add(outcome)
	}
	q.rewind()
	return at
}

// mayHaveBeenDone says whether a request may have been appended by an attempt before the present stream.
func (q *queue) mayHaveBeenDone() bool {
	// Requests are sent in order, so the first has at least as many such attempts as the others.
	return len(q.batches) > 0 && q.batches[0].fate.outcome() != OutcomeNone
}

// renumber gives the requests sequences from first on. None of them may have been appended.
func (q *queue) renumber(first uint64) {
	q.sequence = first
	for _, b := range q.batches {
		b.request = nil
		if b.sequence != 0 {
			b.sequence = q.sequence
			q.sequence++
		}
	}
}

// remove takes the records that are larger than max out of requests that can't have been appended, and the one at position of the
// first request, unless it is negative. fail returns the error of each. It returns whether there were any, and requests that have
// become empty: they are final. Nothing may be sent at the moment.
func (q *queue) remove(max int, position int, fail func(size int) *Error) (removed bool, empty []*batch, freed int) {
	kept := q.batches[:0:0]
	first := uint64(0)
	for i, b := range q.batches {
		if b.fate.outcome() != OutcomeNone {
			kept = append(kept, b)
			continue
		}
		if first == 0 {
			first = b.sequence
		}
		if i > 0 {
			position = -1
		}
		if cost := b.remove(max, position, fail); cost > 0 {
			removed, freed = true, freed+cost
		}
		if b.count == 0 {
			empty = append(empty, b)
		} else {
			kept = append(kept, b)
		}
	}
	if !removed {
		return false, nil, 0
	}
	q.batches = kept
	next := first
	for _, b := range q.batches {
		if b.fate.outcome() != OutcomeNone {
			continue
		}
		b.request = nil
		if b.sequence != 0 {
			b.sequence = next
			next++
		}
	}
	if first != 0 {
		q.sequence = next
	}
	return true, empty, freed
}

// remove takes records out of the request, and returns what they took in the buffer.
func (b *batch) remove(max int, position int, fail func(size int) *Error) int {
	body := make([]byte, 0, cap(b.body))
	cost := 0
	rest := b.body
	// The position at which the caller knows the record, which counts those that were removed before.
	known := 0
	for i := 0; len(rest) > 0; i++ {
		for b.removed[known] != nil {
			known++
		}
		_, _, n := protowire.ConsumeField(rest)
		field := rest[:n]
		rest = rest[n:]
		_, _, tag := protowire.ConsumeTag(field)
		value, _ := protowire.ConsumeBytes(field[tag:])
		if size := limitedSize(value); size > max || i == position {
			if b.removed == nil {
				b.removed = map[int]*Error{}
			}
			b.removed[known] = fail(size)
			b.count--
			cost += len(field) + recordOverhead
		} else {
			body = append(body, field...)
		}
		known++
	}
	if cost > 0 {
		b.body = body
		b.cost -= cost
	}
	return cost
}

// limitedSize is Record.size of an encoded record.
func limitedSize(record []byte) int {
	size := 0
	for len(record) > 0 {
		field, kind, n := protowire.ConsumeTag(record)
		record = record[n:]
		if kind != protowire.BytesType {
			record = record[protowire.ConsumeFieldValue(field, kind, record):]
			continue
		}
		value, n := protowire.ConsumeBytes(record)
		record = record[n:]
		if field == fieldRecordHeaders {
			// The fields of a header are strings and bytes only, as those of a record may be.
			size += limitedSize(value)
		} else {
			size += len(value)
		}
	}
	return size
}
