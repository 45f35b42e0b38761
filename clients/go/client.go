package seriatim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// maxMessageBytes exceeds every response: the server sends at most 4 MiB.
const maxMessageBytes = 16 << 20

// Client is a client of one cluster. Many goroutines share it.
type Client struct {
	settings settings
	// Ends with the client. Its cause is the error of all later calls.
	ctx  context.Context
	stop context.CancelCauseFunc
	*members
}

type settings struct {
	tls              *tls.Config
	logger           *slog.Logger
	attemptTimeout   time.Duration
	operationTimeout time.Duration
	connectTimeout   time.Duration
	minBackoff       time.Duration
	maxBackoff       time.Duration
}

// Option changes a setting of a [Client].
type Option func(*settings) error

// WithTLS encrypts connections. It trusts the authority in caFile, and presents the certificate in certFile with the key in keyFile.
func WithTLS(caFile, certFile, keyFile string) Option {
	return func(s *settings) error {
		ca, err := os.ReadFile(caFile)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return fmt.Errorf("%s contains no certificate", caFile)
		}
		identity, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
		}
		s.tls = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS12}
		return nil
	}
}

// WithTLSConfig encrypts connections as config says.
func WithTLSConfig(config *tls.Config) Option {
	return func(s *settings) error {
		s.tls = config.Clone()
		return nil
	}
}

// WithLogger replaces [slog.Default]. The client logs at debug level, and warnings about producers that were not closed.
func WithLogger(logger *slog.Logger) Option {
	return func(s *settings) error {
		s.logger = logger
		return nil
	}
}

// WithAttemptTimeout limits one attempt of a call, 5 s by default.
func WithAttemptTimeout(d time.Duration) Option {
	return positive("attempt timeout", d, func(s *settings) { s.attemptTimeout = d })
}

// WithOperationTimeout limits a call with all its attempts, 120 s by default. A deadline of the caller's context may be earlier.
func WithOperationTimeout(d time.Duration) Option {
	return positive("operation timeout", d, func(s *settings) { s.operationTimeout = d })
}

// WithConnectTimeout limits one attempt to connect, 3 s by default.
func WithConnectTimeout(d time.Duration) Option {
	return positive("connect timeout", d, func(s *settings) { s.connectTimeout = d })
}

// WithBackoff sets the first and the longest pause between attempts, 100 ms and 5 s by default.
func WithBackoff(first, longest time.Duration) Option {
	return func(s *settings) error {
		if first <= 0 || longest < first {
			return fmt.Errorf("the pauses from %v to %v are not positive, or do not increase", first, longest)
		}
		s.minBackoff, s.maxBackoff = first, longest
		return nil
	}
}

func positive(what string, d time.Duration, set func(*settings)) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("the %s of %v is not positive", what, d)
		}
		set(s)
		return nil
	}
}

// Dial returns a client of the cluster to which the nodes at addrs (host:port) belong. It connects when it is first used.
func Dial(addrs []string, options ...Option) (*Client, error) {
	if len(addrs) == 0 {
		return nil, invalid("no address of a node")
	}
	for _, addr := range addrs {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return nil, invalid("address %q is not host:port", addr)
		}
	}
	s := settings{
		logger:           slog.Default(),
		attemptTimeout:   5 * time.Second,
		operationTimeout: 120 * time.Second,
		connectTimeout:   3 * time.Second,
		minBackoff:       100 * time.Millisecond,
		maxBackoff:       5 * time.Second,
	}
	for _, option := range options {
		if err := option(&s); err != nil {
			e := invalid("%v", err)
			e.cause = err
			return nil, e
		}
	}
	c := &Client{settings: s}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	c.members = newMembers(addrs, c.dialOptions())
	context.AfterFunc(c.ctx, c.members.close)
	return c, nil
}

func (c *Client) dialOptions() []grpc.DialOption {
	transport := insecure.NewCredentials()
	if c.settings.tls != nil {
		transport = credentials.NewTLS(c.settings.tls)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithUserAgent("seriatim-go"),
		grpc.WithNoProxy(),
		// This package decides what is sent again, and when a node is tried again.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: c.settings.minBackoff, Multiplier: 2, Jitter: 0.5, MaxDelay: c.settings.maxBackoff},
			MinConnectTimeout: c.settings.connectTimeout,
		}),
	}
}

// Ready waits until a node answers.
func (c *Client) Ready(ctx context.Context) error {
	_, err := call(ctx, c, c.route("", false), true, &seriatimv1.GetServersRequest{}, seriatimv1.LogServiceClient.GetServers)
	return asError(err)
}

// Close ends the client with its producers and consumers. Close them first: what a producer has not delivered fails.
func (c *Client) Close() error {
	c.stop(closedError("the client"))
	c.members.close()
	return nil
}

// failure returns why the client can't be used any more, or nil.
func (c *Client) failure() *Error {
	if c.ctx.Err() == nil {
		return nil
	}
	return context.Cause(c.ctx).(*Error)
}

// within returns a context that also ends with the client.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// asError keeps a nil *Error from becoming an error that is not nil.
func asError(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}
