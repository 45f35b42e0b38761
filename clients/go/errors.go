package seriatim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind tells errors apart. It is an error itself, so that errors.Is(err, seriatim.ErrFenced) works.
type Kind string

const (
	ErrNotFound       Kind = "not_found"
	ErrMismatch       Kind = "mismatch" // an expected offset, revision, epoch, log id or cluster
	ErrFenced         Kind = "fenced"   // another process has taken the producer or the cursor over
	ErrTooLarge       Kind = "too_large"
	ErrTrimmed        Kind = "trimmed"
	ErrPastEnd        Kind = "past_end"
	ErrNotAllowed     Kind = "not_allowed"
	ErrUnavailable    Kind = "unavailable"
	ErrExhausted      Kind = "exhausted"
	ErrDataLoss       Kind = "data_loss"
	ErrOutcomeUnknown Kind = "outcome_unknown" // the request may have been done
	ErrInvalid        Kind = "invalid"
	ErrTimeout        Kind = "timeout"
	ErrCancelled      Kind = "cancelled"
	ErrClosed         Kind = "closed" // the client, the producer or the consumer was closed
	ErrOther          Kind = "other"
)

func (k Kind) Error() string { return string(k) }

// Outcome is what became of a request.
type Outcome string

const (
	OutcomeNone    Outcome = "none" // nothing was done, and nothing will be
	OutcomeDone    Outcome = "done" // it was done, although the answer is lost
	OutcomeUnknown Outcome = "unknown"
)

// Retry says whether the same request can succeed when it is sent again.
type Retry string

const (
	RetryNo        Retry = "no"
	RetrySame      Retry = "same"
	RetryElsewhere Retry = "elsewhere"
	RetryLater     Retry = "later"
)

// Error is the type of all errors of this package. errors.proto describes its fields.
type Error struct {
	Kind    Kind
	Code    codes.Code
	Reason  string
	Message string
	// The keys of ErrorInfo but `outcome` and `retry`.
	Metadata map[string]string
	// The outcome of all attempts together.
	Outcome Outcome
	// The retry of the last attempt.
	Retry Retry

	// The time that RetryInfo demands.
	retryAfter time.Duration
	// The connection broke, or an attempt had no answer in time: the next node may answer.
	broken bool
	// The status has an ErrorInfo of Seriatim.
	answered bool
	// The client, the producer or the consumer was closed.
	closed bool
	cause  error
}

// Error returns `CODE (REASON): message [outcome, retry]`.
func (e *Error) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	return fmt.Sprintf("%s%s: %s [outcome %s, retry %s]", codeName(e.Code), reason, e.Message, e.Outcome, e.Retry)
}

// Unwrap returns the error of the context that has ended the operation, if one has.
func (e *Error) Unwrap() error { return e.cause }

// Is compares with a [Kind].
func (e *Error) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && kind == e.Kind
}

// MayHaveBeenDone says whether the request may have had an effect, or may have one later.
func (e *Error) MayHaveBeenDone() bool { return e.Outcome != OutcomeNone }

// number returns a number of the metadata.
func (e *Error) number(key string) (int, bool) {
	n, err := strconv.Atoi(e.Metadata[key])
	return n, err == nil && n >= 0
}

// CodeName returns gRPC's name of the code, such as UNAVAILABLE.
func (e *Error) CodeName() string { return codeName(e.Code) }

func codeName(c codes.Code) string { return code.Code(c).String() }

// withOutcome returns a copy with another outcome, and the kind that follows from it.
func (e *Error) withOutcome(outcome Outcome) *Error {
	other := *e
	other.Outcome = outcome
	if other.closed && outcome != OutcomeUnknown {
		other.Kind = ErrClosed
	} else {
		other.Kind = kindOf(e.Reason, outcome, e.Code)
	}
	return &other
}

func kindOf(reason string, outcome Outcome, c codes.Code) Kind {
	switch reason {
	case "NO_SUCH_LOG", "LOG_DELETED", "NO_SUCH_PRODUCER", "NO_SUCH_CURSOR":
		return ErrNotFound
	case "EXPECTED_OFFSET_MISMATCH", "REVISION_MISMATCH", "EPOCH_MISMATCH", "LOG_ID_MISMATCH", "CURSOR_BEHIND", reasonClusterChanged:
		return ErrMismatch
	case "PRODUCER_FENCED", "CURSOR_FENCED":
		return ErrFenced
	case "RECORD_TOO_LARGE", "REQUEST_TOO_LARGE":
		return ErrTooLarge
	case "OFFSET_TRIMMED":
		return ErrTrimmed
	case "OFFSET_PAST_END":
		return ErrPastEnd
	case "RECORD_DAMAGED":
		return ErrDataLoss
	}
	if outcome == OutcomeUnknown {
		return ErrOutcomeUnknown
	}
	switch c {
	case codes.PermissionDenied, codes.Unauthenticated:
		return ErrNotAllowed
	case codes.Unavailable:
		return ErrUnavailable
	case codes.ResourceExhausted:
		return ErrExhausted
	case codes.InvalidArgument, codes.Unimplemented:
		return ErrInvalid
	case codes.DeadlineExceeded:
		return ErrTimeout
	case codes.Canceled:
		return ErrCancelled
	case codes.NotFound:
		return ErrNotFound
	case codes.OutOfRange:
		return ErrPastEnd
	case codes.DataLoss:
		return ErrDataLoss
	}
	return ErrOther
}

// errorOf reads the details of a status. wasSent says whether the request may have left this process.
func errorOf(err error, wasSent bool) *Error {
	failed := status.Convert(err)
	e := &Error{Code: failed.Code(), Message: failed.Message(), Outcome: OutcomeUnknown, Retry: RetryNo}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "seriatim" {
				e.Reason, e.Metadata, e.answered = detail.Reason, maps.Clone(detail.Metadata), true
			}
		case *errdetails.RetryInfo:
			e.retryAfter = detail.RetryDelay.AsDuration()
		}
	}
	if e.answered {
		// A value that is not known here counts as the one that promises less.
		switch outcome := Outcome(e.Metadata["outcome"]); outcome {
		case OutcomeNone, OutcomeDone:
			e.Outcome = outcome
		}
		switch retry := Retry(e.Metadata["retry"]); retry {
		case RetrySame, RetryElsewhere, RetryLater:
			e.Retry = retry
		}
		delete(e.Metadata, "outcome")
		delete(e.Metadata, "retry")
	} else {
		switch e.Code {
		case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
			e.Outcome = OutcomeNone
		case codes.Unavailable, codes.DeadlineExceeded:
			e.broken, e.Retry = true, RetryElsewhere
		case codes.Unknown, codes.Internal, codes.Canceled:
			// A caller that has cancelled looks at its context.
			e.broken, e.Retry = true, RetryElsewhere
			e.Code, e.Message = codes.Unavailable, codeName(e.Code)+": "+e.Message
		}
		if !wasSent {
			e.Outcome = OutcomeNone
		}
	}
	e.Kind = kindOf(e.Reason, e.Outcome, e.Code)
	return e
}

// noAnswer is the error of an attempt, or of a stream, that was silent for too long.
func noAnswer(what string, after time.Duration, outcome Outcome) *Error {
	e := &Error{Code: codes.DeadlineExceeded, Outcome: outcome, Retry: RetryElsewhere, broken: true}
	e.Message = fmt.Sprintf("%s within %v", what, after)
	e.Kind = kindOf("", outcome, e.Code)
	return e
}

// broken is the error of a connection that is of no use any more.
func broken(message string, outcome Outcome) *Error {
	e := &Error{Code: codes.Unavailable, Message: message, Outcome: outcome, Retry: RetryElsewhere, broken: true}
	e.Kind = kindOf("", outcome, e.Code)
	return e
}

// ended is the error of an operation that its context has ended. last is the error of its last attempt, or nil.
func ended(cause error, what string, outcome Outcome, last *Error) *Error {
	var dead *Error
	if errors.As(cause, &dead) {
		return dead.withOutcome(outcome)
	}
	e := &Error{Code: codes.DeadlineExceeded, Message: what, Outcome: outcome, Retry: RetryNo, cause: cause}
	if errors.Is(cause, context.Canceled) {
		e.Code = codes.Canceled
	}
	if last != nil {
		e.Message += "; the last error was " + last.Error()
	}
	e.Kind = kindOf("", outcome, e.Code)
	return e
}

func closedError(what string) *Error {
	message := what + " was closed"
	return &Error{Kind: ErrClosed, Code: codes.Canceled, Message: message, Outcome: OutcomeNone, Retry: RetryNo, closed: true}
}

func invalid(format string, args ...any) *Error {
	message := fmt.Sprintf(format, args...)
	return &Error{Kind: ErrInvalid, Code: codes.InvalidArgument, Message: message, Outcome: OutcomeNone, Retry: RetryNo}
}

// fate is the outcome of several attempts of the same request.
//
// After an attempt with an unknown outcome it stays unknown, until the server answers the request itself. A refusal of a later
// attempt proves nothing about an earlier one.
type fate struct{ unknown, done bool }

func (f *fate) add(attempt Outcome) {
	f.unknown = f.unknown || attempt == OutcomeUnknown
	f.done = f.done || attempt == OutcomeDone
}

func (f fate) outcome() Outcome {
	switch {
	case f.done:
		return OutcomeDone
	case f.unknown:
		return OutcomeUnknown
	}
	return OutcomeNone
}
