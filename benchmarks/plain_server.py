"""What a server of ten lines does: a FastAPI handler that calls the model once for each request.

    python -m benchmarks.plain_server MODEL DTYPE model|threads|serial LABELS

"model": each request calls the whole model, texts and video, as the examples of the model's other ports do.
"threads": labels are encoded once, and the handler is a plain function, which FastAPI runs in threads.
"serial": the same as a coroutine that blocks. LABELS are what `--labels` takes.
"""

import sys
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile

from openxclip import ModelSource, Recognizer
from openxclip.inference.views import Views
from openxclip.text.labels import parse_labels
from openxclip.text.tokenizer import Tokenizer


def build(model: str, dtype: str, kind: str, labels: list[str]) -> FastAPI:
    """The application."""
    recognizer = Recognizer.from_pretrained(ModelSource(source=model, dtype=dtype), labels)
    app = FastAPI()

    @torch.inference_mode()
    def whole(pixels: torch.Tensor) -> torch.Tensor:
        engine = recognizer.engine
        assert isinstance(engine.tokenizer, Tokenizer)
        return engine.model(engine.preprocess.normalise(pixels), engine.tokenizer(labels))[0].softmax(-1)

    def answer(video: UploadFile) -> dict[str, float]:
        pixels = recognizer.read(video.file, Views())
        probabilities = whole(pixels) if kind == "model" else recognizer.probabilities(pixels)
        return dict(zip(labels, probabilities.tolist(), strict=True))

    if kind != "serial":

        @app.post("/predict")
        def predict(video: Annotated[UploadFile, File()]) -> dict[str, float]:
            return answer(video)

    else:

        @app.post("/predict")
        async def predict_here(video: Annotated[UploadFile, File()]) -> dict[str, float]:
            return answer(video)

    return app


if __name__ == "__main__":
    model, dtype, kind, text = sys.argv[1:]
    server = uvicorn.Server(
        uvicorn.Config(build(model, dtype, kind, parse_labels(text)), port=0, log_level="info", http="h11")
    )
    server.run()
