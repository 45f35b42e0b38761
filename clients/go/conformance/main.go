// The driver of the conformance test (clients/conformance/README.md): executes commands from standard input with the Go library.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/seriatim-log/seriatim/clients/go"
)

func main() {
	d := &driver{producers: map[string]*producer{}, consumers: map[string]*consumer{}}
	if err := d.run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
}

type fields map[string]any

type driver struct {
	client    *seriatim.Client
	producers map[string]*producer
	consumers map[string]*consumer

	output sync.Mutex
}

// producer executes its sends in the order of the commands: each waits for the channel of the one before it.
type producer struct {
	*seriatim.Producer
	// Closed when all sends so far are in the buffer.
	sent chan struct{}
	// The last of them.
	last *sending
}

// sending is a send whose answer may not be written yet.
type sending struct {
	pending seriatim.PendingAck
	// Closed when it is.
	answered chan struct{}
}

// answer calls reply with the result of a send. Sends that end in an order are answered in that order.
func (p *producer) answer(pending seriatim.PendingAck, reply func(seriatim.Ack, error)) {
	before, this := p.last, &sending{pending, make(chan struct{})}
	p.last = this
	go func() {
		defer close(this.answered)
		ack, err := pending.Wait(context.Background())
		if before != nil {
			select {
			case <-before.pending.Done():
				<-before.answered
			default:
			}
			before = nil
		}
		reply(ack, err)
	}()
}

type consumer struct {
	*seriatim.Consumer
	// Closed when the consumer exists, or has failed.
	made chan struct{}
	// Held by `next`.
	reading sync.Mutex
}

func (d *driver) run(input io.Reader) error {
	lines := bufio.NewReaderSize(input, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			d.execute(line)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (d *driver) execute(line []byte) {
	var head struct {
		ID int    `json:"id"`
		Op string `json:"op"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
	reply := func(answer fields, err error) { d.reply(head.ID, answer, err) }
	commands := map[string]func([]byte, func(fields, error)) error{
		"connect": d.connect, "ready": d.ready, "producer": d.producer, "send": d.send, "send_many": d.sendMany, "flush": d.flush,
		"close_producer": d.closeProducer, "consumer": d.consumer, "next": d.next, "commit": d.commit,
		"close_consumer": d.closeConsumer, "get_cursor": d.getCursor, "close": d.close,
	}
	command, ok := commands[head.Op]
	if !ok {
		reply(nil, fmt.Errorf("there is no op %q", head.Op))
		return
	}
	if head.Op != "connect" && d.client == nil {
		reply(nil, errors.New("not connected"))
		return
	}
	if err := command(line, reply); err != nil {
		reply(nil, err)
	}
}

func (d *driver) reply(id int, answer fields, err error) {
	if answer == nil {
		answer = fields{}
	}
	answer["id"] = id
	if err != nil {
		answer["error"] = describe(err)
	}
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	d.output.Lock()
	defer d.output.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func describe(err error) fields {
	var e *seriatim.Error
	if !errors.As(err, &e) {
		return fields{
			"kind": "other", "code": "UNKNOWN", "reason": "", "outcome": "none", "retry": "no", "message": err.Error(),
			"metadata": fields{},
		}
	}
	metadata := e.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return fields{
		"kind": e.Kind, "code": e.CodeName(), "reason": e.Reason, "outcome": e.Outcome, "retry": e.Retry, "message": e.Message,
		"metadata": metadata,
	}
}

// decode reads the fields of a command, and refuses others.
func decode(line []byte, command any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	return decoder.Decode(command)
}

type head struct {
	ID int    `json:"id"`
	Op string `json:"op"`
}

// latin1 is bytes, written as one character for each.
type latin1 []byte

func (l *latin1) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*l = make([]byte, 0, len(s))
	for _, c := range s {
		if c > 255 {
			return fmt.Errorf("%q is not Latin-1", c)
		}
		*l = append(*l, byte(c))
	}
	return nil
}

func (l latin1) MarshalJSON() ([]byte, error) {
	text := make([]rune, len(l))
	for i, b := range l {
		text[i] = rune(b)
	}
	return json.Marshal(string(text))
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func within(ms int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), milliseconds(ms))
}

func (d *driver) connect(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Addrs []string `json:"addrs"`
		TLS   *struct {
			CA   string `json:"ca"`
			Cert string `json:"cert"`
			Key  string `json:"key"`
		} `json:"tls"`
		Options struct {
			Attempt    int64 `json:"attempt_ms"`
			Operation  int64 `json:"operation_ms"`
			Connect    int64 `json:"connect_ms"`
			BackoffMin int64 `json:"backoff_min_ms"`
			BackoffMax int64 `json:"backoff_max_ms"`
		} `json:"options"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	var options []seriatim.Option
	if command.TLS != nil {
		options = append(options, seriatim.WithTLS(command.TLS.CA, command.TLS.Cert, command.TLS.Key))
	}
	given := command.Options
	if given.Attempt != 0 {
		options = append(options, seriatim.WithAttemptTimeout(milliseconds(given.Attempt)))
	}
	if given.Operation != 0 {
		options = append(options, seriatim.WithOperationTimeout(milliseconds(given.Operation)))
	}
	if given.Connect != 0 {
		options = append(options, seriatim.WithConnectTimeout(milliseconds(given.Connect)))
	}
	if given.BackoffMin != 0 || given.BackoffMax != 0 {
		first, longest := milliseconds(given.BackoffMin), milliseconds(given.BackoffMax)
		if first == 0 {
			first = min(100*time.Millisecond, longest)
		}
		if longest == 0 {
			longest = max(5*time.Second, first)
		}
		options = append(options, seriatim.WithBackoff(first, longest))
	}
	client, err := seriatim.Dial(command.Addrs, options...)
	if err != nil {
		return err
	}
	d.client = client
	reply(nil, nil)
	return nil
}

func (d *driver) ready(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Timeout int64 `json:"timeout_ms"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	client := d.client
	go func() {
		ctx, cancel := within(command.Timeout)
		defer cancel()
		reply(nil, client.Ready(ctx))
	}()
	return nil
}

func (d *driver) producer(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Producer     string `json:"producer"`
		Log          string `json:"log"`
		Name         string `json:"name"`
		BatchRecords int    `json:"batch_records"`
		BatchBytes   int    `json:"batch_bytes"`
		BufferBytes  int    `json:"buffer_bytes"`
		Delivery     int64  `json:"delivery_ms"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	p := &producer{sent: make(chan struct{})}
	d.producers[command.Producer] = p
	client, made := d.client, p.sent
	go func() {
		defer close(made)
		var err error
		p.Producer, err = client.Producer(context.Background(), command.Log, seriatim.ProducerOptions{
			Name: command.Name, BatchRecords: command.BatchRecords, BatchBytes: command.BatchBytes, BufferBytes: command.BufferBytes,
			DeliveryTimeout: milliseconds(command.Delivery),
		})
		if err != nil {
			reply(nil, err)
			return
		}
		begin := p.Registration()
		reply(fields{"last_sequence": begin.LastSequence, "last_offset": begin.LastOffset, "records": begin.Records}, nil)
	}()
	return nil
}

// inOrder runs a function after those before it, for the producer with a name.
func (d *driver) inOrder(name string, do func(*producer)) error {
	p, ok := d.producers[name]
	if !ok {
		return fmt.Errorf("there is no producer %q", name)
	}
	before, after := p.sent, make(chan struct{})
	p.sent = after
	go func() {
		defer close(after)
		<-before
		do(p)
	}()
	return nil
}

var errNotMade = errors.New("the producer or consumer could not be made")

func (d *driver) send(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Producer string      `json:"producer"`
		Value    latin1      `json:"value"`
		Key      *latin1     `json:"key"`
		Headers  [][2]latin1 `json:"headers"`
		Type     uint32      `json:"type"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	record := seriatim.Record{Value: command.Value, Type: command.Type}
	if command.Key != nil {
		record.Key = append([]byte{}, *command.Key...)
	}
	for _, header := range command.Headers {
		record.Headers = append(record.Headers, seriatim.Header{Name: string(header[0]), Value: header[1]})
	}
	return d.inOrder(command.Producer, func(p *producer) {
		if p.Producer == nil {
			reply(nil, errNotMade)
			return
		}
		p.answer(p.Send(context.Background(), record), func(ack seriatim.Ack, err error) {
			if err != nil {
				reply(nil, err)
				return
			}
			answer := fields{"offset": ack.Offset, "duplicate": ack.Duplicate}
			if ack.OffsetLost {
				answer["offset"] = nil
			}
			reply(answer, nil)
		})
	})
}

func (d *driver) sendMany(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Producer string `json:"producer"`
		Prefix   latin1 `json:"prefix"`
		Count    int    `json:"count"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	return d.inOrder(command.Producer, func(p *producer) {
		if p.Producer == nil {
			reply(nil, errNotMade)
			return
		}
		pending := make([]seriatim.PendingAck, command.Count)
		for i := range pending {
			pending[i] = p.Send(context.Background(), seriatim.Record{Value: fmt.Appendf(nil, "%s%d", command.Prefix, i)})
		}
		go func() {
			var first, last uint64
			duplicates := 0
			for i := range pending {
				ack, err := pending[i].Wait(context.Background())
				if err != nil {
					reply(nil, err)
					return
				}
				if i == 0 {
					first = ack.Offset
				}
				last = ack.Offset
				if ack.Duplicate {
					duplicates++
				}
			}
			reply(fields{"first_offset": first, "last_offset": last, "duplicates": duplicates}, nil)
		}()
	})
}

type waitCommand struct {
	head
	Producer string `json:"producer"`
	Timeout  int64  `json:"timeout_ms"`
}

// finish calls a method with a time limit, once the sends before it are in the buffer, or at the limit.
func (d *driver) finish(line []byte, reply func(fields, error), do func(*seriatim.Producer, context.Context) error) error {
	var command waitCommand
	if err := decode(line, &command); err != nil {
		return err
	}
	p, ok := d.producers[command.Producer]
	if !ok {
		return fmt.Errorf("there is no producer %q", command.Producer)
	}
	before := p.sent
	ctx, cancel := within(command.Timeout)
	go func() {
		defer cancel()
		select {
		case <-before:
		case <-ctx.Done():
		}
		if p.Producer == nil {
			reply(nil, errNotMade)
			return
		}
		reply(nil, do(p.Producer, ctx))
	}()
	return nil
}

func (d *driver) flush(line []byte, reply func(fields, error)) error {
	return d.finish(line, reply, (*seriatim.Producer).Flush)
}

func (d *driver) closeProducer(line []byte, reply func(fields, error)) error {
	return d.finish(line, reply, (*seriatim.Producer).Close)
}

func (d *driver) consumer(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Consumer    string `json:"consumer"`
		Log         string `json:"log"`
		Start       string `json:"start"`
		Offset      uint64 `json:"offset"`
		Time        int64  `json:"time_us"`
		Cursor      string `json:"cursor"`
		SkipTrimmed bool   `json:"skip_trimmed"`
		AutoCommit  int64  `json:"auto_commit_ms"`
		Heartbeat   int64  `json:"heartbeat_ms"`
		MaxSilence  int64  `json:"max_silence_ms"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	options := seriatim.ConsumerOptions{
		Cursor: command.Cursor, SkipTrimmed: command.SkipTrimmed, AutoCommit: milliseconds(command.AutoCommit),
		Heartbeat: milliseconds(command.Heartbeat), MaxSilence: milliseconds(command.MaxSilence),
	}
	switch command.Start {
	case "earliest", "":
		options.Start = seriatim.Earliest()
	case "latest":
		options.Start = seriatim.Latest()
	case "offset":
		options.Start = seriatim.AtOffset(command.Offset)
	case "time":
		options.Start = seriatim.AtTime(time.UnixMicro(command.Time))
	case "last":
		options.Start = seriatim.LastRecords(command.Offset)
	default:
		return fmt.Errorf("there is no start %q", command.Start)
	}
	c := &consumer{made: make(chan struct{})}
	d.consumers[command.Consumer] = c
	client := d.client
	go func() {
		defer close(c.made)
		var err error
		c.Consumer, err = client.Consumer(context.Background(), command.Log, options)
		reply(nil, err)
	}()
	return nil
}

type consumerCommand struct {
	head
	Consumer string `json:"consumer"`
}

// withConsumer runs a function once the consumer with a name exists.
func (d *driver) withConsumer(name string, reply func(fields, error), do func(*consumer)) error {
	c, ok := d.consumers[name]
	if !ok {
		return fmt.Errorf("there is no consumer %q", name)
	}
	go func() {
		<-c.made
		if c.Consumer == nil {
			reply(nil, errNotMade)
			return
		}
		do(c)
	}()
	return nil
}

func (d *driver) next(line []byte, reply func(fields, error)) error {
	var command struct {
		consumerCommand
		Max     int   `json:"max"`
		Timeout int64 `json:"timeout_ms"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	return d.withConsumer(command.Consumer, reply, func(c *consumer) {
		c.reading.Lock()
		defer c.reading.Unlock()
		ctx, cancel := within(command.Timeout)
		defer cancel()
		records, skipped := []fields{}, uint64(0)
		for record, err := range c.Records(ctx) {
			if err != nil {
				if ctx.Err() == nil && len(records) == 0 {
					reply(nil, err)
					return
				}
				// The time is up, or the next command gets the error.
				break
			}
			records = append(records, fields{"offset": record.Offset, "value": latin1(record.Value)})
			skipped += record.Skipped
			if len(records) == command.Max {
				break
			}
		}
		reply(fields{"records": records, "skipped": skipped}, nil)
	})
}

func (d *driver) commit(line []byte, reply func(fields, error)) error {
	var command consumerCommand
	if err := decode(line, &command); err != nil {
		return err
	}
	return d.withConsumer(command.Consumer, reply, func(c *consumer) {
		offset, _ := c.Position()
		if err := c.Commit(context.Background()); err != nil {
			reply(nil, err)
			return
		}
		reply(fields{"next_offset": offset}, nil)
	})
}

func (d *driver) closeConsumer(line []byte, reply func(fields, error)) error {
	var command consumerCommand
	if err := decode(line, &command); err != nil {
		return err
	}
	return d.withConsumer(command.Consumer, reply, func(c *consumer) { reply(nil, c.Close(context.Background())) })
}

func (d *driver) getCursor(line []byte, reply func(fields, error)) error {
	var command struct {
		head
		Log    string `json:"log"`
		Cursor string `json:"cursor"`
	}
	if err := decode(line, &command); err != nil {
		return err
	}
	client := d.client
	go func() {
		cursor, err := client.Cursor(context.Background(), command.Log, command.Cursor)
		reply(fields{"next_offset": cursor.NextOffset, "epoch": cursor.Epoch, "lag": cursor.Lag}, err)
	}()
	return nil
}

func (d *driver) close(line []byte, reply func(fields, error)) error {
	var command head
	if err := decode(line, &command); err != nil {
		return err
	}
	reply(nil, d.client.Close())
	return nil
}
