package seriatim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

func newQueue() *queue {
	return &queue{maxRecords: 1000, maxBytes: 512 << 10, sequence: 1, id: identity{log: "l", logID: "id", producerID: 7, epoch: 3}}
}

func (q *queue) addValues(values ...string) {
	for _, value := range values {
		q.add(&Record{Value: []byte(value)}, time.Now)
	}
}

// sendAll sends what may be sent, and returns it.
func sendAll(t *testing.T, q *queue) (sent []*seriatimv1.ProduceRequest) {
	t.Helper()
	for q.peek() != nil {
		request := &seriatimv1.ProduceRequest{}
		if err := proto.Unmarshal(q.send(), request); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, request)
	}
	return sent
}

// describe writes requests as sequence:value,value.
func describe(requests []*seriatimv1.ProduceRequest) string {
	var texts []string
	for _, request := range requests {
		var values []string
		for _, record := range request.Records {
			values = append(values, string(record.Value))
		}
		texts = append(texts, fmt.Sprintf("%d:%s", request.Sequence, strings.Join(values, ",")))
	}
	return strings.Join(texts, " ")
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIdleQueueSendsAtOnceAndBusyOneGathers(t *testing.T) {
	q := newQueue()
	q.addValues("a")
	expect(t, describe(sendAll(t, q)), "1:a")
	q.addValues("b", "c")
	expect(t, describe(sendAll(t, q)), "")
	q.pop()
	expect(t, describe(sendAll(t, q)), "2:b,c")
	// A request that was sent takes no more records.
	q.addValues("d")
	q.pop()
	expect(t, describe(sendAll(t, q)), "3:d")
}

func TestFullRequestIsSentWhileOthersAreUnanswered(t *testing.T) {
	q := newQueue()
	q.maxRecords = 2
	q.addValues("a")
	expect(t, describe(sendAll(t, q)), "1:a")
	q.addValues("b", "c", "d")
	expect(t, describe(sendAll(t, q)), "2:b,c")
	q.addValues("e")
	expect(t, describe(sendAll(t, q)), "3:d,e")
}

func TestRequestIsFullAtItsBytes(t *testing.T) {
	q := newQueue()
	q.maxBytes = 100
	large := strings.Repeat("x", 60)
	q.addValues("a", large, large, strings.Repeat("y", 500), "b")
	var counts []int
	for _, b := range q.batches {
		counts = append(counts, b.count)
	}
	// The last but one is larger than the limit: a single record always fits.
	expect(t, fmt.Sprint(counts), "[2 1 1 1]")
}

func TestWindowOfRequestsAndBytes(t *testing.T) {
	q := newQueue()
	q.maxRecords = 1
	for i := range 100 {
		q.addValues(fmt.Sprint(i))
	}
	if n := len(sendAll(t, q)); n != maxUnanswered {
		t.Errorf("%d requests are unanswered", n)
	}
	q.pop()
	if n := len(sendAll(t, q)); n != 1 {
		t.Errorf("an answer makes room for %d requests", n)
	}

	q = newQueue()
	for range 20 {
		q.addValues(strings.Repeat("x", 500<<10))
	}
	if n := len(sendAll(t, q)); n != 8 || q.sentBytes > maxUnansweredBytes {
		t.Errorf("%d requests of %d bytes are unanswered", n, q.sentBytes)
	}
	// One that is larger than the window is sent alone.
	q = newQueue()
	q.addValues(strings.Repeat("x", 5<<20))
	if n := len(sendAll(t, q)); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestUnansweredRequestsAreSentAgainAsTheyWere(t *testing.T) {
	q := newQueue()
	q.maxRecords = 2
	q.addValues("a", "b", "c", "d")
	first := describe(sendAll(t, q))
	expect(t, first, "1:a,b 2:c,d")
	q.failed(broken("x", OutcomeUnknown), 0)
	q.addValues("e", "f", "g")
	// The window counts from the beginning of the stream. The last record waits for the others.
	expect(t, describe(sendAll(t, q)), first+" 3:e,f")
	// Also a request that was sent before it was full.
	q = newQueue()
	q.addValues("a")
	sendAll(t, q)
	q.addValues("b")
	q.failed(broken("x", OutcomeUnknown), 0)
	expect(t, describe(sendAll(t, q)), "1:a")
}

func TestRecordMayChangeAfterItWasAdded(t *testing.T) {
	q := newQueue()
	value := []byte("before")
	q.add(&Record{Value: value}, time.Now)
	copy(value, "after!")
	expect(t, describe(sendAll(t, q)), "1:before")
}

func outcomes(q *queue) string {
	var list []string
	for _, b := range q.batches {
		list = append(list, string(b.fate.outcome()))
	}
	return strings.Join(list, " ")
}

func TestFailureSaysWhatBecameOfEachRequest(t *testing.T) {
	keys := func(outcome string, more ...string) map[string]string {
		metadata := map[string]string{"outcome": outcome, "retry": "no"}
		for i := 0; i < len(more); i += 2 {
			metadata[more[i]] = more[i+1]
		}
		return metadata
	}
	// Five requests have been sent, and the first two answered; one waits.
	for _, test := range []struct {
		name  string
		error *Error
		at    int
		want  string
	}{
		{"broken", broken("x", OutcomeUnknown), 0, "unknown unknown unknown none"},
		{"refused", refusal(t, codes.Unavailable, "R", keys("none", "failed_request", "2")), 0, "none none none none"},
		{
			"unknown", refusal(t, codes.Unknown, "R", keys("unknown", "failed_request", "2", "unknown_through", "3")), 0,
			"unknown unknown none none",
		},
		{"unknown alone", refusal(t, codes.Unknown, "R", keys("unknown", "failed_request", "2")), 0, "unknown none none none"},
		{"without a number", refusal(t, codes.Internal, "R", keys("unknown")), 0, "unknown unknown unknown none"},
		{"done", refusal(t, codes.FailedPrecondition, "R", keys("done", "failed_request", "2")), 0, "done none none none"},
		{"answers are missing", refusal(t, codes.Unavailable, "R", keys("none", "failed_request", "3")), 1, "unknown none none none"},
		{"a number that can't be", refusal(t, codes.Unknown, "R", keys("unknown", "failed_request", "9")), 0, "unknown unknown unknown none"},
	} {
		q := newQueue()
		q.maxRecords = 1
		q.addValues("a", "b", "c", "d", "e")
		sendAll(t, q)
		q.pop()
		q.pop()
		q.addValues("f")
		if at := q.failed(test.error, 2); at != test.at || outcomes(q) != test.want {
			t.Errorf("%s: request %d failed, outcomes %s; want %d, %s", test.name, at, outcomes(q), test.at, test.want)
		}
	}
}

func TestRefusalDoesNotMakeAnEarlierAttemptCertain(t *testing.T) {
	q := newQueue()
	q.addValues("a")
	sendAll(t, q)
	q.failed(broken("x", OutcomeUnknown), 0)
	sendAll(t, q)
	keys := map[string]string{"outcome": "none", "retry": "no", "failed_request": "0"}
	q.failed(refusal(t, codes.PermissionDenied, "NOT_ALLOWED", keys), 0)
	expect(t, outcomes(q), "unknown")
	if !q.mayHaveBeenDone() {
		t.Error("the first attempt is forgotten")
	}
}

func TestRecordsThatAreTooLargeAreRemoved(t *testing.T) {
	q := newQueue()
	q.maxRecords = 3
	large := strings.Repeat("x", 50)
	q.addValues("a", large, "b", large, large, large, "c")
	q.batches[0].sealed = true
	expect(t, describe(sendAll(t, q)), "1:a,"+large+",b 2:"+large+","+large+","+large)
	batches := []*batch{q.batches[0], q.batches[1]}
	keys := map[string]string{"outcome": "none", "retry": "no", "failed_request": "0"}
	refused := refusal(t, codes.InvalidArgument, "RECORD_TOO_LARGE", keys)
	q.failed(refused, 0)
	costs := q.batches[0].cost + q.batches[1].cost
	removed, empty, freed := q.remove(10, -1, func(int) *Error { return refused })
	if !removed || len(empty) != 1 || empty[0] != batches[1] || freed >= costs || freed <= costs/2 {
		t.Errorf("removed %v, %d are empty, %d of %d bytes are freed", removed, len(empty), freed, costs)
	}
	// The sequence of the request that is empty goes to the next one.
	q.batches[1].sealed = true
	expect(t, describe(sendAll(t, q)), "1:a,b 2:c")
	batches[0].offset = 100
	for position, want := range map[int]uint64{0: 100, 2: 101} {
		if ack, err := batches[0].result(position); err != nil || ack.Offset != want {
			t.Errorf("record %d: %v, %v", position, ack, err)
		}
	}
	if _, err := batches[0].result(1); err != refused {
		t.Errorf("the large record: %v", err)
	}
	// By its position, although the limit says nothing.
	q.failed(refused, 0)
	if removed, _, _ := q.remove(1000, 1, func(int) *Error { return refused }); !removed {
		t.Error("the second record was kept")
	}
	if ack, err := batches[0].result(0); err != nil || ack.Offset != 100 {
		t.Errorf("the first record: %v, %v", ack, err)
	}
	if _, err := batches[0].result(2); err != refused {
		t.Errorf("the third record: %v", err)
	}
}

func TestRequestThatMayHaveBeenAppendedKeepsItsRecords(t *testing.T) {
	q := newQueue()
	q.addValues(strings.Repeat("x", 50))
	sendAll(t, q)
	q.failed(broken("x", OutcomeUnknown), 0)
	if removed, _, _ := q.remove(10, 0, nil); removed {
		t.Error("a record was removed")
	}
}

func TestNewRegistrationNumbersRequestsAnew(t *testing.T) {
	q := newQueue()
	q.maxRecords = 1
	q.sequence = 41
	q.addValues("a", "b", "c")
	expect(t, describe(sendAll(t, q)), "41:a 42:b 43:c")
	q.pop()
	q.rewind()
	old := q.batches[0].request
	kept := bytes.Clone(old)
	q.id.producerID = 8
	q.renumber(1)
	q.addValues("d")
	sent := sendAll(t, q)
	expect(t, describe(sent), "1:b 2:c 3:d")
	if sent[0].ProducerId != 8 {
		t.Errorf("producer %d", sent[0].ProducerId)
	}
	if !bytes.Equal(old, kept) {
		t.Error("the bytes of a request that may still be read were changed")
	}
}

func TestEncodingIsThatOfTheGeneratedCode(t *testing.T) {
	when := time.UnixMicro(1_700_000_000_123_456)
	us := uint64(when.UnixMicro())
	records := []Record{
		{},
		{Value: []byte("v"), Key: []byte{}, Type: 300},
		{Value: bytes.Repeat([]byte("x"), 300), Key: []byte("k"), EventTime: when, Headers: []Header{{"a", []byte("1")}, {"", nil}}},
	}
	want := []*seriatimv1.Record{
		{},
		{Value: []byte("v"), Key: []byte{}, Type: 300},
		{
			Value: bytes.Repeat([]byte("x"), 300), Key: []byte("k"), ClientTimeUs: &us,
			Headers: []*seriatimv1.Header{{Name: "a", Value: []byte("1")}, {}},
		},
	}
	q := newQueue()
	for i := range records {
		q.add(&records[i], time.Now)
	}
	sent := sendAll(t, q)
	id := "id"
	request := &seriatimv1.ProduceRequest{Log: "l", Records: want, ProducerId: 7, Sequence: 1, LogId: &id, ProducerEpoch: 3}
	if len(sent) != 1 || !proto.Equal(sent[0], request) {
		t.Errorf("got %v, want %v", sent, request)
	}
	for i := range records {
		body := records[i].appendTo(nil, records[i].encodedSize())
		if size := 1 + 1 + records[i].encodedSize(); i < 2 && len(body) != size {
			t.Errorf("record %d takes %d bytes, not %d", i, len(body), size)
		}
		if got := recordOf(want[i], 0); got.size() != records[i].size() || !got.EventTime.Equal(records[i].EventTime) {
			t.Errorf("record %d becomes %v", i, got)
		}
	}
	encoded, err := proto.Marshal(want[2])
	if err != nil {
		t.Fatal(err)
	}
	if got := limitedSize(encoded); got != records[2].size() {
		t.Errorf("the limit counts %d bytes, not %d", got, records[2].size())
	}
}

func TestPausesDoubleWithARandomPart(t *testing.T) {
	p := pauses{first: 100 * time.Millisecond, longest: time.Second}
	for _, nominal := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		nominal *= time.Millisecond
		if pause := p.next(); pause < nominal/2 || pause > nominal*3/2 {
			t.Errorf("%v, want about %v", pause, nominal)
		}
	}
	p.reset()
	if pause := p.next(); pause > 150*time.Millisecond {
		t.Errorf("%v after a success", pause)
	}
}
