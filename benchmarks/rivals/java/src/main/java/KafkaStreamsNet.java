import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams with the net in its own process: record by record, which is the only way its DSL has without state.
 *
 * <p>At least once, its default, with a commit a second. Prints {@code ready} when it has its partitions.
 */
public final class KafkaStreamsNet {
    private static final Serde<Net.Query> QUERY =
        Serdes.serdeFrom((topic, query) -> null, (topic, value) -> decoded(value)); // queries are only read
    private static final Serde<Net.Answer> ANSWER =
        Serdes.serdeFrom((topic, answer) -> Net.encode(answer), (topic, value) -> null); // answers only written

    private static Net.Query decoded(byte[] value) {
        try {
            return Net.decode(value);
        } catch (IOException error) {
            throw new UncheckedIOException(error); // its handler stops the application, as is its default
        }
    }

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, Net.BOOTSTRAP);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, Net.GROUP);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Net.FOLDER);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Net.THREADS);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Net.COMMIT_MS);
        Net.PRODUCER.forEach((name, value) -> settings.put(StreamsConfig.producerPrefix(name), value));

        Net net = new Net();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(Net.QUERIES, Consumed.with(Serdes.ByteArray(), QUERY))
            .mapValues(net::answer)
            .to(Net.PREDICTIONS, Produced.with(Serdes.ByteArray(), ANSWER));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("ready");
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
