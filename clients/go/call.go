package seriatim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// pauses are pauses that double, with a random part.
type pauses struct {
	first, longest time.Duration
	// The next one without its random part. 0: first.
	base time.Duration
}

func (p *pauses) next() time.Duration {
	base := max(p.base, p.first)
	p.base = min(2*base, p.longest)
	return time.Duration(float64(base) * (0.5 + rand.Float64()))
}

// nextButFirst is next, without a pause before the first attempt after a success.
func (p *pauses) nextButFirst() time.Duration {
	isFirst := p.base == 0
	pause := p.next()
	if isFirst {
		return 0
	}
	return pause
}

func (p *pauses) reset() { p.base = 0 }

// route chooses the node of each attempt. It belongs to one call or stream.
type route struct {
	c *Client
	// The log whose leader is preferred. Only if toLeader is set.
	log      string
	toLeader bool
	// The node of the next attempt. nil: the client's.
	now *node
	// The address of the leader. Empty: unknown.
	leader string
	// The nodes that have failed since the last success or pause.
	tried  map[*node]bool
	pauses pauses
}

func (c *Client) route(log string, toLeader bool) *route {
	p := pauses{first: c.settings.minBackoff, longest: c.settings.maxBackoff}
	return &route{c: c, log: log, toLeader: toLeader, tried: map[*node]bool{}, pauses: p}
}

// connect returns a connection to the node of the next attempt, which belongs to the cluster. The caller releases it, also with an
// error, unless it is nil.
func (r *route) connect(ctx context.Context) (*conn, *Error) {
	if r.now == nil {
		r.now = r.c.first()
	}
	for {
		r.turnToLeader()
		cn, err := r.c.acquire(r.now)
		if err != nil {
			return nil, err
		}
		if !r.c.isChecked(cn) || r.toLeader && r.leader == "" {
			if err := r.ask(ctx, cn); err != nil {
				return cn, err
			}
		}
		if !r.turnToLeader() {
			return cn, nil
		}
		r.c.release(cn)
	}
}

// turnToLeader chooses the leader, if it is known, and has not failed just now. Returns whether it has changed the node.
func (r *route) turnToLeader() bool {
	if r.leader == "" || r.leader == r.now.addr {
		return false
	}
	leader := r.c.at(r.leader)
	if r.tried[leader] {
		return false
	}
	r.now = leader
	return true
}

// ask asks a node for the members and the leader.
func (r *route) ask(ctx context.Context, cn *conn) *Error {
	request := &seriatimv1.GetServersRequest{}
	if r.toLeader {
		request.Log = logName(r.log)
	}
	answer, err := attempt(ctx, r.c, cn, true, request, seriatimv1.LogServiceClient.GetServers)
	if err != nil {
		return err.withOutcome(OutcomeNone)
	}
	leader, err := r.c.learn(cn, answer)
	if err != nil {
		return err
	}
	if r.toLeader {
		r.leader = leader
	}
	return nil
}

func logName(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

// succeeded notes an answer. The pauses begin anew.
func (r *route) succeeded() {
	r.pauses.reset()
	clear(r.tried)
	if !r.toLeader {
		r.c.answeredBy(r.now)
	}
}

// failed chooses the node of the next attempt after an error. It returns the pause before it, and whether there is one.
func (r *route) failed(cn *conn, e *Error) (pause time.Duration, again bool) {
	if e.broken && cn != nil {
		r.c.lost(cn)
	}
	if r.now == nil {
		return 0, false
	}
	failed := r.now
	if r.leader == failed.addr {
		r.leader = ""
	}
	if hint := e.Metadata["leader"]; r.toLeader && hint != "" && hint != failed.addr {
		r.leader = hint
	}
	switch {
	case e.broken || e.Retry == RetryElsewhere:
		r.tried[failed] = true
		r.now = r.c.after(failed, r.tried)
		if r.now == nil {
			clear(r.tried)
			r.now = r.c.after(failed, nil)
			pause = r.pauses.next()
			if r.now == failed {
				// There is no other node.
				pause = max(pause, e.retryAfter)
			}
		}
	case e.Retry == RetrySame || e.Retry == RetryLater:
		pause = max(r.pauses.next(), e.retryAfter)
	default:
		return 0, false
	}
	r.c.settings.logger.Debug("seriatim: retrying", "error", e, "node", r.now.addr, "pause", pause)
	return pause, true
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type method[Request, Response any] = func(
	seriatimv1.LogServiceClient, context.Context, *Request, ...grpc.CallOption,
) (*Response, error)

// attempt sends a request once. A lost answer to a read is no reason to say that something may have been done.
func attempt[Request, Response any](
	ctx context.Context, c *Client, cn *conn, isRead bool, request *Request, do method[Request, Response],
) (*Response, *Error) {
	within, cancel := context.WithTimeout(ctx, c.settings.attemptTimeout)
	defer cancel()
	var to peer.Peer
	response, err := do(seriatimv1.NewLogServiceClient(cn), within, request, grpc.Peer(&to))
	if err == nil {
		return response, nil
	}
	// Without a peer, the request has never left this process.
	e := errorOf(err, to.Addr != nil)
	if !e.answered && within.Err() != nil && ctx.Err() == nil {
		e = noAnswer(fmt.Sprintf("no answer from %s", cn.node.addr), c.settings.attemptTimeout, e.Outcome)
	}
	if isRead && (e.broken || ctx.Err() != nil) && !e.answered {
		e = e.withOutcome(OutcomeNone)
	}
	return nil, e
}

// call sends a request that can always be sent again, until it is answered.
func call[Request, Response any](
	ctx context.Context, c *Client, r *route, isRead bool, request *Request, do method[Request, Response],
) (*Response, *Error) {
	if err := c.failure(); err != nil {
		return nil, err
	}
	limit := c.settings.operationTimeout
	within, cancel := c.within(ctx)
	defer cancel()
	within, cancelTimeout := context.WithTimeout(within, limit)
	defer cancelTimeout()
	var f fate
	var last *Error
	for {
		cn, err := r.connect(within)
		if err == nil {
			var response *Response
			response, err = attempt(within, c, cn, isRead, request, do)
			if err == nil {
				c.release(cn)
				r.succeeded()
				return response, nil
			}
			f.add(err.Outcome)
		}
		if within.Err() == nil {
			last = err.withOutcome(f.outcome())
			pause, again := r.failed(cn, last)
			if cn != nil {
				c.release(cn)
			}
			if !again {
				return nil, last
			}
			if sleep(within, pause) {
				continue
			}
		} else if cn != nil {
			c.release(cn)
		}
		what := "the context has ended"
		if ctx.Err() == nil {
			what = fmt.Sprintf("not done within %v", limit)
		}
		return nil, ended(context.Cause(within), what, f.outcome(), last)
	}
}

// refreshMembers asks for the members every 5 minutes, and after a connection was lost, until a node answers.
func (c *Client) refreshMembers() {
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	r := c.route("", false)
	for {
		select {
		case <-ticker.C:
		case <-c.refresh:
		case <-c.ctx.Done():
			return
		}
		for c.ctx.Err() == nil {
			cn, err := r.connect(c.ctx)
			if err == nil {
				err = r.ask(c.ctx, cn)
			}
			pause, again := time.Duration(0), false
			if err != nil {
				pause, again = r.failed(cn, err)
			}
			if cn != nil {
				c.release(cn)
			}
			if err == nil {
				r.succeeded()
			}
			if !again || !sleep(c.ctx, pause) {
				break
			}
		}
	}
}

// acquire is members.acquire. The first one starts what the client does by itself.
func (c *Client) acquire(n *node) (*conn, *Error) {
	c.started.Do(func() { go c.refreshMembers() })
	return c.members.acquire(n)
}

// learn takes what a node says about its cluster. Another cluster ends the client.
func (c *Client) learn(cn *conn, answer *seriatimv1.GetServersResponse) (leader string, err *Error) {
	leader, changed := c.members.learn(cn, answer)
	if !changed {
		return leader, nil
	}
	err = &Error{
		Kind: ErrMismatch, Code: codes.FailedPrecondition, Reason: reasonClusterChanged, Outcome: OutcomeNone, Retry: RetryNo,
		Message:  fmt.Sprintf("%s belongs to another cluster than the nodes before it", cn.node.addr),
		Metadata: map[string]string{"cluster_id": answer.ClusterId},
	}
	c.stop(err)
	return "", err
}
