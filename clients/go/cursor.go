package seriatim

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// Cursor is the position of a reader, which the cluster stores under a name.
type Cursor struct {
	Name string
	// The next record to read.
	NextOffset uint64
	// Rises when another process takes the cursor over. 0: none has.
	Epoch uint64
	// The number of records from the position to the end of the log, without those that were trimmed.
	Lag uint64
	// The number of records from the position on that were trimmed.
	Trimmed uint64
	// What the process that has taken it over says about itself.
	Owner string
	// When the position was stored. The zero time: it is the one at which the cursor was created.
	CommitTime time.Time
}

// Cursor returns a cursor of a log.
func (c *Client) Cursor(ctx context.Context, log, name string) (Cursor, error) {
	request := &seriatimv1.GetCursorRequest{Log: log, Cursor: name}
	answer, err := call(ctx, c, c.route("", false), true, request, seriatimv1.LogServiceClient.GetCursor)
	if err != nil {
		return Cursor{}, err
	}
	from := answer.Cursor
	cursor := Cursor{
		Name: from.Cursor, NextOffset: from.NextOffset, Epoch: from.Epoch, Lag: from.Lag, Trimmed: from.Trimmed, Owner: from.Owner,
	}
	if from.CommitTimeUs != 0 {
		cursor.CommitTime = microseconds(from.CommitTimeUs)
	}
	return cursor, nil
}

// acquire takes the cursor over, and begins at its position.
func (n *Consumer) acquire(ctx context.Context) *Error {
	request := &seriatimv1.AcquireCursorRequest{
		Log: n.log, Cursor: n.options.Cursor, Instance: rand.Uint64() | 1, Owner: n.options.Owner,
		Start: n.request.Start, Offset: n.request.Offset, StartTimeUs: n.request.StartTimeUs,
	}
	answer, err := call(ctx, n.c, n.c.route("", false), false, request, seriatimv1.LogServiceClient.AcquireCursor)
	if err != nil {
		return err
	}
	cursor := answer.Cursor
	n.request.Start, n.request.Offset, n.request.StartTimeUs = seriatimv1.Start_START_OFFSET, cursor.NextOffset, 0
	n.request.LogId, n.logID = &cursor.LogId, cursor.LogId
	n.request.Cursor, n.request.CursorEpoch, n.epoch = cursor.Cursor, cursor.Epoch, cursor.Epoch
	n.taken, n.passed, n.committed, n.hasPosition = cursor.NextOffset, cursor.NextOffset, cursor.NextOffset, true
	return nil
}

// Position returns the offset after the last record that the application has taken. A consumer that has received nothing yet, and has
// no cursor, has none.
func (n *Consumer) Position() (offset uint64, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.taken, n.hasPosition
}

// Commit stores the position after the last record that the application has taken in the cursor.
func (n *Consumer) Commit(ctx context.Context) error {
	if n.options.Cursor == "" {
		return invalid("the consumer has no cursor")
	}
	n.mu.Lock()
	err := n.err
	n.mu.Unlock()
	if err != nil && (err.closed || err.Kind == ErrFenced) {
		return err
	}
	return asError(n.commit(ctx, n.takenPosition))
}

// The positions that can be committed. The caller holds mu.
func (n *Consumer) takenPosition() uint64  { return n.taken }
func (n *Consumer) passedPosition() uint64 { return n.passed }

// commit stores a position, which is read once no other commit is in flight.
func (n *Consumer) commit(ctx context.Context, position func() uint64) *Error {
	select {
	case n.committing <- struct{}{}:
		defer func() { <-n.committing }()
	case <-ctx.Done():
		return ended(context.Cause(ctx), "another commit is in flight", OutcomeNone, nil)
	}
	n.mu.Lock()
	// A commit never moves the cursor back behind one that was made.
	next := max(position(), n.committed)
	n.mu.Unlock()
	request := &seriatimv1.CommitCursorRequest{
		Log: n.log, LogId: &n.logID, Cursor: n.options.Cursor, NextOffset: next, Epoch: n.epoch,
	}
	_, err := call(ctx, n.c, n.c.route("", false), false, request, seriatimv1.LogServiceClient.CommitCursor)
	if err != nil && err.Outcome != OutcomeDone {
		if err.Kind == ErrFenced {
			n.end(err)
		}
		return err
	}
	n.mu.Lock()
	n.committed = next
	n.mu.Unlock()
	return nil
}

func (n *Consumer) mustCommit() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passed > n.committed
}

// commitRegularly commits after each interval, if there is something to commit.
func (n *Consumer) commitRegularly() {
	defer n.running.Done()
	ticker := time.NewTicker(n.options.AutoCommit)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-n.ctx.Done():
			return
		}
		if !n.mustCommit() {
			continue
		}
		if err := n.commit(n.ctx, n.passedPosition); err != nil && n.ctx.Err() == nil {
			n.c.settings.logger.Debug("seriatim: commit failed", "log", logName(n.log), "cursor", n.options.Cursor, "error", err)
		}
	}
}
