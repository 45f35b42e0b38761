// Package seriatim is a client of Seriatim, a replicated commit log.
//
//	client, err := seriatim.Dial([]string{"host1:8400", "host2:8400"}, seriatim.WithTLS("ca.pem", "client.pem", "client-key.pem"))
//	producer, err := client.Producer(ctx, "orders", seriatim.ProducerOptions{})
//	ack, err := producer.Append(ctx, seriatim.Record{Value: []byte("hello")})
//	consumer, err := client.Consumer(ctx, "orders", seriatim.ConsumerOptions{Start: seriatim.Earliest()})
//	for record, err := range consumer.Records(ctx) {
//
// A [Client] finds the nodes of a cluster and retries what can be retried. A [Producer] batches records and appends each exactly
// once, in the order of the calls. A [Consumer] continues after a failure where it was, and stores its position in a cursor if it is
// given one. All failures are of the type [*Error].
//
// The files of this package, in reading order: errors.go (errors, and the outcome of several attempts), node.go (connections and
// members), call.go (the choice of the node, pauses, calls with one answer), queue.go (how records become requests), producer.go,
// deliver.go (the stream of a producer), consumer.go, cursor.go.
package seriatim
