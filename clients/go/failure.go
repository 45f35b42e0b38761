package main

import (
	"fmt"
	"maps"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is what an error of Seriatim tells a client to do.
//
// Written against proto/seriatim/v1/errors.proto. It decides by the keys "outcome" and "retry" of ErrorInfo and by
// RetryInfo. It knows no reason, because newer servers may send others.
type failure struct {
	status *status.Status
	// What became of the request: "none", "done" or "unknown".
	outcome string
	// Whether the same request can succeed: "no", "same" (the same node), "elsewhere" (another one), "later" (after a
	// person acted).
	retry string
	// The pause that RetryInfo asks for, or 0.
	pause time.Duration
	// For people: the reason of ErrorInfo, and the other keys.
	reason   string
	metadata map[string]string
	// Whether the connection broke or none was made. Only a read may then be sent again: it changes nothing.
	connectionBroke bool
}

func failureOf(failed *status.Status) failure {
	f := failure{status: failed, outcome: "unknown", retry: "no"}
	domain := ""
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			domain, f.reason, f.metadata = detail.Domain, detail.Reason, maps.Clone(detail.Metadata)
		case *errdetails.RetryInfo:
			f.pause = detail.RetryDelay.AsDuration()
		}
	}
	if domain == "seriatim" {
		f.take("outcome", &f.outcome)
		f.take("retry", &f.retry)
		return f
	}
	// Comes from gRPC itself, or from a check before the request was read.
	switch failed.Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		f.outcome = "none"
	case codes.Unavailable:
		f.connectionBroke = true
	}
	return f
}

func (f *failure) take(key string, into *string) {
	if value, ok := f.metadata[key]; ok {
		*into = value
		delete(f.metadata, key)
	}
}

// describe returns `CODE (REASON): message {metadata} [outcome, retry]`, or the text of an error that is no status.
func describe(err error) string {
	failed, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	f := failureOf(failed)
	reason, metadata := "", ""
	if f.reason != "" {
		reason = " (" + f.reason + ")"
	}
	if len(f.metadata) > 0 {
		metadata = fmt.Sprintf(" %v", f.metadata)
	}
	name := code.Code(failed.Code()).String()
	return fmt.Sprintf("%s%s: %s%s [outcome %s, retry %s]", name, reason, failed.Message(), metadata, f.outcome, f.retry)
}
