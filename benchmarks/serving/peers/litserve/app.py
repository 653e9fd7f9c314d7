# mypy: ignore-errors
"""The booster behind LitServe, in batches or one by one: ``python app.py PORT``.

Runs in LitServe's environment. Nothing that comes in or goes out is annotated: LitServe would have
FastAPI check it against the annotation.
"""

import os
import sys

import litserve
import numpy as np
import xgboost as xgb


class OneByOne(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002
        self.booster = xgb.Booster(model_file=os.environ["BOOSTER"])
        self.booster.set_param({"nthread": 1})

    def decode_request(self, request):
        return np.array(request["row"], dtype=np.float32)

    def predict(self, x):
        return self.booster.inplace_predict(x.reshape(1, -1), missing=np.nan)[0]

    def encode_response(self, output):
        return {"prediction": float(output)}


class Batches(OneByOne):
    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.booster.inplace_predict(x, missing=np.nan)

    def unbatch(self, output):
        return list(output)


def main(port: int) -> None:
    size, wait = int(os.environ["BATCH_SIZE"]), float(os.environ["BATCH_SECONDS"])
    api = Batches(max_batch_size=size, batch_timeout=wait) if size > 1 else OneByOne()
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=1,
        timeout=False,
        fast_queue=os.environ["FAST_QUEUE"] == "1",
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
