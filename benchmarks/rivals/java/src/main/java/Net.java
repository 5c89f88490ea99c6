import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.util.Map;
import java.util.Set;

/** What both rivals share: settings from the environment, JSON, and the net in ONNX Runtime, one row a call. */
final class Net {
    static final String BOOTSTRAP = System.getenv("RIVAL_BOOTSTRAP");
    static final String GROUP = System.getenv("RIVAL_GROUP");
    static final String QUERIES = System.getenv("RIVAL_QUERIES");
    static final String PREDICTIONS = System.getenv("RIVAL_PREDICTIONS");
    static final String FOLDER = System.getenv("RIVAL_FOLDER"); // for what is kept on disk
    static final int THREADS = Runtime.getRuntime().availableProcessors(); // those it is pinned to
    static final int COMMIT_MS = 1_000;
    /** Kafka's default since 4.0, where Kafka Streams has 100 ms; batches that a broker takes with pleasure. */
    static final Map<String, String> PRODUCER =
        Map.of("acks", "all", "linger.ms", "5", "batch.size", "131072");

    private static final ObjectMapper JSON =
        new JsonMapper(JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build());
    private static final Set<String> OUTPUT = Set.of("label");

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;

    record Query(String query_id, String application, float[] input) {}

    record Answer(String query_id, String application, long output) {}

    Net() {
        try {
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = environment.createSession(System.getenv("RIVAL_MODEL"), options);
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    Answer answer(Query query) {
        long[] shape = {1, query.input.length};
        try (OnnxTensor row = OnnxTensor.createTensor(environment, FloatBuffer.wrap(query.input), shape);
             OrtSession.Result found = session.run(Map.of("input", row), OUTPUT)) {
            return new Answer(query.query_id, query.application, ((long[]) found.get(0).getValue())[0]);
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    static Query decode(byte[] value) throws IOException {
        return JSON.readValue(value, Query.class);
    }

    static byte[] encode(Answer answer) {
        try {
            return JSON.writeValueAsBytes(answer);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error);
        }
    }
}
