import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A client of clipper-stream: asks a query, waits for its prediction, sends feedback, waits for the acknowledgement.
 *
 * <pre>mvn -q compile exec:java -Dexec.args="localhost:9092 sums '[1, 2]' 3"</pre>
 */
public final class ClipperClient implements AutoCloseable {
    private static final Duration WITHIN = Duration.ofMinutes(1);

    private final KafkaProducer<String, String> producer; // its partitioner is the one that all clients need
    private final KafkaConsumer<String, String> consumer;

    private ClipperClient(String bootstrap) {
        producer = new KafkaProducer<>(
            Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer());
        consumer = new KafkaConsumer<>(
            Map.of("bootstrap.servers", bootstrap, "isolation.level", "read_committed", "enable.auto.commit", "false"),
            new StringDeserializer(), new StringDeserializer());
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : List.of("clipper.predictions", "clipper.feedback-acks")) {
            consumer.partitionsFor(topic).forEach(one -> partitions.add(new TopicPartition(topic, one.partition())));
        }
        consumer.assign(partitions);
        consumer.seekToEnd(partitions);
        partitions.forEach(consumer::position); // seeks now, so that no answer to a later query is missed
    }

    /** Sends a record, and returns the value of the first record of another topic that repeats its correlation id. */
    private String exchange(String topic, String id, String value, String answerTopic) throws Exception {
        ProducerRecord<String, String> sent = new ProducerRecord<>(topic, id, value);
        sent.headers().add("correlation-id", id.getBytes(StandardCharsets.UTF_8));
        producer.send(sent).get();
        Instant end = Instant.now().plus(WITHIN);
        while (Instant.now().isBefore(end)) {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                Header header = record.headers().lastHeader("correlation-id");
                boolean ours = header != null && id.equals(new String(header.value(), StandardCharsets.UTF_8));
                if (ours && record.topic().equals(answerTopic)) {
                    return record.value();
                }
            }
        }
        throw new IllegalStateException("nothing on " + answerTopic + " within " + WITHIN);
    }

    @Override
    public void close() {
        producer.close();
        consumer.close();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 4) {
            throw new IllegalArgumentException("usage: BOOTSTRAP APPLICATION INPUT LABEL");
        }
        String id = UUID.randomUUID().toString(); // query id, key and correlation id in one
        String about = "{\"application\": \"%s\", \"query_id\": \"%s\", ".formatted(arguments[1], id);
        String query = about + "\"input\": %s}".formatted(arguments[2]);
        String feedback = about + "\"label\": %s, \"ack\": true}".formatted(arguments[3]);
        try (ClipperClient client = new ClipperClient(arguments[0])) {
            System.out.println(client.exchange("clipper.queries", id, query, "clipper.predictions"));
            System.out.println(client.exchange("clipper.feedback", id, feedback, "clipper.feedback-acks"));
        }
    }
}
