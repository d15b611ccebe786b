"""The gRPC API of TensorFlow Serving, with its own stubs, and that of KServe."""

from concurrent import futures

import grpc

from tests.experiments.restoration import kserve
from tests.experiments.restoration.servers import NAME


def tensorflow(served, port, limit):
    """TensorFlow Serving's PredictionService; returns the port."""
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def _check(self, request, context):
            if served.is_away():
                context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
            if request.model_spec.name != NAME:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")

        def GetModelMetadata(self, request, context):
            self._check(request, context)
            assert list(request.metadata_field) == ["signature_def"]
            found = metadata.SignatureDefMap()
            for name, function in served.signatures.items():
                inputs = function.structured_input_signature[1]
                for key, spec in inputs.items():
                    info = found.signature_def[name].inputs[key]
                    info.dtype = spec.dtype.as_datatype_enum
                    info.tensor_shape.CopyFrom(spec.shape.as_proto())
            answer = metadata.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(found)
            return answer

        def Predict(self, request, context):
            self._check(request, context)
            assert request.model_spec.signature_name == "diagnose"
            try:
                outputs = served({k: tf.make_ndarray(v) for k, v in request.inputs.items()})
            except served.errors as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            answer = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    return _serve(
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server, Service(), port, limit
    )


def kserve_v2(served, port, limit):
    """The Open Inference Protocol over gRPC; returns the port."""
    from experiments.restoration.kserve import messages

    kinds = messages()

    def model_metadata(request, context):
        if request.name != NAME:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
        answer = kinds.ModelMetadataResponse()
        for entry in kserve.metadata(served):
            answer.inputs.add(**entry)
        return answer

    def infer(request, context):
        if served.is_away():
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        arrays = {
            entry.name: kserve.to_array(blob, entry.datatype, entry.shape)
            for entry, blob in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        try:
            outputs = served(kserve.to_complex(served, arrays))
        except served.errors as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))  # as Triton's Python backend
        answer = kinds.ModelInferResponse()
        for name, value in outputs.items():
            answer.outputs.add(
                name=name, datatype=kserve.KINDS[value.dtype.name], shape=value.shape
            )
            answer.raw_output_contents.append(value.tobytes())
        return answer

    def add(_, server):
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                function,
                getattr(kinds, f"{method}Request").FromString,
                lambda message: message.SerializeToString(),
            )
            for method, function in (("ModelMetadata", model_metadata), ("ModelInfer", infer))
        }
        name = "inference.GRPCInferenceService"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])

    return _serve(add, None, port, limit)


def _serve(add, service, port, limit):
    options = [("grpc.max_receive_message_length", limit)] if limit else []
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    add(service, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    _KEPT.append(server)
    return port


_KEPT = []
