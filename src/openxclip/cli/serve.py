"""`openxclip serve`: serve a model as an HTTP API and a web page."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from openxclip.caches import keep_compiled_code
from openxclip.cli.options import LoadOptions, Model
from openxclip.inference.options import InferenceOptions
from openxclip.serving.options import ServeOptions


@dataclass(frozen=True, kw_only=True)
class ServeCommandOptions:
    """Options of `openxclip serve`."""

    model: Model = "openxclip-tiny"
    serve: ServeOptions = field(default_factory=ServeOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


def serve(options: Annotated[ServeCommandOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Serve a model: a web page at /, an HTTP API under /v1, its documentation at /docs.

    Requests are batched together. One JSON line per request goes to stderr. SIGTERM and Ctrl-C stop the server once it
    has answered the requests it accepted. The default model needs no download, and knows moving shapes only.
    """
    options.serve.check()
    if options.inference.runtime.may_compile:
        keep_compiled_code()
    try:
        import fastapi_offline  # noqa: F401  fail before a model is loaded
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        from openxclip.errors import MissingExtraError

        raise MissingExtraError(str(error.name), "serve") from error
    from openxclip.inference.engine import Engine

    engine = Engine.load(options.load.source(options.model), options.inference)
    from openxclip.serving.server import serve as run
    from openxclip.serving.service import model_name

    if run(engine, model_name(options.model), options.serve):
        return 0
    message = f"openxclip: cannot listen on {options.serve.host}:{options.serve.port}; give another --host or --port"
    print(message, file=sys.stderr)
    return 1
