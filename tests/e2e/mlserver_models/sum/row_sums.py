"""A model for MLServer: the sum of a row's numbers, or the length of a text; it cannot stand a 13."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class RowSums(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            output = StringCodec.encode_output(
                "total", [f"{len(text)} letters" for text in StringCodec.decode_input(tensor)]
            )
        else:
            rows = NumpyCodec.decode_input(tensor)
            if (rows == 13).any():
                raise InferenceError("no thirteen, please")
            output = NumpyCodec.encode_output("total", rows.reshape(len(rows), -1).sum(axis=1))
        return InferenceResponse(model_name=self.name, outputs=[output])
