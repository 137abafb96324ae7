"""A model under Ray Serve: `serve run ray_serve:application` where Ray is installed; MODEL names the file."""

import os

from ray import serve
from starlette.requests import Request

import reinception as ri


@serve.deployment(ray_actor_options={"num_cpus": 2}, max_ongoing_requests=32, max_queued_requests=128)
class Classifier:
    def __init__(self, path: str) -> None:
        self.predict = ri.Predictor(path)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def answer(self, images: list[bytes]) -> list[dict[str, object]]:
        return [one.to_json() for one in self.predict(images)]

    async def __call__(self, request: Request) -> dict[str, object]:
        return await self.answer(await request.body())


application = Classifier.bind(os.environ["MODEL"])  # pyrefly: ignore[missing-attribute]
