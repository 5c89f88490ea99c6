// A client of clipper-stream: asks a query, waits for its prediction, sends feedback, waits for the acknowledgement.
//
//	go run . localhost:9092 sums '[1, 2]' 3
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	queries     = "clipper.queries"
	predictions = "clipper.predictions"
	feedback    = "clipper.feedback"
	acks        = "clipper.feedback-acks"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: client BOOTSTRAP APPLICATION INPUT LABEL")
	}
	bootstrap, application, input, label := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := connect(ctx, bootstrap)
	defer client.Close()

	id := rand.Text() // query id, key and correlation id in one; a query with a context has the context as its key
	send(ctx, client, queries, id, map[string]any{
		"application": application, "query_id": id, "input": json.RawMessage(input),
	})
	fmt.Println(answer(ctx, client, predictions, id))
	send(ctx, client, feedback, id, map[string]any{
		"application": application, "query_id": id, "label": json.RawMessage(label), "ack": true,
	})
	fmt.Println(answer(ctx, client, acks, id))
}

// connect reads both topics from where they end now, so that no later answer is missed.
func connect(ctx context.Context, bootstrap string) *kgo.Client {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java's client
	)
	check(err)
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, predictions, acks)
	check(err)
	check(ends.Error())
	client.AddConsumePartitions(ends.KOffsets())
	return client
}

func send(ctx context.Context, client *kgo.Client, topic, id string, content any) {
	value, err := json.Marshal(content)
	check(err)
	record := &kgo.Record{
		Topic: topic, Key: []byte(id), Value: value,
		Headers: []kgo.RecordHeader{{Key: "correlation-id", Value: []byte(id)}},
	}
	check(client.ProduceSync(ctx, record).FirstErr())
}

// answer is the value of the first record of a topic that repeats the correlation id.
func answer(ctx context.Context, client *kgo.Client, topic, id string) string {
	for {
		fetches := client.PollFetches(ctx)
		check(fetches.Err())
		for _, record := range fetches.Records() {
			for _, header := range record.Headers {
				if record.Topic == topic && header.Key == "correlation-id" && string(header.Value) == id {
					return string(record.Value)
				}
			}
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
