"""FastAPI with a typed body, run with two workers and no access log."""

from fastapi import FastAPI
from loading import load
from pydantic import BaseModel

predict = load()
app = FastAPI()


class Rows(BaseModel):
    instances: list[list[float]]


@app.post("/predict")
def answer(rows: Rows):
    return {"predictions": predict(rows.instances).tolist()}
