import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Flink with the net in a map function, in one process: record by record, as a map is.
 *
 * <p>At least once, with a checkpoint a second; source, map and sink are one chain, whose objects are reused. Prints
 * {@code ready} when a map is there.
 */
public final class FlinkNet {
    private static final class Queries extends AbstractDeserializationSchema<Net.Query> {
        @Override
        public Net.Query deserialize(byte[] value) throws IOException {
            return Net.decode(value);
        }
    }

    private static final class Predictions implements KafkaRecordSerializationSchema<Net.Answer> {
        @Override
        public ProducerRecord<byte[], byte[]> serialize(Net.Answer answer, KafkaSinkContext context, Long timestamp) {
            byte[] key = answer.query_id().getBytes(StandardCharsets.UTF_8);
            return new ProducerRecord<>(Net.PREDICTIONS, key, Net.encode(answer));
        }
    }

    private static final class Predict extends RichMapFunction<Net.Query, Net.Answer> {
        private transient Net net;

        @Override
        public void open(OpenContext context) {
            net = new Net();
            System.out.println("ready");
        }

        @Override
        public Net.Answer map(Net.Query query) {
            return net.answer(query);
        }
    }

    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(Net.THREADS);
        environment.enableCheckpointing(Net.COMMIT_MS, CheckpointingMode.AT_LEAST_ONCE);
        environment.getConfig().enableObjectReuse();
        KafkaSource<Net.Query> source = KafkaSource.<Net.Query>builder()
            .setBootstrapServers(Net.BOOTSTRAP)
            .setGroupId(Net.GROUP)
            .setTopics(Net.QUERIES)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new Queries())
            .build();
        KafkaSinkBuilder<Net.Answer> sink = KafkaSink.<Net.Answer>builder()
            .setBootstrapServers(Net.BOOTSTRAP)
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setRecordSerializer(new Predictions());
        Net.PRODUCER.forEach(sink::setProperty);
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "queries")
            .map(new Predict())
            .sinkTo(sink.build());
        environment.execute();
    }
}
