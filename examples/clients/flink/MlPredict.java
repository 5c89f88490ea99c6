import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * Flink SQL asks a gateway by {@code ML_PREDICT}, with Flink's own provider for Triton; prints an output a row.
 *
 * <pre>java -cp 'target/classes:target/dependency/*' MlPredict http://localhost:8080 sums</pre>
 */
public final class MlPredict {
    public static void main(String[] arguments) throws Exception {
        TableEnvironment flink = TableEnvironment.create(EnvironmentSettings.inBatchMode());
        flink.executeSql("""
            CREATE MODEL served INPUT (`input` ARRAY<FLOAT>) OUTPUT (`output` DOUBLE)
            WITH ('provider' = 'triton-mended', 'endpoint' = '%s', 'model-name' = '%s', 'model-version' = '1')
            """.formatted(arguments[0], arguments[1]));
        flink.executeSql("""
            CREATE TEMPORARY VIEW questions AS SELECT * FROM (VALUES
                (1, ARRAY[CAST(1 AS FLOAT), CAST(2 AS FLOAT), CAST(3 AS FLOAT)]),
                (2, ARRAY[CAST(4 AS FLOAT), CAST(5 AS FLOAT), CAST(6 AS FLOAT)])
            ) AS questions (id, features)
            """);
        String query = "SELECT id, `output` FROM ML_PREDICT(TABLE questions, MODEL served, DESCRIPTOR(features))";
        try (CloseableIterator<Row> rows = flink.executeSql(query).collect()) {
            rows.forEachRemaining(row -> System.out.println(row.getField(0) + " " + row.getField(1)));
        }
    }
}
