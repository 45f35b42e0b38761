package seriatim

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusal is the error of a server.
func refusal(t *testing.T, code codes.Code, reason string, metadata map[string]string) *Error {
	t.Helper()
	failed, err := status.New(code, "a message").WithDetails(&errdetails.ErrorInfo{Domain: "seriatim", Reason: reason, Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	return errorOf(failed.Err(), true)
}

func TestOutcomeOverAttempts(t *testing.T) {
	const none, done, unknown = OutcomeNone, OutcomeDone, OutcomeUnknown
	for _, test := range []struct {
		attempts []Outcome
		want     Outcome
	}{
		{nil, none},
		{[]Outcome{none, none}, none},
		{[]Outcome{unknown}, unknown},
		{[]Outcome{none, unknown}, unknown},
		// A refusal proves nothing about an earlier attempt.
		{[]Outcome{unknown, none, none}, unknown},
		{[]Outcome{unknown, done}, done},
		{[]Outcome{done, unknown, none}, done},
	} {
		var f fate
		for _, attempt := range test.attempts {
			f.add(attempt)
		}
		if got := f.outcome(); got != test.want {
			t.Errorf("%v: %v, want %v", test.attempts, got, test.want)
		}
	}
}

func TestErrorWithoutKeysIsUnknownAndNotRetried(t *testing.T) {
	for _, metadata := range []map[string]string{nil, {"outcome": "perhaps", "retry": "sometimes"}} {
		e := refusal(t, codes.FailedPrecondition, "OF_A_NEWER_SERVER", metadata)
		if e.Outcome != OutcomeUnknown || e.Retry != RetryNo || !errors.Is(e, ErrOutcomeUnknown) {
			t.Errorf("%v: %v", metadata, e)
		}
	}
}

func TestStatusWithoutErrorInfo(t *testing.T) {
	for _, test := range []struct {
		code    codes.Code
		wasSent bool
		outcome Outcome
		kind    Kind
		broken  bool
	}{
		{codes.Unavailable, true, OutcomeUnknown, ErrOutcomeUnknown, true},
		{codes.Unavailable, false, OutcomeNone, ErrUnavailable, true},
		{codes.PermissionDenied, true, OutcomeNone, ErrNotAllowed, false},
		{codes.Unimplemented, true, OutcomeNone, ErrInvalid, false},
		{codes.ResourceExhausted, true, OutcomeUnknown, ErrOutcomeUnknown, false},
		{codes.Aborted, true, OutcomeUnknown, ErrOutcomeUnknown, false},
		// gRPC's own statuses for a connection that broke, or was closed while a request was sent. They closed a producer.
		{codes.Internal, true, OutcomeUnknown, ErrOutcomeUnknown, true},
		{codes.Unknown, false, OutcomeNone, ErrUnavailable, true},
		{codes.Canceled, false, OutcomeNone, ErrUnavailable, true},
		{codes.DeadlineExceeded, true, OutcomeUnknown, ErrOutcomeUnknown, true},
	} {
		e := errorOf(status.Error(test.code, "x"), test.wasSent)
		if e.Outcome != test.outcome || e.Kind != test.kind || e.broken != test.broken {
			t.Errorf("%v, sent %v: %v, %v, broken %v", test.code, test.wasSent, e.Outcome, e.Kind, e.broken)
		}
	}
}

func TestErrorOfAnotherDomainIsNotOurs(t *testing.T) {
	info := &errdetails.ErrorInfo{Domain: "a.proxy", Reason: "NO_SUCH_LOG", Metadata: map[string]string{"outcome": "none", "retry": "no"}}
	failed, err := status.New(codes.Unavailable, "x").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	if e := errorOf(failed.Err(), true); e.Outcome != OutcomeUnknown || e.Reason != "" || !e.broken {
		t.Errorf("%v", e)
	}
}

func TestKindFollowsTheOutcomeOfAllAttempts(t *testing.T) {
	keys := map[string]string{"outcome": "none", "retry": "no"}
	denied := refusal(t, codes.PermissionDenied, "NOT_ALLOWED", keys)
	if denied.Kind != ErrNotAllowed || denied.MayHaveBeenDone() {
		t.Errorf("%v", denied)
	}
	if later := denied.withOutcome(OutcomeUnknown); later.Kind != ErrOutcomeUnknown || !later.MayHaveBeenDone() || denied.Kind != ErrNotAllowed {
		t.Errorf("%v", later)
	}
	// The reason is more than the outcome.
	if fenced := refusal(t, codes.FailedPrecondition, "PRODUCER_FENCED", nil); fenced.Kind != ErrFenced || !fenced.MayHaveBeenDone() {
		t.Errorf("%v", fenced)
	}
	closed := closedError("the producer")
	if closed.Kind != ErrClosed || closed.withOutcome(OutcomeUnknown).Kind != ErrOutcomeUnknown || closed.withOutcome(OutcomeNone).Kind != ErrClosed {
		t.Errorf("%v", closed)
	}
}

func TestErrorsWorkWithIsAndAs(t *testing.T) {
	err := asError(ended(context.DeadlineExceeded, "too late", OutcomeNone, nil))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCancelled) {
		t.Errorf("%v", err)
	}
	if asError(nil) != nil {
		t.Error("a nil *Error is an error")
	}
}
