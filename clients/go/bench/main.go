// Compares a shared producer with unary Produce calls on one shared connection, to the same node.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/seriatim-log/seriatim/clients/go"
	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

func main() {
	addrs := flag.String("addrs", "127.0.0.1:8400", "nodes without TLS, with commas")
	log := flag.String("log", "default", "the log to append to")
	callers := flag.Int("callers", 256, "goroutines that append one record at a time")
	size := flag.Int("bytes", 100, "the size of a value")
	period := flag.Duration("period", 2*time.Second, "the length of one measurement")
	rounds := flag.Int("rounds", 3, "how often everything is measured, in turn")
	profile := flag.String("profile", "", "write a CPU profile of the shared producer to this file")
	flag.Parse()
	if err := run(strings.Split(*addrs, ","), *log, *callers, *size, *period, *rounds, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// appender appends one record.
type appender func(ctx context.Context) error

func run(addrs []string, log string, callers, size int, period time.Duration, rounds int, profile string) error {
	ctx := context.Background()
	client, err := seriatim.Dial(addrs)
	if err != nil {
		return err
	}
	defer client.Close()
	producer, err := client.Producer(ctx, log, seriatim.ProducerOptions{})
	if err != nil {
		return err
	}
	defer producer.Close(ctx)
	conn, err := connectToLeader(ctx, addrs[0], log)
	if err != nil {
		return err
	}
	defer conn.Close()

	value := []byte(strings.Repeat("x", size))
	unaryClient := seriatimv1.NewLogServiceClient(conn)
	unary := func(ctx context.Context) error {
		_, err := unaryClient.Produce(ctx, &seriatimv1.ProduceRequest{Log: log, Records: []*seriatimv1.Record{{Value: value}}})
		return err
	}
	shared := func(ctx context.Context) error {
		_, err := producer.Append(ctx, seriatim.Record{Value: value})
		return err
	}
	for _, warmUp := range []appender{unary, shared} {
		if _, err := measure(callers, period/4, warmUp); err != nil {
			return err
		}
	}
	var rates [2][]float64
	var latencies [2][]time.Duration
	for round := range rounds {
		for i, do := range []appender{unary, shared} {
			if i == 1 && round == 0 && profile != "" {
				file, err := os.Create(profile)
				if err != nil {
					return err
				}
				defer file.Close()
				if err := pprof.StartCPUProfile(file); err != nil {
					return err
				}
			}
			taken, err := measure(callers, period, do)
			pprof.StopCPUProfile()
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], float64(len(taken))/period.Seconds())
		}
		// The two take turns, because the speed of the disk changes.
		for range 4 {
			for i, do := range []appender{unary, shared} {
				taken, err := measure(1, period/8, do)
				if err != nil {
					return err
				}
				latencies[i] = append(latencies[i], taken...)
			}
		}
	}
	names := []string{"unary calls", "shared producer"}
	for i, name := range names {
		slices.Sort(latencies[i])
		fmt.Printf("%-16s %d callers: %7.0f records/s   one caller: p50 %v, p99 %v\n", name, callers, median(rates[i]),
			quantile(latencies[i], 0.5), quantile(latencies[i], 0.99))
	}
	fmt.Printf("ratio of the rates: %.1f\n", median(rates[1])/median(rates[0]))
	return nil
}

func connectToLeader(ctx context.Context, addr, log string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
	}
	first, err := grpc.NewClient(addr, options...)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	answer, err := seriatimv1.NewLogServiceClient(first).GetServers(ctx, &seriatimv1.GetServersRequest{Log: log})
	if err != nil {
		return nil, err
	}
	for _, server := range answer.Servers {
		if server.IsLeader {
			addr = server.RpcAddr
		}
	}
	return grpc.NewClient(addr, options...)
}

// measure appends with many callers for a period, and returns how long each record took.
func measure(callers int, period time.Duration, do appender) ([]time.Duration, error) {
	var group sync.WaitGroup
	taken := make([][]time.Duration, callers)
	failures := make([]error, callers)
	end := time.Now().Add(period)
	for i := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			for began := time.Now(); began.Before(end); {
				if err := do(context.Background()); err != nil {
					failures[i] = err
					return
				}
				now := time.Now()
				taken[i] = append(taken[i], now.Sub(began))
				began = now
			}
		}()
	}
	group.Wait()
	for _, err := range failures {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(taken...), nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))].Round(time.Microsecond)
}
