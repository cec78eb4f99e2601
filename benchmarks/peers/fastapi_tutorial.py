"""FastAPI as in the tutorials: a ``def`` endpoint that takes a dict, one process, access log."""

from fastapi import FastAPI
from loading import load

predict = load()
app = FastAPI()


@app.post("/predict")
def answer(data: dict):
    return {"predictions": predict(data["instances"]).tolist()}
