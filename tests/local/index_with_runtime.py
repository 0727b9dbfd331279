"""Index an app with Microsoft's worker, as Azure does; run by a Python that has it installed.

Prints one JSON object: the bindings of each function, or the error that Azure would show. The
worker hands its findings over as protobuf messages of FunctionRpc.proto, which its wheel does not
carry; plain objects with the same fields do here.
"""

import importlib
import json
import sys
from typing import Any


class _Message:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class _BindingInfo(_Message):
    """FunctionRpc.proto, message BindingInfo with its enums Direction and DataType."""

    out, inout = 1, 2
    undefined, string, binary, stream = 0, 1, 2, 3


setattr(_BindingInfo, "in", 0)


class _StatusResult(_Message):
    Failure, Success = 0, 1


class _Protos:
    BindingInfo = _BindingInfo
    RpcFunctionMetadata = type("RpcFunctionMetadata", (_Message,), {})
    RpcRetryOptions = type("RpcRetryOptions", (_Message,), {})
    StatusResult = _StatusResult


def index(folder: str) -> dict[str, Any]:
    """The raw bindings (function.json) of each function of the app in a folder."""
    functions = importlib.import_module("azure_functions_runtime.functions")
    loader = importlib.import_module("azure_functions_runtime.loader")
    importlib.import_module("azure_functions_runtime.bindings.meta").load_binding_registry()
    sys.path.insert(0, folder)
    app = importlib.import_module("function_app").app
    found, _ = loader.process_indexed_function(
        _Protos, functions.Registry(), app.get_functions(), folder
    )
    return {each.name: [json.loads(raw) for raw in each.raw_bindings] for each in found}


if __name__ == "__main__":
    try:
        answer: dict[str, Any] = {"functions": index(sys.argv[1])}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
