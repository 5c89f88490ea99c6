import java.util.Collection;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.model.triton.TritonInferenceModelFunction;
import org.apache.flink.model.triton.TritonModelProviderFactory;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.functions.AsyncPredictFunction;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.ml.ModelProvider;
import org.apache.flink.table.types.logical.LogicalType;

/**
 * Flink's provider for Triton around two faults of its release 2.3.0: its check of column types is inverted and refuses
 * every model, and its function cannot be serialized. Requests and responses are those of the provider.
 */
public final class TritonProvider extends TritonModelProviderFactory {
    private static TritonInferenceModelFunction function; // one model, in one process

    private static final class Unchecked extends TritonInferenceModelFunction {
        Unchecked(Context context, ReadableConfig options) {
            super(context, options);
        }

        @Override
        protected void validateSingleColumnSchema(ResolvedSchema schema, LogicalType expected, String what) {}
    }

    public static final class Forwarded extends AsyncPredictFunction {
        @Override
        public void open(FunctionContext context) throws Exception {
            function.open(context);
        }

        @Override
        public CompletableFuture<Collection<RowData>> asyncPredict(RowData row) {
            return function.asyncPredict(row);
        }

        @Override
        public void close() throws Exception {
            function.close();
        }
    }

    @Override
    public String factoryIdentifier() {
        return "triton-mended";
    }

    @Override
    public ModelProvider createModelProvider(Context context) {
        FactoryUtil.ModelProviderFactoryHelper found = FactoryUtil.createModelProviderFactoryHelper(this, context);
        found.validate();
        function = new Unchecked(context, found.getOptions());
        return new Provider(new Forwarded());
    }
}
