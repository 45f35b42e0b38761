package seriatim

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// Record is an entry of a log.
type Record struct {
	Value []byte
	// nil: absent, which differs from an empty one.
	Key     []byte
	Headers []Header
	// A number that the producer chooses.
	Type uint32
	// When the event happened, by the producer's clock, to the microsecond. The zero time: absent.
	EventTime time.Time

	// The fields below are set in records that were read, and ignored in those that are sent.

	Offset     uint64
	AppendTime time.Time
	// The Raft term in which it was appended.
	Term uint64
	// How many records directly before this one were trimmed, and not returned. Only with SkipTrimmed.
	Skipped uint64
}

// Header is a name and a value that describe a record. Names may repeat.
type Header struct {
	Name  string
	Value []byte
}

// The fields of messages that are encoded here.
const (
	fieldRecordValue      = 1
	fieldRecordType       = 4
	fieldRecordKey        = 6
	fieldRecordHeaders    = 7
	fieldRecordClientTime = 8
	fieldHeaderName       = 1
	fieldHeaderValue      = 2
	fieldRequestLog       = 2
	fieldRequestRecords   = 3
	fieldRequestProducer  = 5
	fieldRequestSequence  = 6
	fieldRequestLogID     = 7
	fieldRequestEpoch     = 8
)

// size is what the limits of a log count: the bytes of value, key and headers.
func (r *Record) size() int {
	size := len(r.Value) + len(r.Key)
	for _, header := range r.Headers {
		size += len(header.Name) + len(header.Value)
	}
	return size
}

func (r *Record) check() *Error {
	for _, header := range r.Headers {
		if !utf8.ValidString(header.Name) {
			return invalid("the name of a header is not UTF-8: %q", header.Name)
		}
	}
	if !r.EventTime.IsZero() && r.EventTime.UnixMicro() < 0 {
		return invalid("the event time %v is before 1970", r.EventTime)
	}
	return nil
}

// encodedSize is the size of what appendTo writes after the tag and the length.
func (r *Record) encodedSize() int {
	size := 0
	if len(r.Value) > 0 {
		size += 1 + protowire.SizeBytes(len(r.Value))
	}
	if r.Type != 0 {
		size += 1 + protowire.SizeVarint(uint64(r.Type))
	}
	if r.Key != nil {
		size += 1 + protowire.SizeBytes(len(r.Key))
	}
	for i := range r.Headers {
		size += 1 + protowire.SizeBytes(r.Headers[i].encodedSize())
	}
	if !r.EventTime.IsZero() {
		size += 1 + 8
	}
	return size
}

func (h *Header) encodedSize() int {
	return 1 + protowire.SizeBytes(len(h.Name)) + 1 + protowire.SizeBytes(len(h.Value))
}

// appendTo encodes the record as a field of ProduceRequest. The caller may change the record afterwards: what is sent again must be
// the same.
func (r *Record) appendTo(b []byte, encodedSize int) []byte {
	b = protowire.AppendTag(b, fieldRequestRecords, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(encodedSize))
	if len(r.Value) > 0 {
		b = appendBytes(b, fieldRecordValue, r.Value)
	}
	if r.Type != 0 {
		b = protowire.AppendTag(b, fieldRecordType, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(r.Type))
	}
	if r.Key != nil {
		b = appendBytes(b, fieldRecordKey, r.Key)
	}
	for i := range r.Headers {
		header := &r.Headers[i]
		b = protowire.AppendTag(b, fieldRecordHeaders, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(header.encodedSize()))
		b = protowire.AppendTag(b, fieldHeaderName, protowire.BytesType)
		b = protowire.AppendString(b, header.Name)
		b = appendBytes(b, fieldHeaderValue, header.Value)
	}
	if !r.EventTime.IsZero() {
		b = protowire.AppendTag(b, fieldRecordClientTime, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, uint64(r.EventTime.UnixMicro()))
	}
	return b
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}

// recordOf takes a record of a response over, without a copy of its bytes.
func recordOf(from *seriatimv1.Record, skipped uint64) Record {
	r := Record{
		Value: from.Value, Key: from.Key, Type: from.Type, Offset: from.Offset, AppendTime: microseconds(from.AppendTimeUs),
		Term: from.Term, Skipped: skipped,
	}
	if from.ClientTimeUs != nil {
		r.EventTime = microseconds(*from.ClientTimeUs)
	}
	if len(from.Headers) > 0 {
		r.Headers = make([]Header, len(from.Headers))
		for i, header := range from.Headers {
			r.Headers[i] = Header{header.Name, header.Value}
		}
	}
	return r
}

func microseconds(us uint64) time.Time { return time.UnixMicro(int64(us)) }
